"""A Redis that is connected, and answers with errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.interfaces.state import StateUnavailable

TRY_AGAIN = 1.0
"""Seconds after which a server that answered with an error is tried again; and how long without one is well again."""


class Refusals:
    """Tells once that the server answers with errors, and once that it does not any more.

    It is still asked: it may do some things and not others, as one that is full.

    :param name: of the server.
    :param reactor: for times.
    :param ping: tries all that the server is asked for, and tells :meth:`well`.
    :ivar problem: what it answers with, in a sentence; ``""`` when it does not.
    """

    _log = Logger()

    def __init__(self, name: str, reactor: Any, ping: Callable[[], Deferred[None]]) -> None:
        self._name = name
        self._reactor = reactor
        self._ping = ping
        self._last = 0.0
        self._trying: IDelayedCall | None = None
        self.problem = ""

    def note(self, problem: str) -> None:
        """It has answered with an error."""
        self._last = self._reactor.seconds()
        if not self.problem:
            self.problem = problem
            self._log.error("{problem}.", problem=problem)
        self._try_later()

    def well(self) -> None:
        """It has just done all that it is asked for."""
        if self.problem and self._reactor.seconds() - self._last >= TRY_AGAIN:
            self.stop()
            self.problem = ""
            self._log.info("{name} answers without errors again.", name=self._name)

    def stop(self) -> None:
        """Try no more."""
        if self._trying is not None:
            self._trying.cancel()
            self._trying = None

    def _try_later(self) -> None:
        if self._trying is None:
            self._trying = self._reactor.callLater(TRY_AGAIN, self._try)

    def _try(self) -> None:
        self._trying = None
        self._ping().addErrback(_still_unavailable).addCallback(self._tried)

    def _tried(self, _: None) -> None:
        if self.problem:
            self._try_later()


def _still_unavailable(failure: Failure) -> None:
    failure.trap(StateUnavailable)
