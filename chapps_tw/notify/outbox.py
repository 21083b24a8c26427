"""The outbox: notices in the database, until the relay or the webhook took them.

A notice is leased before it is sent, so that no two nodes send it. When a node dies, the lease ends, and another one
sends it. One that was settled stays for a while, so that nothing adds it again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, Select, and_, delete, func, insert, or_, select, update

from chapps_tw.database.models import notices as table
from chapps_tw.notify.notice import DAILY_REPORT, Channel, Notice

T = TypeVar("T")

MAX_PENDING: Final = 100_000
LEASE: Final = 60.0
"""Seconds of a lease: longer than an attempt takes, by as much as the clocks of two nodes may differ."""

# Seconds for which a settled notice stays: longer than an event may be old that makes it.
_KEPT: Final = 86400.0
# Rows that one transaction ends or deletes.
_BATCH: Final = 500


class Database(Protocol):
    """Runs transactions (:meth:`~chapps_tw.database.writable_book.WritableSqlBook.write`)."""

    async def write(self, operation: str, work: Callable[[Connection], T]) -> T: ...


class Upkeep(NamedTuple):
    """The state of the outbox.

    :ivar pending: number of notices that wait, by channel and kind.
    :ivar given_up: likewise, of those that were given up just now.
    """

    pending: Mapping[tuple[str, str], int]
    given_up: Mapping[tuple[str, str], int]


class Outbox:
    """Notices in the table ``notices``. Each method raises :exc:`~chapps_tw.interfaces.book.BookUnavailable`.

    :param give_up_after: seconds for which a notice is tried.
    :param collect_for: seconds that events for the administrator wait for others, to be sent with them.
    """

    def __init__(
        self, database: Database, give_up_after: float, collect_for: float = 0.0, max_pending: int = MAX_PENDING
    ) -> None:
        self._database = database
        self._give_up_after = give_up_after
        self._collect_for = collect_for
        self._max_pending = max_pending

    async def add(self, notices: Sequence[Notice]) -> Sequence[Notice]:
        """Add notices, except those that are or were there. Return those for which there is no room."""
        return await self._run(partial(_add, notices=notices, most=self._max_pending, wait=self._collect_for))

    async def lease(self, channel: Channel, now: float, count: int) -> list[Notice]:
        """Return notices that are due, oldest first. For :data:`LEASE` seconds, they are not due.

        If one for the administrator is, those that wait for others are too.
        """
        wait = self._collect_for if channel is Channel.ADMIN else 0.0
        return await self._run(partial(_lease, channel=channel, now=now, count=count, wait=wait))

    async def settle(self, sent: Collection[Notice], failed: Mapping[Notice, float]) -> None:
        """Record which notices were sent, and when to try the others again. What was leased again is left alone."""
        await self._run(partial(_settle, sent=sent, failed=failed))

    async def maintain(self, now: float) -> Upkeep:
        """Give up what was tried for too long, and delete what was settled long ago."""
        return await self._run(partial(_maintain, now=now, oldest=now - self._give_up_after))

    async def _run(self, work: Callable[[Connection], T]) -> T:
        return await self._database.write("notices", work)


def _add(connection: Connection, notices: Sequence[Notice], most: int, wait: float) -> Sequence[Notice]:
    ids = [notice.id for notice in notices]
    known = set(connection.scalars(select(table.c.id).where(table.c.id.in_(ids))))
    new = list({notice.id: notice for notice in notices if notice.id not in known}.values())
    pending = select(table.c.id).where(table.c.due_at.is_not(None)).limit(most)
    room = most - (connection.scalar(select(func.count()).select_from(pending.subquery())) or 0)
    if new[:room]:
        connection.execute(insert(table), [_row(notice, wait) for notice in new[:room]])
    return new[room:]


def _row(notice: Notice, wait: float) -> dict[str, object]:
    waits = notice.channel is Channel.ADMIN and notice.kind != DAILY_REPORT
    due = notice.created + (wait if waits else 0.0)
    own = {"id": notice.id, "channel": str(notice.channel), "kind": notice.kind, "content": notice.content}
    return {**own, "created_at": notice.created, "due_at": due, "attempts": 0}


def _lease(connection: Connection, channel: Channel, now: float, count: int, wait: float) -> list[Notice]:
    due = select(table).where(table.c.channel == str(channel), table.c.due_at <= now)
    if wait and connection.execute(due.limit(1)).first():
        # Those that were not tried are not leased.
        waits = and_(table.c.attempts == 0, table.c.due_at <= now + wait)
        due = select(table).where(table.c.channel == str(channel), or_(table.c.due_at <= now, waits))
    # Another node that leases waits here, and then finds that they are not due.
    rows = list(connection.execute(due.order_by(table.c.due_at).limit(count).with_for_update()).mappings())
    ids = [row["id"] for row in rows]
    leased = update(table).where(table.c.id.in_(ids)).values(due_at=now + LEASE, attempts=table.c.attempts + 1)
    if ids:
        connection.execute(leased)
    return [
        Notice(row["id"], channel, row["kind"], row["content"], row["created_at"], row["attempts"] + 1) for row in rows
    ]


def _settle(connection: Connection, sent: Collection[Notice], failed: Mapping[Notice, float]) -> None:
    if sent:
        _end(connection, [notice.id for notice in sent])
    for notice, due in failed.items():
        own = (table.c.id == notice.id, table.c.attempts == notice.attempts, table.c.due_at.is_not(None))
        connection.execute(update(table).where(*own).values(due_at=due))


def _end(connection: Connection, ids: Sequence[str]) -> None:
    # Sorted, so that two nodes do not deadlock.
    connection.execute(update(table).where(table.c.id.in_(sorted(ids))).values(due_at=None, content=""))


def _maintain(connection: Connection, now: float, oldest: float) -> Upkeep:
    old = table.c.created_at < oldest
    rows = list(connection.execute(_of_each(table.c.due_at <= now, old).with_for_update()))
    if rows:
        _end(connection, [row.id for row in rows])
    settled = select(table.c.id).where(table.c.due_at.is_(None), table.c.created_at < now - _KEPT).limit(_BATCH)
    if ids := sorted(connection.scalars(settled)):
        connection.execute(delete(table).where(table.c.id.in_(ids)))
    groups = select(table.c.channel, table.c.kind, func.count()).where(table.c.due_at.is_not(None))
    pending = connection.execute(groups.group_by(table.c.channel, table.c.kind))
    given_up: dict[tuple[str, str], int] = {}
    for row in rows:
        given_up[row.channel, row.kind] = given_up.get((row.channel, row.kind), 0) + 1
    return Upkeep({(channel, kind): count for channel, kind, count in pending}, given_up)


def _of_each(*conditions: object) -> Select[tuple[str, str, str]]:
    return select(table.c.id, table.c.channel, table.c.kind).where(*conditions).limit(_BATCH)  # type: ignore[arg-type]
