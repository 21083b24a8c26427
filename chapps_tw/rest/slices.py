"""Long work in slices: mail's questions are answered on the same reactor, and none may wait for a page of HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IReactorTime

# Seconds of a turn of the reactor that all requests together may take. What is done between two looks at the clock
# comes on top.
SLICE = 0.001

T = TypeVar("T")
R = TypeVar("R")


class Slices:
    """Lets the reactor in between parts of long work.

    :param reactor: its clock, and its turns.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._end = 0.0
        self._waiting: list[Deferred[None]] = []

    @property
    def over(self) -> bool:
        """Whether the time of this turn is up."""
        return self._reactor.seconds() >= self._end

    async def pause(self) -> None:
        """Go on when there is time: at once, or in a later turn."""
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
        """All items but ``None``, or the first so many: each item, ``None`` too, is a place to pause at."""
        found: list[T] = []
        for item in items:
            if item is not None:
                found.append(item)
                if len(found) == limit:
                    break
            if self.over:
                await self.pause()
        return found

    async def each(self, items: Sequence[T], ask: Callable[[T], Awaitable[R]], workers: int) -> list[R]:
        """The answer to each item, in the order of the items; so many are asked about at a time.

        What is asked may be there at once, as with the embedded store, or come from elsewhere.
        """
        answers: dict[int, R] = {}
        queue = iter(enumerate(items))

        async def work() -> None:
            for place, item in queue:
                await self.pause()
                answers[place] = await ask(item)

        tasks = [Deferred.fromCoroutine(work()) for _ in range(min(workers, len(items)))]
        try:
            await gatherResults(tasks, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()
        return [answers[place] for place in range(len(items))]

    async def in_parts(
        self, items: Sequence[T], size: int, ask: Callable[[Sequence[T]], Awaitable[Sequence[R]]]
    ) -> list[R]:
        """The answers to all items, asked about so many at a time, one part after the other."""
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        return [answer for answers in await self.each(parts, ask, 1) for answer in answers]
