"""The audit trail: what was changed, when and by whom."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, delete, func, insert, select

from chapps_tw.database.models import COLUMNS, FIELDS, MAX_INTEGER, TABLES, limits
from chapps_tw.database.models import audit as table
from chapps_tw.database.stale_keys import sides
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.writable_book import AuditRecord

# The most records to return, and to delete in a transaction.
MAX_RECORDS: Final = 1000

# The names that a record lists: of links, or of entries that are deleted together.
NAMES: Final = 20

# Entries that are deleted together have a record each, up to this number.
MAX_SINGLE: Final = 20

# The size of ``before`` and of ``after`` that the caller of ``add_to_audit`` gives.
MAX_BYTES: Final = 60_000

Fields = Mapping[str, Any]

_LENGTHS: Final = {name: getattr(table.c[name].type, "length", 0) for name in ("author", "action", "kind", "name")}


class Trail(NamedTuple):
    """Adds records of a change, in its transaction.

    :ivar author: name of the token, or ``""``.
    :ivar now: epoch seconds.
    """

    connection: Connection
    author: str
    now: float

    def add(
        self, action: str, kind: str, id: int | None, name: str, before: Fields | None, after: Fields | None
    ) -> None:
        """Add a record. Texts are cut to the size of their columns."""
        texts = {"author": self.author, "action": action, "kind": kind, "name": name}
        values = {key: as_stored(text)[: _LENGTHS[key]] for key, text in texts.items()}
        states = {"before": _json(before), "after": _json(after)}
        self.connection.execute(insert(table).values(at=self.now, entry=id, **values, **states))


def as_stored(text: str) -> str:
    """Return a text as the database can store it."""
    return text.encode("utf-8", "replace").decode().replace("\0", "")


def _json(fields: Fields | None) -> str | None:
    return None if fields is None else json.dumps(fields, ensure_ascii=True)


def require_bounded(fields: Fields | None) -> None:
    """Check what a caller gives.

    :raises ValueError: if it is too long.
    """
    if fields is not None and len(json.dumps(fields)) > MAX_BYTES:
        raise ValueError(f"What was there before or after has at most {MAX_BYTES} bytes as JSON.")


# --- what a record says ---


def described(connection: Connection, kind: str, entry: Entry, others: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of an entry, and the names of what is linked to it.

    :param others: kinds of links.
    """
    found = {field: getattr(entry, field) for field in COLUMNS[kind] if field != "id"}
    for other in others:
        found |= linked(connection, kind, entry.id, other)
    return found


def linked(connection: Connection, kind: str, id: int, other: str) -> dict[str, Any]:
    """Return the names of the entries that are linked to one; of many, some, and their number."""
    link, own, _ = sides(kind, other)
    names = select(TABLES[other].c.name).join(link).where(own == id).limit(NAMES + 1)
    found = list(connection.scalars(names))
    total = len(found)
    if total > NAMES:
        total = connection.scalar(select(func.count()).select_from(link).where(own == id)) or 0
    return listed(other, found, total)


def named(connection: Connection, kind: str, ids: Collection[int]) -> dict[str, Any]:
    """Return the names of the entries with these ids; of many, the first, and their number."""
    first = sorted(set(ids))[:NAMES]
    names = select(TABLES[kind].c.name).where(TABLES[kind].c.id.in_(first))
    return listed(kind, list(connection.scalars(names)), len(set(ids)))


def listed(kind: str, names: list[str], total: int) -> dict[str, Any]:
    """Return names for a record."""
    if total <= NAMES:
        return {kind: sorted(names)}
    return {kind: sorted(names[:NAMES]), f"{kind}_total": total}


def limits_of(connection: Connection, quota: int) -> dict[str, Any]:
    """Return the limits of a quota, without their ids."""
    rows = connection.execute(select(*FIELDS["limits"]).where(limits.c.quota_id == quota).order_by(limits.c.id))
    return {"limits": [{name: row[name] for name in row if name not in ("id", "quota")} for row in rows.mappings()]}


# --- reading and pruning ---


class Wanted(NamedTuple):
    """Which records: see :meth:`~chapps_tw.interfaces.writable_book.WritableBook.audit`."""

    author: str | None
    kind: str
    name: str
    since: float
    until: float
    before: int
    limit: int


def read(connection: Connection, wanted: Wanted) -> list[AuditRecord]:
    """Return records, newest first. Those of events are not changes: see :mod:`chapps_tw.database.events`."""
    conditions: list[ColumnElement[bool]] = [table.c.action != "event"]
    if wanted.author is not None:
        conditions.append(table.c.author == as_stored(wanted.author))
    if wanted.kind:
        conditions.append(table.c.kind == as_stored(wanted.kind))
    if wanted.name:
        conditions.append(table.c.name == as_stored(wanted.name))
    if wanted.since:
        conditions.append(table.c.at >= wanted.since)
    if wanted.until:
        conditions.append(table.c.at < wanted.until)
    if wanted.before:
        conditions.append(table.c.id < min(wanted.before, MAX_INTEGER))
    most = max(0, min(wanted.limit, MAX_RECORDS))
    query = select(table).where(*conditions).order_by(table.c.id.desc()).limit(most)
    return [_record(row) for row in connection.execute(query).mappings()]


def _record(row: Mapping[Any, Any]) -> AuditRecord:
    states = {name: None if row[name] is None else json.loads(row[name]) for name in ("before", "after")}
    return AuditRecord(**{**row, **states})


def prune(connection: Connection, older_than: float) -> int:
    """Delete the oldest records, at most ``MAX_RECORDS``.

    :param older_than: epoch seconds.
    :returns: the number of records deleted.
    """
    # The servers do not agree on a DELETE with a LIMIT.
    oldest = select(table.c.id).where(table.c.at < older_than).order_by(table.c.at).limit(MAX_RECORDS)
    ids = list(connection.scalars(oldest))
    connection.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids)
