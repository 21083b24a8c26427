"""Invalidation of cached values: at once after a change, else later, and on any node."""

from __future__ import annotations

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

# Concurrent batches, and keys per batch, which SQLite invalidates in one turn of the reactor.
WORKERS: Final = 16
KEYS: Final = 25
# Those that many users depend on first.
_KINDS: Final = ("quotas", "quota_names", "domains", "sender_domains", "users", "flags", "senders")

# Seconds between reads of the outbox: while invalidations are pending, and for those left by other nodes.
RETRY: Final = 1.0
POLL: Final = 15.0

# Seconds for which finished rows are collected into one deletion, and that stop() waits for it.
BATCH_DELAY: Final = 0.5
STOP_TIMEOUT: Final = 0.5


class Cache(Protocol):
    """The cached values. Both methods raise :class:`StateUnavailable`."""

    def ping(self) -> Awaitable[None]:
        """Return when keys can be invalidated."""

    def invalidate(self, stale: StaleKeys) -> Awaitable[None]:
        """Invalidate a batch of keys."""


class Each(Protocol):
    """Calls ``call`` with each item, ``workers`` at a time, and yields to the reactor in between."""

    def __call__(self, items: Sequence[T], call: Callable[[T], Awaitable[R]], workers: int) -> Awaitable[list[R]]: ...


class Outbox(Protocol):
    """The invalidation outbox. Both methods raise :class:`BookUnavailable`."""

    def read_outbox(self, after: str = "") -> Awaitable[list[OutboxRow]]:
        """Return a page of the rows of all nodes with an id greater than ``after``, ordered by id."""

    def remove_from_outbox(self, ids: Sequence[str]) -> Awaitable[None]:
        """Delete rows. Ids that do not exist are ignored."""


class Invalidation:
    """Invalidates cached values, and retries until it has succeeded.

    Each change adds its stale keys to the outbox. If an invalidation fails, or its node stops first, the node that
    reads the outbox next repeats it. Each node reads the outbox when it starts, every ``POLL`` seconds, and every
    ``RETRY`` seconds while it knows of pending invalidations.

    Rows are deleted later and in batches, so that neither the client nor the next change waits for it. A row that is
    left behind causes another invalidation, which is harmless.

    :param each: runs many batches.
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
        # Ids of rows that are done, but not deleted yet.
        self._finished: set[str] = set()
        self._deleting: IDelayedCall | None = None
        self._polled: Deferred[Any] = succeed(None)
        self._polling = LoopingCall(self._poll)
        self._polling.clock = reactor

    @property
    def pending(self) -> int:
        """The number of pending invalidations that this node knows of."""
        return self._pending

    def start(self) -> None:
        """Start reading the outbox."""
        self._polled = self._polling.start(POLL)

    async def stop(self) -> None:
        """Stop invalidating, and delete the rows that are done."""
        self._stopped = True
        if self._polling.running:
            self._polling.stop()
        if self._deleting is not None:
            self._deleting.cancel()
            self._deleting = None
        ended = Deferred.fromCoroutine(self._end()).addTimeout(STOP_TIMEOUT, self._reactor)
        await ended.addErrback(lambda failure: failure.trap(TimeoutError))

    async def _end(self) -> None:
        await self._polled
        if self._finished:
            await self._delete()

    async def run(self, stale: StaleKeys, rows: Sequence[str]) -> bool:
        """Invalidate the stale keys of a change.

        :param rows: ids of its rows in the outbox.
        :returns: whether it is done. If not, it is retried.
        """
        try:
            await self._all(stale)
        except StateUnavailable:
            self._postpone(len(rows))
            return False
        self._delete_later(rows)
        return True

    async def run_uncertain(self, stale: StaleKeys) -> None:
        """Invalidate the stale keys of a change that may be stored; again if its rows are found in the outbox."""
        if any(stale):
            with suppress(StateUnavailable):
                await self._all(stale)
            # The transaction may be committed after this.
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
            self._log.failure("Failed to invalidate cached values")
            wait = POLL
        self._polling.interval = wait

    async def _empty_outbox(self) -> None:
        """Do all invalidations in the outbox.

        :raises StateUnavailable, BookUnavailable: if they cannot be done now.
        """
        known = self._pending
        if known:
            # Spares a query while the state store is unavailable.
            await self._cache.ping()
        after = ""
        while page := await self._outbox.read_outbox(after):
            await self._do_page(page)
            after = page[-1].id
        # Not 0: a row that was postponed meanwhile may have an id before those that were read.
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
            self._deleting = self._reactor.callLater(BATCH_DELAY, self._delete_now)

    def _delete_now(self) -> None:
        deleting = Deferred.fromCoroutine(self._delete())
        deleting.addErrback(lambda failure: self._log.failure("Failed to delete rows of the outbox", failure))

    async def _delete(self) -> None:
        self._deleting = None
        ids = sorted(self._finished)
        # If this fails, the node that reads them repeats the invalidation.
        with suppress(BookUnavailable):
            await self._outbox.remove_from_outbox(ids)
        self._finished.difference_update(ids)

    # --- invalidating ---

    async def _all(self, stale: StaleKeys) -> None:
        """Invalidate keys in batches, until a batch fails.

        :raises StateUnavailable: the error of that batch.
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

        await self._each(list(_batches(stale)), one, WORKERS)
        if failed:
            raise failed[0]


def _batches(stale: StaleKeys) -> Iterator[StaleKeys]:
    if stale.unlisted:
        yield StaleKeys(unlisted=stale.unlisted)
    for field in _KINDS:
        for part in _parts(sorted(getattr(stale, field)), KEYS):
            keys: dict[str, Any] = {field: frozenset(part)}
            yield StaleKeys(**keys)
    if stale.exemptions:
        yield StaleKeys(exemptions=True)


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
