"""Queries and changes of the HTTP API in the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from chapps_tw.database import audit, events, outbox, queries, rules
from chapps_tw.database.book import Book
from chapps_tw.database.breaker import Run
from chapps_tw.database.changes import Applied, apply
from chapps_tw.database.fields import name_taken
from chapps_tw.database.importing import Import
from chapps_tw.database.invalidation import Cache, Each, Invalidation
from chapps_tw.database.text import folds_case
from chapps_tw.database.transaction import Permit, Stored, transact, write
from chapps_tw.interfaces.book import ChangeUncertain, Create, Edit, Entry, Update
from chapps_tw.interfaces.events import Event, EventsWanted, KeptEvent
from chapps_tw.interfaces.writable_book import AuditRecord, Changed, Imported, LimitEntry, Rule, Sort
from chapps_tw.observe.timer import Timer, no_timer

T = TypeVar("T")

# Seconds until an import fails.
IMPORT_DEADLINE: Final = 120.0

_IMPORT_TAKEN: Final = "Another client has just created one of these domains or addresses."


class WritableSqlBook(Book):
    """Lets the HTTP API read and change the database (:class:`~chapps_tw.interfaces.writable_book.WritableBook`).

    It uses only half of the connections, so that lists and bulk changes never delay a policy.

    :param cache: invalidates cached values in the state store.
    :param each: as for :class:`~chapps_tw.database.invalidation.Invalidation`.
    :param timer: also times each ``list`` and ``change``, reading or deleting rows of the outbox (``drops``), and what
        :meth:`write` is given.
    :param deadline: also applies to a lookup of one entry by id or name.
    :param bulk_deadline: seconds until a list or a change fails with
        :exc:`~chapps_tw.interfaces.book.BookUnavailable`.

    In addition to the exceptions of the protocol, values and links that do not fit the schema raise
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
        now: Callable[[], float],
    ) -> None:
        super().__init__(engine, reactor, run, size, deadline, timer, now=now)
        self._bulk_deadline = bulk_deadline
        self._connections = DeferredSemaphore(max(1, size // 2))
        self._invalidation = Invalidation(self, cache, each, reactor)

    @property
    def pending_invalidations(self) -> int:
        """The number of pending invalidations that this node knows of."""
        return self._invalidation.pending

    def start(self) -> None:
        """Start with the invalidations that this or another node left behind."""
        self._invalidation.start()

    async def stop(self) -> None:
        """Stop invalidating, close all connections, and stop probing the database."""
        await self._invalidation.stop()
        await super().stop()

    async def entries(
        self,
        kind: str,
        q: str = "",
        skip: int = 0,
        limit: int = 1000,
        linked: tuple[str, int] | None = None,
        sort: Sort = "id",
    ) -> list[Entry]:
        """Return the entries whose name contains ``q``, case-insensitively.

        :param linked: kind and id of an entry: only entries that are linked to it.
        """
        page = partial(queries.entries, kind=kind, q=q, skip=skip, limit=limit, linked=linked, sort=sort)
        return await self._fetch(page)

    async def total(self, kind: str, q: str = "", linked: tuple[str, int] | None = None) -> int:
        """Return the number of the entries whose name contains ``q``; of those that are linked to an entry."""
        return await self._fetch(partial(queries.total, kind=kind, q=q, linked=linked))

    async def by_ids(self, kind: str, ids: Sequence[int]) -> list[Entry]:
        """Return the entries with these ids, ordered by id. Ids that do not exist are ignored."""
        # A single one is as quick as a lookup of a policy.
        deadline = self._deadline if len(ids) == 1 else self._bulk_deadline
        return await self._fetch(partial(queries.by_ids, kind=kind, ids=ids), deadline=deadline)

    async def by_name(self, kind: str, name: str) -> Entry | None:
        """Return the entry with this name, in any spelling; of several, the one that policies use."""
        return await self._fetch(partial(queries.by_name, kind=kind, name=name), deadline=self._deadline)

    async def by_names(self, kind: str, names: Sequence[str]) -> dict[str, Entry]:
        """Return the entry of each name that exists, as :meth:`by_name` does, in order. Not for quotas.

        :param names: in normal form.
        """
        return await self._fetch(partial(queries.by_names, kind=kind, names=names)) if names else {}

    async def links(
        self, kind: str, ids: Sequence[int], other: str, limit: int | None = None
    ) -> dict[int, list[Entry]]:
        """Return, by id, the entries of kind ``other`` that are linked to it, ordered by id.

        :param limit: the most entries, of all ids together.
        """
        return await self._fetch(partial(queries.links, kind=kind, ids=ids, other=other, limit=limit))

    async def limits_of(self, quotas: Sequence[int], limit: int) -> dict[int, list[LimitEntry]]:
        """Return, by id of the quota, its limits, ordered by id; at most ``limit`` of all quotas together."""
        return await self._fetch(partial(rules.limits_of, quotas=quotas, limit=limit))

    async def rules(
        self, kind: str, of: tuple[str, int] | None = None, after: float = 0.0, skip: int = 0, limit: int = 1000
    ) -> Sequence[Rule]:
        """Return limits, overrides or exemptions, ordered by id.

        :param of: kind and id of the quota, user or domain: only its own.
        :param after: epoch seconds: only those that are not over then.
        """
        work = partial(rules.page, kind=kind, of=of, after=after, skip=skip, limit=limit)
        return await self._fetch(work)

    async def rules_by_ids(self, kind: str, ids: Sequence[int]) -> Sequence[Rule]:
        """Return the limits, overrides or exemptions with these ids, ordered by id."""
        return await self._fetch(partial(rules.by_ids, kind=kind, ids=ids))

    async def audit(
        self,
        author: str | None = None,
        kind: str = "",
        name: str = "",
        since: float = 0.0,
        until: float = 0.0,
        before: int = 0,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """Return records of the audit trail, newest first; at most 1,000."""
        wanted = audit.Wanted(author, kind, name, since, until, before, limit)
        return await self._fetch(partial(audit.read, wanted=wanted))

    async def add_to_audit(
        self,
        author: str,
        action: str,
        kind: str,
        name: str,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a record of a change of the live state."""
        audit.require_bounded(before)
        audit.require_bounded(after)
        now = self._now()

        def add(connection: Connection) -> None:
            audit.Trail(connection, author, now).add(action, kind, None, name, before, after)

        await self.write("change", add)

    async def events(self, wanted: EventsWanted) -> list[KeptEvent]:
        """Return events, newest first; at most 1,000."""
        return await self._fetch(partial(events.read, wanted=wanted))

    async def add_events(self, node: str, found: Sequence[Event]) -> None:
        """Keep events that a node has noticed; of those that several notice, the first."""
        await self.write("change", partial(events.add, node=node, events=found))

    async def prune_audit(self, age: float) -> None:
        """Delete the records of the audit trail that are older than ``age`` seconds, and events if there are too many.

        Some at a time.
        """
        for prune in (partial(audit.prune, older_than=self._now() - age), events.prune):
            while await self.write("change", prune) == audit.MAX_RECORDS:
                pass

    async def change(self, edit: Edit, author: str = "") -> Changed:
        """Store a change and its audit record in one transaction, and invalidate its stale keys."""
        value, awaits_state, awaits_refresh = await self._in_effect(self._store(edit, author))
        return Changed(*value, awaits_state=awaits_state, awaits_refresh=awaits_refresh)

    async def import_lines(self, text: bytes, create: bool, author: str = "") -> Imported:
        """Apply many permissions and quotas in one transaction, and invalidate their stale keys."""
        fold_case, now, permit = folds_case(self._engine), self._now(), Permit()

        def work() -> Stored[Imported]:
            # Read before the transaction, which makes other changes wait.
            lines = Import(text, create, fold_case)
            apply_all = partial(lines.apply, author=author, now=now)
            return transact(self._engine, apply_all, permit, _IMPORT_TAKEN)

        storing = self._connections.run(self._call, "change", work, IMPORT_DEADLINE, permit.give_up)
        value, awaits_state, awaits_refresh = await self._in_effect(storing)
        return value._replace(awaits_state=awaits_state, awaits_refresh=awaits_refresh)

    async def _in_effect(self, storing: Awaitable[Stored[T]]) -> tuple[T, bool, bool]:
        """Invalidate the stale keys of a change that is being stored.

        :returns: its result, and whether it awaits the state store and the refresh: see
            :class:`~chapps_tw.interfaces.writable_book.Changed`.
        """
        try:
            stored = await storing
        except ChangeUncertain as uncertain:
            await self._invalidation.run_uncertain(uncertain.stale)
            raise
        done = await self._invalidation.run(stored.stale, stored.rows)
        return stored.value, not done, bool(stored.stale.unlisted)

    async def read_outbox(self, after: str = "") -> list[outbox.OutboxRow]:
        """Return a page of the rows of the invalidation outbox with an id greater than ``after``, ordered by id."""
        return await self._fetch(partial(outbox.read, after=after), "drops")

    async def remove_from_outbox(self, ids: Sequence[str]) -> None:
        """Delete rows of the invalidation outbox. Ids that do not exist are ignored."""
        await self.write("drops", partial(outbox.remove, ids=ids))

    async def write(self, operation: str, work: Callable[[Connection], T]) -> T:
        """Run a transaction that does not change what policies read; return its result.

        :param operation: for the timer.
        :raises BookUnavailable: if the database is unavailable, read-only, or too slow.
        """
        transaction = partial(write, self._engine, work)
        return await self._connections.run(self._call, operation, transaction, self._bulk_deadline)

    async def _fetch(
        self, work: Callable[[Connection], T], operation: str = "list", deadline: float | None = None
    ) -> T:
        deadline = deadline or self._bulk_deadline
        return await self._connections.run(self._call, operation, partial(self._read, work), deadline)

    async def _store(self, edit: Edit, author: str) -> Stored[Applied]:
        permit = Permit()
        work = partial(apply, edit=edit, author=author, now=self._now())
        transaction = partial(transact, self._engine, work, permit, _taken(edit))
        return await self._connections.run(self._call, "change", transaction, self._bulk_deadline, permit.give_up)


def _taken(edit: Edit) -> str:
    """Return the message for a unique key that is taken."""
    fields = edit.fields if isinstance(edit, Create | Update) else {}
    return name_taken(edit.kind, fields.get("name"))
