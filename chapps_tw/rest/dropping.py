"""A change of the book is in force at once: the copies that it makes wrong are dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from chapps_tw.interfaces import LiveState, StateUnavailable, Touched

AT_ONCE = 16
NAMES = 500
MAX_LEFT = 100_000
RETRY = 1.0

T = TypeVar("T")


class Drop(NamedTuple):
    """Copies that one operation of the state drops.

    :ivar space: ``limits``, ``flags``, or the space of a verdict.
    :ivar owner: of verdicts.
    """

    space: str
    owner: str
    names: tuple[str, ...]


class CopyDropper:
    """Drops cached copies. What cannot be dropped while the state is away is tried again until it is.

    :param state: where the copies are.
    :param reactor: for the retries.
    """

    def __init__(self, state: LiveState, reactor: IReactorTime) -> None:
        self._state = state
        self._reactor = reactor
        self._left: dict[Drop, None] = {}
        self._retry: IDelayedCall | None = None
        self._log = Logger()

    async def drop(self, touched: Touched) -> list[str]:
        """Drop what a change touched; returns remarks."""
        failed = await self._try(list(_drops(touched)))
        if not failed:
            return []
        room = MAX_LEFT - len(self._left)
        if len(failed) > room:
            self._log.error("HTTP: {count} cached copies may stay until they expire", count=len(failed) - room)
        self._left.update(dict.fromkeys(failed[: max(0, room)]))
        self._schedule()
        return [
            "The change is stored, but the state store is away: it is in force when that is back. "
            "Should this node be restarted before, make the change again."
        ]

    @property
    def left(self) -> int:
        """How many operations are still to be tried again."""
        return len(self._left)

    def stop(self) -> None:
        """Try no more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    async def _try(self, drops: list[Drop]) -> list[Drop]:
        results = await at_most(AT_ONCE, drops, self._one)
        return [drop for drop, done in zip(drops, results, strict=True) if not done]

    async def _one(self, drop: Drop) -> bool:
        try:
            if drop.space == "limits":
                await self._state.drop_limits(drop.names)
            elif drop.space == "flags":
                await self._state.drop_flags(drop.names)
            else:
                await self._state.drop_verdicts(drop.space, drop.owner, drop.names)
        except StateUnavailable:
            return False
        return True

    def _schedule(self) -> None:
        if self._retry is None and self._left:
            self._retry = self._reactor.callLater(RETRY, self._again)

    def _again(self) -> None:
        self._retry = None
        again = Deferred.fromCoroutine(self._drop_left())
        again.addErrback(lambda failure: self._log.failure("HTTP: cached copies cannot be dropped", failure))
        again.addBoth(lambda _: self._schedule())

    async def _drop_left(self) -> None:
        # One first: while the state is away there is no use in asking for all.
        first = next(iter(self._left))
        if await self._one(first):
            drops = list(self._left)
            for done in set(drops).difference(await self._try(drops)):
                self._left.pop(done, None)


def _drops(touched: Touched) -> Iterator[Drop]:
    yield from _in_pieces("limits", "", sorted(touched.limits))
    yield from _in_pieces("flags", "", sorted(touched.flags))
    for domain in sorted(touched.flags):
        yield Drop("spf", domain, ("check_spf",))
    by_user: defaultdict[str, list[str]] = defaultdict(list)
    for user, name in sorted(touched.senders):
        by_user[user].append(name)
    for user, names in by_user.items():
        yield from _in_pieces("sda", user, names)


def _in_pieces(space: str, owner: str, names: list[str]) -> Iterator[Drop]:
    for start in range(0, len(names), NAMES):
        yield Drop(space, owner, tuple(names[start : start + NAMES]))


async def at_most(workers: int, items: list[Any], ask: Callable[[Any], Awaitable[T]]) -> list[T]:
    """Ask about each item, some at a time; the answers are in the order of the items."""
    answers: dict[int, T] = {}
    queue = iter(enumerate(items))

    async def work() -> None:
        for place, item in queue:
            answers[place] = await ask(item)

    tasks = [Deferred.fromCoroutine(work()) for _ in range(min(workers, len(items)))]
    try:
        await gatherResults(tasks, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    return [answers[place] for place in range(len(items))]
