"""Commands that wait for a connection to Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from chapps_tw.interfaces.state import StateUnavailable

C = TypeVar("C")


class Waiters(Generic[C]):
    """Lets commands wait for a connection until a timeout after it was lost; later commands fail at once.

    So the restart of a server, or a proxy that closes idle connections, defers no mail, and in a long outage only the
    first commands wait.

    :param reactor: for timers.
    :param timeout: in seconds.
    :param problem: returns why there is no connection, in a sentence.
    """

    def __init__(self, reactor: Any, timeout: float, problem: Callable[[], str]) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._problem = problem
        self._waiting: list[Deferred[C]] | None = None
        self._end: IDelayedCall | None = None

    def open(self) -> None:
        """Begin to queue: a connection is being established."""
        if self._waiting is None:
            self._waiting = []
            self._end = self._reactor.callLater(self._timeout, self.close)

    def wait(self) -> Deferred[C]:
        """Return a connection.

        :raises StateUnavailable: (the Deferred) on timeout; at once if no connection is being established.
        """
        waiter: Deferred[C] = Deferred()
        if self._waiting is None:
            waiter.errback(StateUnavailable(self._problem()))
        else:
            self._waiting.append(waiter)
        return waiter

    def serve(self, connection: C) -> None:
        """Pass a connection to all waiters."""
        for waiter in self._stop():
            waiter.callback(connection)

    def close(self) -> None:
        """Fail all waiters."""
        for waiter in self._stop():
            waiter.errback(StateUnavailable(self._problem()))

    def _stop(self) -> list[Deferred[C]]:
        if self._end is not None and self._end.active():
            self._end.cancel()
        waiting, self._waiting = self._waiting or [], None
        # Skip those that were cancelled.
        return [waiter for waiter in waiting if not waiter.called]
