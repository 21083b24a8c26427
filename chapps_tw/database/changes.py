"""Changes of the book. Each is part of one transaction, and says what it touched."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from sqlalchemy import Column, Connection, Table, delete, insert, select, update

from chapps_tw.database.entries import MAX_INTEGER, by_ids, missing, possible
from chapps_tw.database.lookups import spelled_otherwise
from chapps_tw.database.models import TABLES, quota_user
from chapps_tw.database.text import normal_of, storable
from chapps_tw.database.touched import chunks, everything, reached, senders_between, sides, touched, union
from chapps_tw.interfaces.book import BookConflict, Entry, Touched

Fields: TypeAlias = Mapping[str, str | int | bool]
Links: TypeAlias = Mapping[str, Collection[int]]


def create(connection: Connection, kind: str, fields: Fields, links: Links) -> tuple[Entry, Touched]:
    """Add an entry with its links.

    :raises KeyError: with ``(kind, id)`` for a link to what is not there.
    :raises ValueError: for a value that the column cannot hold.
    :raises BookConflict: for a user, a domain or an address that is there in another spelling.
    """
    for name in ("name", "quota") if kind == "quotas" else ("name",):
        if name not in fields:
            raise ValueError(f"{kind} need a {name}.")
    fields = _in_normal_form(connection, kind, fields)
    values = checked(kind, fields)
    _require_one_spelling(connection, kind, fields)
    result = connection.execute(insert(TABLES[kind]).values(**values))
    key = result.inserted_primary_key
    assert key is not None
    id = int(key[0])
    for other, ids in links.items():
        _replace(connection, kind, id, other, ids)
    return by_ids(connection, kind, [id])[0], touched(connection, kind, [id], everything(kind))


def change(connection: Connection, kind: str, id: int, fields: Fields, links: Links) -> tuple[Entry, Touched]:
    """Change fields; a kind of link that is given replaces those there.

    :raises KeyError: with ``(kind, id)`` for what is not there.
    :raises ValueError: for a value that the column cannot hold.
    :raises BookConflict: for a user, a domain or an address that is there in another spelling.
    """
    _require(connection, kind, [id])
    reach = reached(kind, [*fields, *links])
    before = touched(connection, kind, [id], reach)
    if fields:
        table = TABLES[kind]
        fields = _in_normal_form(connection, kind, fields)
        values = checked(kind, fields)
        _require_one_spelling(connection, kind, fields, id)
        connection.execute(update(table).where(table.c.id == id).values(**values))
    for other, ids in links.items():
        _replace(connection, kind, id, other, ids)
    return by_ids(connection, kind, [id])[0], union(before, touched(connection, kind, [id], reach))


def remove(connection: Connection, kind: str, ids: Collection[int]) -> tuple[int, Touched]:
    """Remove the entries with these ids that exist; their links go with them."""
    table = TABLES[kind]
    before = touched(connection, kind, possible(ids), everything(kind))
    gone = 0
    for chunk in chunks(possible(ids)):
        gone += connection.execute(delete(table).where(table.c.id.in_(chunk))).rowcount
    return gone, before


def link(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> tuple[None, Touched]:
    """Add links.

    :raises KeyError: with ``(kind, id)`` for what is not there.
    :raises ValueError: for more than one quota of a user.
    """
    _require(connection, kind, [id])
    _require(connection, other, ids)
    _at_most_one(kind, other, ids)
    table, own, far = sides(kind, other)
    there = set(connection.scalars(select(far).where(own == id)))
    _add(connection, table, own, far, id, set(ids) - there)
    return None, _touched_links(connection, kind, id, other, ids)


def unlink(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> tuple[None, Touched]:
    """Remove links.

    :raises KeyError: with ``(kind, id)`` when that is not there.
    """
    _require(connection, kind, [id])
    table, own, far = sides(kind, other)
    before = _touched_links(connection, kind, id, other, possible(ids))
    for chunk in chunks(possible(ids)):
        connection.execute(delete(table).where(own == id, far.in_(chunk)))
    return None, before


def checked(kind: str, fields: Fields) -> dict[str, Any]:
    """The fields, if their columns can hold them. SQLite would take anything.

    :raises ValueError: a sentence that says which cannot.
    """
    table = TABLES[kind]
    for name, value in fields.items():
        if name == "id" or name not in table.c:
            raise ValueError(f"{kind} have no field {name}.")
        if name == "name":
            length = table.c.name.type.length  # type: ignore[attr-defined]
            if not isinstance(value, str) or not storable(value, length):
                raise ValueError(f"A name in {kind} is 1 to {length} characters, none of them NUL.")
            # MariaDB takes two names that differ in spaces at the end for one.
            if value != value.strip():
                raise ValueError(f"A name in {kind} does not begin or end with white space.")
        elif name == "quota":
            if isinstance(value, (bool, str)) or not 0 <= value <= MAX_INTEGER:
                raise ValueError(f"A quota is a whole number from 0 to {MAX_INTEGER}.")
        elif not isinstance(value, bool):
            raise ValueError(f"{name} is true or false.")
    return dict(fields)


def _in_normal_form(connection: Connection, kind: str, fields: Fields) -> Fields:
    """The fields, with the name in the form that it is stored in. What is no such name stays as it is."""
    name = fields.get("name")
    if kind == "quotas" or not isinstance(name, str):
        return fields
    return {**fields, "name": normal_of(connection, kind)(name) or name}


def _require_one_spelling(connection: Connection, kind: str, fields: Fields, id: int | None = None) -> None:
    """Refuse a name that is there in another spelling: policies could not tell the two apart."""
    other = spelled_otherwise(connection, kind, str(fields["name"]), id) if "name" in fields else None
    if other is not None:
        raise BookConflict(f"There is one in {kind} with the name {other} already.")


def _require(connection: Connection, kind: str, ids: Collection[int]) -> None:
    for id in missing(connection, kind, ids):
        raise KeyError((kind, id))


def _at_most_one(kind: str, other: str, ids: Collection[int]) -> None:
    if (kind, other) == ("users", "quotas") and len(set(ids)) > 1:
        raise ValueError("A user has one quota at most.")


def _replace(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> None:
    _require(connection, other, ids)
    _at_most_one(kind, other, ids)
    table, own, far = sides(kind, other)
    there, wanted = set(connection.scalars(select(far).where(own == id))), set(ids)
    for chunk in chunks(there - wanted):
        connection.execute(delete(table).where(own == id, far.in_(chunk)))
    _add(connection, table, own, far, id, wanted - there)


def _add(
    connection: Connection, table: Table, own: Column[Any], far: Column[Any], id: int, ids: Collection[int]
) -> None:
    for chunk in chunks(ids):
        rows = [{own.name: id, far.name: other} for other in chunk]
        if table is quota_user:
            replaced = {row["user_id"] for row in rows}
            connection.execute(delete(table).where(table.c.user_id.in_(replaced)))
        connection.execute(insert(table), rows)


def _touched_links(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> Touched:
    """What hangs on the links there are between one entry and some others."""
    thing = other if kind == "users" else kind
    if thing == "quotas":
        return touched(connection, "users", [id] if kind == "users" else ids, {"limits"})
    return senders_between(connection, kind, id, other, ids)
