"""The policy book, open for changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from sqlalchemy import Connection, Engine
from twisted.internet.defer import DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from chapps_tw.database import changes, entries
from chapps_tw.database.book import Book
from chapps_tw.database.breaker import Run
from chapps_tw.database.pending import remove, some
from chapps_tw.database.transaction import Permit, transact, write
from chapps_tw.interfaces.book import Entry, Touched
from chapps_tw.observe.timer import Watch, unwatched

T = TypeVar("T")


class Keeper(Book):
    """Lets the HTTP API read and change the database (:class:`~chapps_tw.interfaces.book.BookKeeper`).

    Only half of the connections serve it, so that lists and bulk changes never keep a policy waiting.

    :param watch: times each ``list``, ``change``, and look at or removal of ``drops`` as well.
    :param deadline: also of a look-up of one entry by its id or name.
    :param keeping_deadline: seconds until a list or a change fails with
        :exc:`~chapps_tw.interfaces.book.BookUnavailable`. A change that has failed so is not in force, unless it
        is :exc:`~chapps_tw.interfaces.book.ChangeUncertain`, which says what it may have touched.

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
        keeping_deadline: float = 10.0,
        watch: Watch = unwatched,
    ) -> None:
        super().__init__(engine, reactor, run, size, deadline, watch)
        self._keeping_deadline = keeping_deadline
        self._turns = DeferredSemaphore(max(1, size // 2))

    async def entries(
        self, kind: str, q: str = "", skip: int = 0, limit: int = 1000, linked: tuple[str, int] | None = None
    ) -> list[Entry]:
        """Entries by id whose name contains ``q``, letter case aside; with ``linked`` only those linked to that one."""
        return await self._fetch(partial(entries.entries, kind=kind, q=q, skip=skip, limit=limit, linked=linked))

    async def by_ids(self, kind: str, ids: Sequence[int]) -> list[Entry]:
        """The entries with these ids that exist, in the order of their ids."""
        # One is as quick to find as what policies ask for.
        deadline = self._deadline if len(ids) == 1 else self._keeping_deadline
        return await self._fetch(partial(entries.by_ids, kind=kind, ids=ids), deadline=deadline)

    async def by_name(self, kind: str, name: str) -> Entry | None:
        """The entry of this name, however either is spelled; of several, the one that the policies take."""
        return await self._fetch(partial(entries.by_name, kind=kind, name=name), deadline=self._deadline)

    async def links(self, kind: str, ids: Sequence[int], other: str) -> dict[int, list[Entry]]:
        """For each id, the entries of kind ``other`` that are linked to it, by id."""
        return await self._fetch(partial(entries.links, kind=kind, ids=ids, other=other))

    async def create(
        self, kind: str, fields: dict[str, str | int | bool], links: dict[str, list[int]]
    ) -> tuple[Entry, Touched]:
        """Add an entry with its links."""
        work = partial(changes.create, kind=kind, fields=fields, links=links)
        return await self._change(work, partial(_taken, kind, fields))

    async def update(
        self, kind: str, id: int, fields: dict[str, str | int | bool], links: dict[str, list[int]]
    ) -> tuple[Entry, Touched]:
        """Change fields; a kind of link that is given replaces those there."""
        work = partial(changes.change, kind=kind, id=id, fields=fields, links=links)
        return await self._change(work, partial(_taken, kind, fields))

    async def delete(self, kind: str, ids: Sequence[int]) -> tuple[int, Touched]:
        """Remove the entries with these ids that exist; returns how many."""
        return await self._change(partial(changes.remove, kind=kind, ids=ids))

    async def link(self, kind: str, id: int, other: str, ids: Sequence[int]) -> tuple[None, Touched]:
        """Add links; those already there are left alone. A user's quota is replaced."""
        return await self._change(partial(changes.link, kind=kind, id=id, other=other, ids=ids))

    async def unlink(self, kind: str, id: int, other: str, ids: Sequence[int]) -> tuple[None, Touched]:
        """Remove links; those not there are left alone."""
        return await self._change(partial(changes.unlink, kind=kind, id=id, other=other, ids=ids))

    async def pending(self, after: str = "") -> list[Touched]:
        """Some of the drops that are still to be done, in the order of their keys."""
        return await self._fetch(partial(some, after=after), "drops")

    async def dropped(self, pending: Sequence[str]) -> None:
        """Forget drops that have been done."""
        removal = partial(write, self._engine, partial(remove, keys=pending))
        await self._turns.run(self._ask, "drops", removal, self._keeping_deadline)

    async def _fetch(
        self, work: Callable[[Connection], T], operation: str = "list", deadline: float | None = None
    ) -> T:
        deadline = deadline or self._keeping_deadline
        return await self._turns.run(self._ask, operation, partial(self._read, work), deadline)

    async def _change(
        self, work: Callable[[Connection], tuple[T, Touched]], taken: Callable[[str], str] = str
    ) -> tuple[T, Touched]:
        permit = Permit()
        transaction = partial(transact, self._engine, work, permit, taken)
        return await self._turns.run(self._ask, "change", transaction, self._keeping_deadline, permit.give_up)


def _taken(kind: str, fields: dict[str, str | int | bool], report: str) -> str:
    """Which unique key is taken, as the driver reports it."""
    if "ix_quotas_quota" in report or "quotas.quota" in report:
        return f"There is a quota of {fields.get('quota')} already."
    return f"There is one in {kind} with the name {fields.get('name')} already."
