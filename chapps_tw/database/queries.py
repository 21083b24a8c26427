"""Queries for entries of the book and their links."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, or_, select

from chapps_tw.database.lookups import id_of, ids_of
from chapps_tw.database.models import FIELDS, MAX_INTEGER, TABLES
from chapps_tw.database.stale_keys import chunks, sides
from chapps_tw.database.text import part_spellings, storable
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.writable_book import Sort


def valid_ids(ids: Collection[int]) -> list[int]:
    """Return the numbers in the range of ids."""
    return [id for id in ids if 0 < id <= MAX_INTEGER]


def entries(
    connection: Connection, kind: str, q: str, skip: int, limit: int, linked: tuple[str, int] | None, sort: Sort
) -> list[Entry]:
    """Return a page of the entries whose name contains ``q``, case-insensitively."""
    query = _matching(select(*FIELDS[kind]), kind, q, linked)
    if query is None:
        return []
    column = TABLES[kind].c[sort.removeprefix("-")]
    query = query.order_by(column.desc() if sort.startswith("-") else column)
    return _all(connection, query.offset(min(skip, MAX_INTEGER)).limit(min(limit, MAX_INTEGER)))


def total(connection: Connection, kind: str, q: str, linked: tuple[str, int] | None) -> int:
    """Return the number of the entries whose name contains ``q``, case-insensitively."""
    query = _matching(select(func.count(TABLES[kind].c.id)), kind, q, linked)
    return 0 if query is None else connection.scalar(query) or 0


def _matching(query: Select[Any], kind: str, q: str, linked: tuple[str, int] | None) -> Select[Any] | None:
    """Return a query for those entries alone; ``None`` if there can be none."""
    name = TABLES[kind].c.name
    if linked is not None:
        if not valid_ids([linked[1]]):
            return None
        link, own, _ = sides(linked[0], kind)
        query = query.join(link).where(own == linked[1])
    if q:
        if not storable(q, name.type.length):  # type: ignore[attr-defined]
            return None
        texts = part_spellings(q) if kind in ("domains", "emails") else [q]
        query = query.where(or_(*(name.icontains(text, autoescape=True) for text in texts)))
    return query


def by_ids(connection: Connection, kind: str, ids: Collection[int]) -> list[Entry]:
    """Return the entries with these ids, ordered by id. Ids that do not exist are ignored."""
    table = TABLES[kind]
    return [
        entry
        for chunk in chunks(valid_ids(ids))
        for entry in _all(connection, select(*FIELDS[kind]).where(table.c.id.in_(chunk)).order_by(table.c.id))
    ]


def by_name(connection: Connection, kind: str, name: str) -> Entry | None:
    """Return the entry with this name, in any spelling; of several, the one that policies use."""
    if not storable(name, TABLES[kind].c.name.type.length):  # type: ignore[attr-defined]
        return None
    id = id_of(connection, kind, name)
    found = by_ids(connection, kind, [] if id is None else [id])
    return found[0] if found else None


def by_names(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, Entry]:
    """Return the entries with these names, in their order. Not for quotas.

    They may be stored in any spelling; of several, the one that policies use is returned.

    :param names: in normal form.
    """
    ids = ids_of(connection, kind, names)
    by_id = {entry.id: entry for entry in by_ids(connection, kind, ids.values())}
    return {name: by_id[ids[name]] for name in names if ids.get(name) in by_id}


def links(
    connection: Connection, kind: str, ids: Sequence[int], other: str, limit: int | None = None
) -> dict[int, list[Entry]]:
    """Return, by id, the entries of kind ``other`` that are linked to it, ordered by id.

    :param limit: the most entries, of all ids together.
    """
    link, own, _ = sides(kind, other)
    query = select(own.label("own"), *FIELDS[other]).join(link).order_by(own, TABLES[other].c.id)
    found: dict[int, list[Entry]] = {id: [] for id in ids}
    left = MAX_INTEGER if limit is None else limit
    for chunk in chunks(valid_ids(ids)):
        rows = connection.execute(query.where(own.in_(chunk)).limit(left)).mappings().all()
        left -= len(rows)
        for row in rows:
            fields = dict(row)
            found[fields.pop("own")].append(Entry(**fields))
    return found


def missing(connection: Connection, kind: str, ids: Collection[int]) -> list[int]:
    """Return the ids that do not exist."""
    table = TABLES[kind]
    found: set[int] = set()
    for chunk in chunks(valid_ids(ids)):
        found.update(connection.scalars(select(table.c.id).where(table.c.id.in_(chunk))))
    return sorted(set(ids) - found)


def require(connection: Connection, kind: str, ids: Collection[int]) -> None:
    """Check that entries exist.

    :raises KeyError: with ``(kind, id)`` for one that does not.
    """
    for id in missing(connection, kind, ids):
        raise KeyError((kind, id))


def _all(connection: Connection, query: Select[Any]) -> list[Entry]:
    return [Entry(**row) for row in connection.execute(query).mappings()]
