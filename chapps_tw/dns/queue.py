"""Scheduling: keeps DNS work that strangers cause from delaying other requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

P = ParamSpec("P")
T = TypeVar("T")


class TurnLimiter:
    """Limits how many callers proceed in one turn of the reactor, so that a burst does not block it.

    :param limit: callers per turn.
    """

    def __init__(self, reactor: IReactorTime, limit: int) -> None:
        self._reactor = reactor
        self._limit = self._free = limit
        self._waiters: deque[Deferred[None]] = deque()
        self._reset_scheduled = False

    def wait(self) -> Deferred[None]:
        """Return a Deferred that fires when the caller may proceed."""
        waiter: Deferred[None] = Deferred()
        self._waiters.append(waiter)
        self._release()
        return waiter

    def _release(self) -> None:
        while self._free and self._waiters:
            self._free -= 1
            self._waiters.popleft().callback(None)
        if not self._reset_scheduled:
            self._reset_scheduled = True
            self._reactor.callLater(0, self._reset)

    def _reset(self) -> None:
        self._reset_scheduled = False
        self._free = self._limit
        if self._waiters:
            self._release()


class Queue:
    """A mutex with priorities: runs one job at a time, the cheapest first.

    :param run: runs a function with its arguments in a thread.
    """

    def __init__(self, run: Callable[..., Deferred[Any]]) -> None:
        self._run = run
        self._waiters: list[tuple[float, int, Deferred[None]]] = []
        self._sequence = count()
        self._busy = False

    async def run(self, cost: float, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function when no cheaper job is waiting. Jobs of equal cost run in order of arrival."""
        waiter: Deferred[None] = Deferred()
        heappush(self._waiters, (cost, next(self._sequence), waiter))
        self._start_next()
        await waiter
        try:
            result: T = await self._run(function, *args, **kwargs)
            return result
        finally:
            self._busy = False
            self._start_next()

    def _start_next(self) -> None:
        while self._waiters and not self._busy:
            *_, waiter = heappop(self._waiters)
            # A cancelled job has been called back already.
            if not waiter.called:
                self._busy = True
                waiter.callback(None)
