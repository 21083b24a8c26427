"""Those who wait for a connection to Redis while one is being made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from chapps_tw.interfaces.state import StateUnavailable

C = TypeVar("C")


class Waiters(Generic[C]):
    """Lets questions wait for a connection for a while after one was lost, and none after that.

    A server that is started again, or a proxy that closes what is idle, so defers no mail, and in a long outage
    only the first questions wait.

    :param reactor: for times.
    :param patience: seconds that a connection is waited for.
    :param problem: why there is none, in a sentence.
    """

    def __init__(self, reactor: Any, patience: float, problem: Callable[[], str]) -> None:
        self._reactor = reactor
        self._patience = patience
        self._problem = problem
        self._waiting: list[Deferred[C]] | None = None
        self._end: IDelayedCall | None = None

    def open(self) -> None:
        """A connection is being made."""
        if self._waiting is None:
            self._waiting = []
            self._end = self._reactor.callLater(self._patience, self.close)

    def wait(self) -> Deferred[C]:
        """A connection.

        :raises StateUnavailable: (the Deferred) when there is none in time; at once when none is expected.
        """
        waiter: Deferred[C] = Deferred()
        if self._waiting is None:
            waiter.errback(StateUnavailable(self._problem()))
        else:
            self._waiting.append(waiter)
        return waiter

    def serve(self, connection: C) -> None:
        """Let all go on: there is a connection."""
        for waiter in self._stop():
            waiter.callback(connection)

    def close(self) -> None:
        """Let all go without."""
        for waiter in self._stop():
            waiter.errback(StateUnavailable(self._problem()))

    def _stop(self) -> list[Deferred[C]]:
        if self._end is not None and self._end.active():
            self._end.cancel()
        waiting, self._waiting = self._waiting or [], None
        # Others were cancelled.
        return [waiter for waiter in waiting if not waiter.called]
