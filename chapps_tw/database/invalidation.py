"""Invalidation of cached values: at once after a change, else later, and on any node."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.database.outbox import OutboxRow
from chapps_tw.interfaces.book import BookUnavailable, StaleKeys
from chapps_tw.interfaces.state import StateUnavailable

T = TypeVar("T")
R = TypeVar("R")

# Batches that run at a time, and keys of a batch. A domain's flags are two keys of the state.
AT_ONCE: Final = 16
KEYS: Final = 100
DOMAINS: Final = 10

# Seconds until the outbox is read again: while invalidations are pending, and for those that other nodes left.
RETRY: Final = 1.0
POLL: Final = 15.0

# Seconds in which finished rows are collected to be deleted together, and that a stop waits for their deletion.
COLLECT: Final = 0.5
STOP: Final = 0.5


class Cache(Protocol):
    """The cached values. Both methods raise :class:`StateUnavailable`."""

    def ping(self) -> Awaitable[None]:
        """Return when keys can be invalidated."""

    def invalidate(self, stale: StaleKeys) -> Awaitable[None]:
        """Invalidate a batch of keys."""


class Each(Protocol):
    """Calls ``call`` for each item, with so many calls at a time, and lets the reactor run in between."""

    def __call__(self, items: Sequence[T], call: Callable[[T], Awaitable[R]], workers: int) -> Awaitable[list[R]]: ...


class Outbox(Protocol):
    """The invalidation outbox. Both methods raise :class:`BookUnavailable`."""

    def read_outbox(self, after: str = "") -> Awaitable[list[OutboxRow]]:
        """A page of the rows of all nodes whose id is greater than ``after``, by id."""

    def remove_from_outbox(self, ids: Sequence[str]) -> Awaitable[None]:
        """Delete rows that exist."""


class Invalidation:
    """Invalidates cached values, and makes sure that none is forgotten.

    Each change adds its stale keys to the outbox. An invalidation that fails, or that a node did not live to do, is
    done later by the node that reads the outbox first: each reads it when it starts, from time to time, and once a
    second while it knows of pending ones.

    Rows are deleted after the answer, those of a moment in one transaction, so that neither the client nor the next
    change waits for it. A row that is not deleted costs another invalidation, which is harmless.

    :param each: for many batches.
    :param reactor: for timers.
    """

    _log = Logger()

    def __init__(self, outbox: Outbox, cache: Cache, each: Each, reactor: IReactorTime) -> None:
        self._outbox = outbox
        self._cache = cache
        self._each = each
        self._reactor = reactor
        self._pending = 0
        self._stopped = False
        # Ids of rows that are finished here, and not deleted yet.
        self._finished: set[str] = set()
        self._deleting: IDelayedCall | None = None
        self._polled: Deferred[Any] = succeed(None)
        self._polling = LoopingCall(self._poll)
        self._polling.clock = reactor

    @property
    def pending(self) -> int:
        """How many invalidations this node knows of that are still to be done."""
        return self._pending

    def start(self) -> None:
        """Begin to read the outbox."""
        self._polled = self._polling.start(POLL)

    async def stop(self) -> None:
        """Invalidate nothing more, and delete the rows that are finished."""
        self._stopped = True
        if self._polling.running:
            self._polling.stop()
        if self._deleting is not None:
            self._deleting.cancel()
            self._deleting = None
        ended = Deferred.fromCoroutine(self._end()).addTimeout(STOP, self._reactor)
        await ended.addErrback(lambda failure: failure.trap(TimeoutError))

    async def _end(self) -> None:
        await self._polled
        if self._finished:
            await self._delete()

    async def run(self, stale: StaleKeys, rows: Sequence[str]) -> bool:
        """Invalidate what a change made stale.

        :param rows: ids of its rows in the outbox.
        :returns: whether it is done; else it is done as soon as it can be.
        """
        try:
            await self._all(stale)
        except StateUnavailable:
            self._postpone(len(rows))
            return False
        self._delete_later(rows)
        return True

    async def run_uncertain(self, stale: StaleKeys) -> None:
        """Invalidate what a change made stale if it is stored, and again when its rows are found in the outbox."""
        if any(stale):
            with suppress(StateUnavailable):
                await self._all(stale)
            # The commit may come after this.
            self._postpone(1)

    def _postpone(self, count: int) -> None:
        self._pending += max(1, count)
        if self._polling.running and self._polling.interval != RETRY:
            self._polling.interval = RETRY
            self._polling.reset()

    # --- reading the outbox ---

    async def _poll(self) -> None:
        wait = RETRY
        try:
            await self._empty_outbox()
            wait = RETRY if self._pending else POLL
        except (StateUnavailable, BookUnavailable):
            pass
        except Exception:
            self._log.failure("Cached values cannot be invalidated")
            wait = POLL
        self._polling.interval = wait

    async def _empty_outbox(self) -> None:
        """Do all invalidations in the outbox.

        :raises StateUnavailable, BookUnavailable: when they cannot be done now.
        """
        known = self._pending
        if known:
            # While the state store is unavailable, the database need not be asked.
            await self._cache.ping()
        after = ""
        while page := await self._outbox.read_outbox(after):
            await self._do_page(page)
            after = page[-1].id
        # A change that was postponed meanwhile may have an id before those that were read.
        self._pending -= known

    async def _do_page(self, page: list[OutboxRow]) -> None:
        try:
            for row in page:
                if row.id not in self._finished:
                    await self._all(row.stale)
        except StateUnavailable:
            self._pending = max(self._pending, len(page))
            raise
        await self._outbox.remove_from_outbox([row.id for row in page])

    # --- deleting rows ---

    def _delete_later(self, rows: Sequence[str]) -> None:
        if not rows or not self._polling.running:
            return
        self._finished.update(rows)
        if self._deleting is None:
            self._deleting = self._reactor.callLater(COLLECT, self._delete_now)

    def _delete_now(self) -> None:
        deleting = Deferred.fromCoroutine(self._delete())
        deleting.addErrback(lambda failure: self._log.failure("Rows of the outbox cannot be deleted", failure))

    async def _delete(self) -> None:
        self._deleting = None
        ids = sorted(self._finished)
        # A node that reads them invalidates the same keys once more.
        with suppress(BookUnavailable):
            await self._outbox.remove_from_outbox(ids)
        self._finished.difference_update(ids)

    # --- invalidating ---

    async def _all(self, stale: StaleKeys) -> None:
        """Invalidate keys in batches, up to the first batch that fails.

        :raises StateUnavailable: why it failed.
        """
        failed: list[StateUnavailable] = []

        async def one(batch: StaleKeys) -> None:
            try:
                if self._stopped:
                    raise StateUnavailable("This node is stopping.")
                if not failed:
                    await self._cache.invalidate(batch)
            except StateUnavailable as error:
                failed.append(error)

        await self._each(list(_batches(stale)), one, AT_ONCE)
        if failed:
            raise failed[0]


def _batches(stale: StaleKeys) -> Iterator[StaleKeys]:
    if stale.unlisted:
        yield StaleKeys(unlisted=stale.unlisted)
    for users in _parts(sorted(stale.limits), KEYS):
        yield StaleKeys(limits=frozenset(users))
    for domains in _parts(sorted(stale.flags), DOMAINS):
        yield StaleKeys(flags=frozenset(domains))
    by_user: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for pair in sorted(stale.senders):
        by_user[pair[0]].append(pair)
    for pairs in by_user.values():
        for part in _parts(pairs, KEYS):
            yield StaleKeys(senders=frozenset(part))


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
