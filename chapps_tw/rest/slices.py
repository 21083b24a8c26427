"""Splits long work of HTTP requests into time slices, so that it does not delay policy requests on the reactor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

# Seconds per turn of the reactor, for all HTTP requests together. It is exceeded by the work between two checks.
SLICE = 0.001

T = TypeVar("T")
R = TypeVar("R")


class Slices:
    """Yields to the reactor between parts of long work.

    :param reactor: for time, and to schedule the next slice.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._end = 0.0
        self._waiting: list[Deferred[None]] = []

    @property
    def over(self) -> bool:
        """Whether the current slice is used up."""
        return self._reactor.seconds() >= self._end

    async def pause(self) -> None:
        """Return at once if the current slice is not used up, else in a later turn."""
        while self.over:
            if not self._waiting:
                self._reactor.callLater(0, self._begin)
            turn: Deferred[None] = Deferred()
            self._waiting.append(turn)
            await turn

    def _begin(self) -> None:
        waiting, self._waiting = self._waiting, []
        self._end = self._reactor.seconds() + SLICE
        for turn in waiting:
            turn.callback(None)

    async def collect(self, items: Iterable[T | None], limit: int | None = None) -> list[T]:
        """Return the items that are not ``None``, at most ``limit``. May pause after each item, ``None`` or not."""
        collected: list[T] = []
        for item in items:
            if item is not None:
                collected.append(item)
                if len(collected) == limit:
                    break
            if self.over:
                await self.pause()
        return collected

    async def each(self, items: Sequence[T], call: Callable[[T], Awaitable[R]], workers: int) -> list[R]:
        """Call an asynchronous function with each item, ``workers`` at a time; return the results in order."""
        results: dict[int, R] = {}
        queue = iter(enumerate(items))

        async def work() -> None:
            for index, item in queue:
                await self.pause()
                results[index] = await call(item)

        tasks = [Deferred.fromCoroutine(work()) for _ in range(min(workers, len(items)))]
        try:
            await gatherResults(tasks, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return [results[index] for index in range(len(items))]

    async def in_parts(
        self, items: Sequence[T], size: int, call: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> list[R]:
        """Call an asynchronous function with batches of ``size`` items, one after the other; return all results."""
        batches = [items[start : start + size] for start in range(0, len(items), size)]
        return [result for results in await self.each(batches, call, 1) for result in results]
