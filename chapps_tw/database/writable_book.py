"""The policy book, open for changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from chapps_tw.database import outbox, queries
from chapps_tw.database.book import Book
from chapps_tw.database.breaker import Run
from chapps_tw.database.changes import apply, name_taken
from chapps_tw.database.invalidation import Cache, Each, Invalidation
from chapps_tw.database.transaction import Permit, Stored, transact, write
from chapps_tw.interfaces.book import Changed, ChangeUncertain, Create, Edit, Entry, StaleKeys, Update
from chapps_tw.observe.timer import Timer, no_timer

T = TypeVar("T")


class WritableSqlBook(Book):
    """Lets the HTTP API read and change the database (:class:`~chapps_tw.interfaces.book.WritableBook`).

    Only half of the connections serve it, so that lists and bulk changes never keep a policy waiting.

    :param cache: invalidates cached values in the state store.
    :param each: as for :class:`~chapps_tw.database.invalidation.Invalidation`.
    :param timer: times each ``list``, ``change``, and reading or deleting of rows of the outbox (``drops``) as well.
    :param deadline: also of a look-up of one entry by its id or name.
    :param bulk_deadline: seconds until a list or a change fails with
        :exc:`~chapps_tw.interfaces.book.BookUnavailable`.

    Besides what the protocol names, values and links that the schema has no room for raise
    :exc:`ValueError` with a sentence.
    """

    def __init__(
        self,
        engine: Engine,
        reactor: IReactorTime,
        run: Run,
        size: int = 8,
        deadline: float = 1.5,
        bulk_deadline: float = 10.0,
        timer: Timer = no_timer,
        *,
        cache: Cache,
        each: Each,
    ) -> None:
        super().__init__(engine, reactor, run, size, deadline, timer)
        self._bulk_deadline = bulk_deadline
        self._connections = DeferredSemaphore(max(1, size // 2))
        self._invalidation = Invalidation(self, cache, each, reactor)

    @property
    def pending_invalidations(self) -> int:
        """How many invalidations this node knows of that are still to be done."""
        return self._invalidation.pending

    def start(self) -> None:
        """Begin with the invalidations that this node, or another, left to be done."""
        self._invalidation.start()

    async def stop(self) -> None:
        """Invalidate nothing more, close all connections, and probe the database no more."""
        await self._invalidation.stop()
        await super().stop()

    async def entries(
        self, kind: str, q: str = "", skip: int = 0, limit: int = 1000, linked: tuple[str, int] | None = None
    ) -> list[Entry]:
        """Entries by id whose name contains ``q``, letter case aside; with ``linked`` only those linked to that one."""
        return await self._fetch(partial(queries.entries, kind=kind, q=q, skip=skip, limit=limit, linked=linked))

    async def by_ids(self, kind: str, ids: Sequence[int]) -> list[Entry]:
        """The entries with these ids that exist, in the order of their ids."""
        # One is as quick to find as what policies ask for.
        deadline = self._deadline if len(ids) == 1 else self._bulk_deadline
        return await self._fetch(partial(queries.by_ids, kind=kind, ids=ids), deadline=deadline)

    async def by_name(self, kind: str, name: str) -> Entry | None:
        """The entry of this name, however either is spelled; of several, the one that the policies take."""
        return await self._fetch(partial(queries.by_name, kind=kind, name=name), deadline=self._deadline)

    async def links(self, kind: str, ids: Sequence[int], other: str) -> dict[int, list[Entry]]:
        """For each id, the entries of kind ``other`` that are linked to it, by id."""
        return await self._fetch(partial(queries.links, kind=kind, ids=ids, other=other))

    async def change(self, edit: Edit) -> Changed:
        """Store a change in one transaction, and invalidate the cached values that it makes stale."""
        try:
            stored = await self._store(edit)
        except ChangeUncertain as uncertain:
            await self._invalidation.run_uncertain(uncertain.stale)
            raise
        stale = stored.stale
        done = await self._invalidation.run(stale, stored.rows)
        return Changed(stored.value, _affected(stale), awaits_state=not done, awaits_refresh=bool(stale.unlisted))

    async def read_outbox(self, after: str = "") -> list[outbox.OutboxRow]:
        """A page of the rows of the invalidation outbox whose id is greater than ``after``, by id."""
        return await self._fetch(partial(outbox.read, after=after), "drops")

    async def remove_from_outbox(self, ids: Sequence[str]) -> None:
        """Delete rows of the invalidation outbox that exist."""
        removal = partial(write, self._engine, partial(outbox.remove, ids=ids))
        await self._connections.run(self._ask, "drops", removal, self._bulk_deadline)

    async def _fetch(
        self, work: Callable[[Connection], T], operation: str = "list", deadline: float | None = None
    ) -> T:
        deadline = deadline or self._bulk_deadline
        return await self._connections.run(self._ask, operation, partial(self._read, work), deadline)

    async def _store(self, edit: Edit) -> Stored[Entry | None]:
        permit = Permit()
        transaction = partial(transact, self._engine, partial(apply, edit=edit), permit, partial(_taken, edit))
        return await self._connections.run(self._ask, "change", transaction, self._bulk_deadline, permit.give_up)


def _affected(stale: StaleKeys) -> int | None:
    return None if stale.unlisted else len(stale.limits.union(user for user, _ in stale.senders))


def _taken(edit: Edit, report: str) -> str:
    """Which unique key is taken, as the driver reports it."""
    fields = edit.fields if isinstance(edit, Create | Update) else {}
    if "ix_quotas_quota" in report or "quotas.quota" in report:
        return f"A quota of {fields.get('quota')} exists already."
    return name_taken(edit.kind, fields.get("name"))
