"""Who goes first, so that what strangers cause keeps nobody waiting."""

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


class Turns:
    """Lets a few go on in each turn of the reactor, so that a burst is no standstill.

    :param size: how many.
    """

    def __init__(self, reactor: IReactorTime, size: int) -> None:
        self._reactor = reactor
        self._size = self._free = size
        self._queue: deque[Deferred[None]] = deque()
        self._renewing = False

    def mine(self) -> Deferred[None]:
        """Fires when it is the caller's turn."""
        turn: Deferred[None] = Deferred()
        self._queue.append(turn)
        self._go_on()
        return turn

    def _go_on(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            self._queue.popleft().callback(None)
        if not self._renewing:
            self._renewing = True
            self._reactor.callLater(0, self._renew)

    def _renew(self) -> None:
        self._renewing = False
        self._free = self._size
        if self._queue:
            self._go_on()


class Queue:
    """Has work done one at a time, and the cheapest first: what is dear waits for all the rest.

    :param run: runs a function with its arguments in a thread.
    """

    def __init__(self, run: Callable[..., Deferred[Any]]) -> None:
        self._run = run
        self._queue: list[tuple[float, int, Deferred[None]]] = []
        self._numbers = count()
        self._busy = False

    async def run(self, price: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function with its arguments when nothing cheaper waits, and of the same price nothing older."""
        turn: Deferred[None] = Deferred()
        heappush(self._queue, (price, next(self._numbers), turn))
        self._go_on()
        await turn
        try:
            result: T = await self._run(work, *args, **kwargs)
            return result
        finally:
            self._busy = False
            self._go_on()

    def _go_on(self) -> None:
        while self._queue and not self._busy:
            *_, turn = heappop(self._queue)
            # It was called when it was given up.
            if not turn.called:
                self._busy = True
                turn.callback(None)
