"""A change of the book is in force at once: the copies that it makes wrong are dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.interfaces.book import BookKeeper, BookUnavailable, Touched
from chapps_tw.interfaces.state import LiveState, StateUnavailable
from chapps_tw.rest.slices import Slices

AT_ONCE = 16
NAMES = 100

# Seconds until the book is looked into again: while something is left, and for what other nodes left.
RETRY, LOOK = 1.0, 15.0

# Seconds that drops which have been done are gathered, and that a stop waits until the book knows of them.
GATHER, STOP = 0.5, 0.5

WAITING = "The change is stored, but the state store is away: it is in force when that is back."

MANY = (
    "The change touches so many users that it is in force here at once, and on other nodes only within "
    "[PolicyConfigAdapter] refresh."
)

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
    """Drops cached copies, and sees to it that none is forgotten.

    With each change the book writes down what it makes wrong, until it is told that this has been
    dropped. So a drop that fails, or that a node did not live to do, is done later, by whichever node looks
    first: each does so when it starts, from time to time, and once a second while it knows of something left.

    The book is told after the answer, about all drops of a moment in one transaction: that keeps neither
    the client waiting nor the next change. Should it not come to that, copies that are right are dropped
    once more, which costs a question to the book.

    :param state: where the copies are.
    :param reactor: for the looks.
    :param slices: for drops of many.
    :param compare: has all copies be compared with the book when they are next wanted here, which is what becomes
        of a change that touches too many.
    """

    def __init__(
        self,
        state: LiveState,
        book: BookKeeper,
        reactor: IReactorTime,
        slices: Slices,
        compare: Callable[[], None] = lambda: None,
    ) -> None:
        self._slices = slices
        self._compare = compare
        self._state = state
        self._book = book
        self._reactor = reactor
        self._left = 0
        # Done here, but the book may not have forgotten them yet.
        self._dropped: set[str] = set()
        self._telling: IDelayedCall | None = None
        self._looked: Deferred[Any] = succeed(None)
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self._log = Logger()

    @property
    def left(self) -> int:
        """How many drops this node knows of that are still to be done."""
        return self._left

    def start(self) -> None:
        """Begin with what was left by whom ever."""
        self._looked = self._looking.start(LOOK)

    async def stop(self) -> None:
        """Drop no more, and tell the book what has been done."""
        if self._looking.running:
            self._looking.stop()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        ended = Deferred.fromCoroutine(self._end()).addTimeout(STOP, self._reactor)
        await ended.addErrback(lambda failure: failure.trap(TimeoutError))

    async def _end(self) -> None:
        await self._looked
        if self._dropped:
            await self._tell()

    async def drop(self, touched: Touched) -> list[str]:
        """Drop what a change touched; returns remarks."""
        if not any(touched):
            return []
        remarks = []
        if touched.many:
            self._compare()
            remarks.append(MANY)
        try:
            await self._drop(touched)
        except StateUnavailable:
            self._leave(len(touched.pending))
            return [*remarks, WAITING]
        if touched.pending:
            self._tell_later(touched.pending)
        elif not touched.many:
            # The change may come into force after this. Only what the book has written down tells.
            self._leave(1)
        return remarks

    def _leave(self, count: int) -> None:
        self._left += max(1, count)
        if self._looking.running and self._looking.interval != RETRY:
            self._looking.interval = RETRY
            self._looking.reset()

    # --- what is left ---

    async def _look(self) -> None:
        wait = RETRY
        try:
            await self._drop_left()
            wait = RETRY if self._left else LOOK
        except (StateUnavailable, BookUnavailable):
            pass
        except Exception:
            self._log.failure("HTTP: cached copies cannot be dropped")
            wait = LOOK
        self._looking.interval = wait

    async def _drop_left(self) -> None:
        """Do every drop that the book knows of.

        :raises StateUnavailable, BookUnavailable: when that cannot be done now.
        """
        known = self._left
        if known:
            # While the state is away there is no use in asking the book.
            await self._state.ping()
        after = ""
        while page := await self._book.pending(after):
            await self._drop_page(page)
            after = page[-1].pending[-1]
        # What was left meanwhile may have been passed over.
        self._left -= known

    async def _drop_page(self, page: list[Touched]) -> None:
        try:
            for touched in page:
                if not self._dropped.issuperset(touched.pending):
                    await self._drop(touched)
        except StateUnavailable:
            self._left = max(self._left, len(page))
            raise
        await self._book.dropped([key for touched in page for key in touched.pending])

    # --- what is done ---

    def _tell_later(self, keys: tuple[str, ...]) -> None:
        if not self._looking.running:
            return
        self._dropped.update(keys)
        if self._telling is None:
            self._telling = self._reactor.callLater(GATHER, self._tell_now)

    def _tell_now(self) -> None:
        telling = Deferred.fromCoroutine(self._tell())
        telling.addErrback(lambda failure: self._log.failure("HTTP: the book cannot forget drops", failure))

    async def _tell(self) -> None:
        self._telling = None
        keys = sorted(self._dropped)
        # Whoever looks next finds them, and drops the same once more.
        with suppress(BookUnavailable):
            await self._book.dropped(keys)
        self._dropped.difference_update(keys)

    # --- dropping ---

    async def _drop(self, touched: Touched) -> None:
        """Drop copies, up to the first that cannot be.

        :raises StateUnavailable: why it cannot be.
        """
        failed: list[StateUnavailable] = []

        async def one(drop: Drop) -> None:
            try:
                if not failed:
                    await self._one(drop)
            except StateUnavailable as error:
                failed.append(error)

        await self._slices.each(list(_drops(touched)), one, AT_ONCE)
        if failed:
            raise failed[0]

    async def _one(self, drop: Drop) -> None:
        if not self._looking.running:
            raise StateUnavailable("This node is stopping.")
        if drop.space == "limits":
            await self._state.drop_limits(drop.names)
        elif drop.space == "flags":
            await self._state.drop_flags(drop.names)
        else:
            await self._state.drop_verdicts(drop.space, drop.owner, drop.names)


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
