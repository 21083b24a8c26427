"""Changes of the book. Each runs in a transaction, and returns the keys of the cached values that it makes stale."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Column, Connection, Table, delete, insert, select, update

from chapps_tw.database import audit, rules
from chapps_tw.database.audit import Trail
from chapps_tw.database.fields import require_fields, to_store
from chapps_tw.database.models import LINKS, RULES, TABLES, quota_user
from chapps_tw.database.queries import by_ids, require, valid_ids
from chapps_tw.database.stale_keys import (
    MAX_LISTED,
    affected_by,
    chunks,
    senders_between,
    sides,
    stale_keys,
    union,
)
from chapps_tw.interfaces.book import AddLinks, Create, Delete, Edit, Entry, RemoveLinks, StaleKeys, Update
from chapps_tw.interfaces.writable_book import Rule


class Applied(NamedTuple):
    """The result of a change.

    :ivar entry: that was created or updated.
    :ivar users: number of users that had what was deleted; ``None`` for thousands.
    """

    entry: Entry | Rule | None = None
    users: int | None = 0


def apply(connection: Connection, edit: Edit, author: str, now: float) -> tuple[Applied, StaleKeys]:
    """Apply a change, and record it.

    :param author: for the audit trail.
    :param now: epoch seconds.
    :returns: the result, and the stale keys.
    :raises KeyError: with ``(kind, id)`` for an id that does not exist.
    :raises ValueError: for a value that does not fit its column, and for more than one quota of a user.
    :raises BookConflict: if the user, domain or address exists in another spelling.
    """
    trail = Trail(connection, author, now)
    if edit.kind in RULES:
        rule, stale = rules.apply(trail, edit)
        return Applied(rule), stale
    match edit:
        case Create():
            return _create(trail, edit)
        case Update():
            return _update(trail, edit)
        case Delete():
            return _delete(trail, edit)
        case AddLinks():
            return Applied(), _link(trail, edit)
        case RemoveLinks():
            return Applied(), _unlink(trail, edit)


def _create(trail: Trail, edit: Create) -> tuple[Applied, StaleKeys]:
    connection, kind = trail.connection, edit.kind
    require_fields(kind, edit.fields)
    result = connection.execute(insert(TABLES[kind]).values(**to_store(connection, kind, edit.fields)))
    key = result.inserted_primary_key
    assert key is not None
    id = int(key[0])
    for other, ids in edit.links.items():
        _replace(connection, kind, id, other, ids)
    entry = by_ids(connection, kind, [id])[0]
    trail.add("create", kind, id, entry.name, None, audit.described(connection, kind, entry, edit.links))
    return Applied(entry), stale_keys(connection, kind, [id], affected_by(kind, ["name", *edit.links]))


def _update(trail: Trail, edit: Update) -> tuple[Applied, StaleKeys]:
    connection, kind, id = trail.connection, edit.kind, edit.id
    require(connection, kind, [id])
    affected = affected_by(kind, [*edit.fields, *edit.links])
    before = stale_keys(connection, kind, [id], affected)
    was = audit.described(connection, kind, by_ids(connection, kind, [id])[0], edit.links)
    if edit.fields:
        table = TABLES[kind]
        values = to_store(connection, kind, edit.fields, id)
        connection.execute(update(table).where(table.c.id == id).values(**values))
    for other, ids in edit.links.items():
        _replace(connection, kind, id, other, ids)
    entry = by_ids(connection, kind, [id])[0]
    now = audit.described(connection, kind, entry, edit.links)
    if edit.links or was != now:
        trail.add("update", kind, id, entry.name, was, now)
    return Applied(entry), union(before, stale_keys(connection, kind, [id], affected))


def _delete(trail: Trail, edit: Delete) -> tuple[Applied, StaleKeys]:
    connection, kind = trail.connection, edit.kind
    table = TABLES[kind]
    entries = by_ids(connection, kind, edit.ids)
    ids = [entry.id for entry in entries]
    stale = stale_keys(connection, kind, ids, affected_by(kind, ["name"]))
    users = 0 if kind == "users" else _count_users(connection, kind, ids)
    _record_deletion(trail, kind, entries)
    for chunk in chunks(ids):
        if kind != "users":
            # Otherwise SQLite would take twice as long for many links, as it deletes them one by one.
            link, own, _ = sides(kind, "users")
            connection.execute(delete(link).where(own.in_(chunk)))
        connection.execute(delete(table).where(table.c.id.in_(chunk)))
    return Applied(None, users), stale


def _record_deletion(trail: Trail, kind: str, entries: list[Entry]) -> None:
    connection = trail.connection
    if len(entries) > audit.MAX_SINGLE:
        names = [entry.name for entry in entries]
        trail.add("delete", kind, None, "", audit.listed(kind, names, len(names)), None)
        return
    for entry in entries:
        was = audit.described(connection, kind, entry, LINKS if kind == "users" else ["users"])
        if kind == "quotas":
            was |= audit.limits_of(connection, entry.id)
        trail.add("delete", kind, entry.id, entry.name, was, None)


def _count_users(connection: Connection, kind: str, ids: Collection[int]) -> int | None:
    """Return how many users are linked to entries; ``None`` for thousands."""
    _, own, user = sides(kind, "users")
    found: set[int] = set()
    for chunk in chunks(ids):
        found.update(connection.scalars(select(user).where(own.in_(chunk)).distinct().limit(MAX_LISTED + 1)))
        if len(found) > MAX_LISTED:
            return None
    return len(found)


def _link(trail: Trail, edit: AddLinks) -> StaleKeys:
    connection, (kind, id, other, ids) = trail.connection, edit
    require(connection, kind, [id])
    require(connection, other, ids)
    _at_most_one(kind, other, ids)
    table, own, far = sides(kind, other)
    replaced = audit.linked(connection, kind, id, other) if (kind, other) == ("users", "quotas") else None
    _add(connection, table, own, far, id, set(ids) - _linked(connection, own, far, id, ids))
    entry = by_ids(connection, kind, [id])[0]
    trail.add("link", kind, id, entry.name, replaced, audit.named(connection, other, ids))
    return _stale_links(connection, kind, id, other, ids)


def _unlink(trail: Trail, edit: RemoveLinks) -> StaleKeys:
    connection, (kind, id, other, ids) = trail.connection, edit
    require(connection, kind, [id])
    table, own, far = sides(kind, other)
    linked = _linked(connection, own, far, id, ids)
    if not linked:
        return StaleKeys()
    stale = _stale_links(connection, kind, id, other, linked)
    entry = by_ids(connection, kind, [id])[0]
    trail.add("unlink", kind, id, entry.name, audit.named(connection, other, linked), None)
    for chunk in chunks(linked):
        connection.execute(delete(table).where(own == id, far.in_(chunk)))
    return stale


def _linked(connection: Connection, own: Column[Any], far: Column[Any], id: int, ids: Collection[int]) -> set[int]:
    """Return which of these ids are linked to an entry."""
    return {
        other
        for chunk in chunks(valid_ids(ids))
        for other in connection.scalars(select(far).where(own == id, far.in_(chunk)))
    }


def _at_most_one(kind: str, other: str, ids: Collection[int]) -> None:
    if (kind, other) == ("users", "quotas") and len(set(ids)) > 1:
        raise ValueError("A user has one quota at most.")


def _replace(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> None:
    require(connection, other, ids)
    _at_most_one(kind, other, ids)
    table, own, far = sides(kind, other)
    existing, wanted = set(connection.scalars(select(far).where(own == id))), set(ids)
    for chunk in chunks(existing - wanted):
        connection.execute(delete(table).where(own == id, far.in_(chunk)))
    _add(connection, table, own, far, id, wanted - existing)


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
    """Return the keys of what is cached about the existing links between an entry and others."""
    linked = other if kind == "users" else kind
    if linked == "quotas":
        return stale_keys(connection, "users", [id] if kind == "users" else ids, {"users"})
    return senders_between(connection, kind, id, other, ids)
