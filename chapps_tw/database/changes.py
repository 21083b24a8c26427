"""Changes of the book, each in a transaction. Each returns the keys of the cached values that it makes stale."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, delete, insert, select, update

from chapps_tw.database.lookups import spelled_otherwise
from chapps_tw.database.models import TABLES, quota_user
from chapps_tw.database.queries import MAX_INTEGER, by_ids, missing, possible
from chapps_tw.database.stale_keys import chunks, everything, reached, senders_between, sides, stale_keys, union
from chapps_tw.database.text import normal_of, storable
from chapps_tw.interfaces.book import (
    AddLinks,
    BookConflict,
    Create,
    Delete,
    Edit,
    Entry,
    Fields,
    RemoveLinks,
    StaleKeys,
    Update,
)

# What each kind of entry is called in messages.
_SINGULAR: Final = {"users": "A user", "domains": "A domain", "emails": "An email address", "quotas": "A quota"}


def apply(connection: Connection, edit: Edit) -> tuple[Entry | None, StaleKeys]:
    """Do a change.

    :returns: the entry that was created or updated, and what is stale then.
    :raises KeyError: with ``(kind, id)`` for an id that does not exist.
    :raises ValueError: for a value that the column cannot hold, and for more than one quota of a user.
    :raises BookConflict: for a user, a domain or an address that exists in another spelling.
    """
    match edit:
        case Create():
            return _create(connection, edit)
        case Update():
            return _update(connection, edit)
        case Delete():
            return None, _delete(connection, edit)
        case AddLinks():
            return None, _link(connection, *edit)
        case RemoveLinks():
            return None, _unlink(connection, *edit)


def name_taken(kind: str, name: object) -> str:
    """What a client is told that wants a name which another entry has."""
    return f"{_SINGULAR[kind]} named {name} exists already."


def _create(connection: Connection, edit: Create) -> tuple[Entry, StaleKeys]:
    kind = edit.kind
    for name in ("name", "quota") if kind == "quotas" else ("name",):
        if name not in edit.fields:
            raise ValueError(f"{kind} need a {name}.")
    fields = _in_normal_form(connection, kind, edit.fields)
    values = checked(kind, fields)
    _require_one_spelling(connection, kind, fields)
    result = connection.execute(insert(TABLES[kind]).values(**values))
    key = result.inserted_primary_key
    assert key is not None
    id = int(key[0])
    for other, ids in edit.links.items():
        _replace(connection, kind, id, other, ids)
    return by_ids(connection, kind, [id])[0], stale_keys(connection, kind, [id], everything(kind))


def _update(connection: Connection, edit: Update) -> tuple[Entry, StaleKeys]:
    kind, id = edit.kind, edit.id
    _require(connection, kind, [id])
    reach = reached(kind, [*edit.fields, *edit.links])
    before = stale_keys(connection, kind, [id], reach)
    if edit.fields:
        table = TABLES[kind]
        fields = _in_normal_form(connection, kind, edit.fields)
        values = checked(kind, fields)
        _require_one_spelling(connection, kind, fields, id)
        connection.execute(update(table).where(table.c.id == id).values(**values))
    for other, ids in edit.links.items():
        _replace(connection, kind, id, other, ids)
    return by_ids(connection, kind, [id])[0], union(before, stale_keys(connection, kind, [id], reach))


def _delete(connection: Connection, edit: Delete) -> StaleKeys:
    table, ids = TABLES[edit.kind], possible(edit.ids)
    stale = stale_keys(connection, edit.kind, ids, everything(edit.kind))
    for chunk in chunks(ids):
        connection.execute(delete(table).where(table.c.id.in_(chunk)))
    return stale


def _link(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    _require(connection, kind, [id])
    _require(connection, other, ids)
    _at_most_one(kind, other, ids)
    table, own, far = sides(kind, other)
    there = set(connection.scalars(select(far).where(own == id)))
    _add(connection, table, own, far, id, set(ids) - there)
    return _stale_links(connection, kind, id, other, ids)


def _unlink(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    _require(connection, kind, [id])
    table, own, far = sides(kind, other)
    stale = _stale_links(connection, kind, id, other, possible(ids))
    for chunk in chunks(possible(ids)):
        connection.execute(delete(table).where(own == id, far.in_(chunk)))
    return stale


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
    """Refuse a name that exists in another spelling: policies could not tell the two apart."""
    other = spelled_otherwise(connection, kind, str(fields["name"]), id) if "name" in fields else None
    if other is not None:
        raise BookConflict(name_taken(kind, other))


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


def _stale_links(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    """What is cached about the links that exist between one entry and some others."""
    thing = other if kind == "users" else kind
    if thing == "quotas":
        return stale_keys(connection, "users", [id] if kind == "users" else ids, {"limits"})
    return senders_between(connection, kind, id, other, ids)
