"""Queries for entries of the book and their links."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, or_, select

from chapps_tw.database.lookups import id_of
from chapps_tw.database.models import FIELDS, TABLES
from chapps_tw.database.stale_keys import chunks, sides
from chapps_tw.database.text import part_spellings, storable
from chapps_tw.interfaces.book import Entry

# The largest number that an Integer column holds on every database.
MAX_INTEGER: Final = 2**31 - 1


def possible(ids: Collection[int]) -> list[int]:
    """The numbers that can be ids."""
    return [id for id in ids if 0 < id <= MAX_INTEGER]


def entries(
    connection: Connection, kind: str, q: str, skip: int, limit: int, linked: tuple[str, int] | None
) -> list[Entry]:
    """A page of the entries whose name contains ``q``, letter case aside, ordered by id."""
    table = TABLES[kind]
    query = select(*FIELDS[kind])
    if linked is not None:
        if not possible([linked[1]]):
            return []
        link, own, _ = sides(linked[0], kind)
        query = query.join(link).where(own == linked[1])
    if q:
        if not storable(q, table.c.name.type.length):  # type: ignore[attr-defined]
            return []
        texts = part_spellings(q) if kind in ("domains", "emails") else [q]
        query = query.where(or_(*(table.c.name.icontains(text, autoescape=True) for text in texts)))
    return _all(connection, query.order_by(table.c.id).offset(min(skip, MAX_INTEGER)).limit(min(limit, MAX_INTEGER)))


def by_ids(connection: Connection, kind: str, ids: Collection[int]) -> list[Entry]:
    """The entries with these ids that exist, in the order of their ids."""
    table = TABLES[kind]
    return [
        entry
        for chunk in chunks(possible(ids))
        for entry in _all(connection, select(*FIELDS[kind]).where(table.c.id.in_(chunk)).order_by(table.c.id))
    ]


def by_name(connection: Connection, kind: str, name: str) -> Entry | None:
    """The entry of this name, however either is spelled; of several, the one that the policies take."""
    if not storable(name, TABLES[kind].c.name.type.length):  # type: ignore[attr-defined]
        return None
    id = id_of(connection, kind, name)
    found = by_ids(connection, kind, [] if id is None else [id])
    return found[0] if found else None


def links(connection: Connection, kind: str, ids: Sequence[int], other: str) -> dict[int, list[Entry]]:
    """For each id, the entries of kind ``other`` that are linked to it, by id."""
    link, own, _ = sides(kind, other)
    table = TABLES[other]
    found: dict[int, list[Entry]] = {id: [] for id in ids}
    for chunk in chunks(possible(ids)):
        query = select(own.label("own"), *FIELDS[other]).join(link).where(own.in_(chunk)).order_by(own, table.c.id)
        for row in connection.execute(query).mappings():
            fields = dict(row)
            found[fields.pop("own")].append(Entry(**fields))
    return found


def missing(connection: Connection, kind: str, ids: Collection[int]) -> list[int]:
    """The ids that no entry has."""
    table = TABLES[kind]
    found: set[int] = set()
    for chunk in chunks(possible(ids)):
        found.update(connection.scalars(select(table.c.id).where(table.c.id.in_(chunk))))
    return sorted(set(ids) - found)


def _all(connection: Connection, query: Select[Any]) -> list[Entry]:
    return [Entry(**row) for row in connection.execute(query).mappings()]
