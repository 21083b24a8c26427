"""Error replies of a connected Redis server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.interfaces.state import StateUnavailable

RETRY_INTERVAL = 1.0
"""Seconds between probes after an error reply, and without an error until the server counts as recovered."""


class ServerErrors:
    """Logs once when the server begins to answer with errors, and once when it has recovered.

    The server remains in use meanwhile: some commands may succeed, for example when its memory is full.

    :param name: of the server.
    :param reactor: for timers.
    :param ping: probes all commands in use, and calls :meth:`succeeded`.
    :ivar problem: the error in a sentence; ``""`` if there is none.
    """

    _log = Logger()

    def __init__(self, name: str, reactor: Any, ping: Callable[[], Deferred[None]]) -> None:
        self._name = name
        self._reactor = reactor
        self._ping = ping
        self._last = 0.0
        self._next_probe: IDelayedCall | None = None
        self.problem = ""

    def failed(self, problem: str) -> None:
        """Record an error reply."""
        self._last = self._reactor.seconds()
        if not self.problem:
            self.problem = problem
            self._log.error("{problem}.", problem=problem)
        self._schedule()

    def succeeded(self) -> None:
        """Record a successful probe."""
        if self.problem and self._reactor.seconds() - self._last >= RETRY_INTERVAL:
            self.stop()
            self.problem = ""
            self._log.info("{name} answers without errors again.", name=self._name)

    def stop(self) -> None:
        """Stop probing."""
        if self._next_probe is not None:
            self._next_probe.cancel()
            self._next_probe = None

    def _schedule(self) -> None:
        if self._next_probe is None:
            self._next_probe = self._reactor.callLater(RETRY_INTERVAL, self._probe)

    def _probe(self) -> None:
        self._next_probe = None
        self._ping().addErrback(_still_unavailable).addCallback(self._probed)

    def _probed(self, _: None) -> None:
        if self.problem:
            self._schedule()


def _still_unavailable(failure: Failure) -> None:
    failure.trap(StateUnavailable)
