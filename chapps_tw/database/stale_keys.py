"""Which cached values depend on an entry or a link of the book."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, select

from chapps_tw.database.models import LINKS, TABLES, domains, quota_user, users
from chapps_tw.database.text import normal_of
from chapps_tw.interfaces.book import StaleKeys

CHUNK: Final = 500

# The most keys of a kind to list. More would occupy the database, the state store and the reactor for too long.
MAX_LISTED: Final = 5000

# What a change of a field or of links makes stale: limits, flags, or verdicts about a user and a kind of
# sender.
_AFFECTED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("users", "name"): ("limits", "domains", "emails"),
    ("users", "quotas"): ("limits",),
    ("users", "domains"): ("domains",),
    ("users", "emails"): ("emails",),
    ("domains", "name"): ("flags", "domains"),
    ("domains", "greylist"): ("flags",),
    ("domains", "check_spf"): ("flags",),
    ("domains", "users"): ("domains",),
    ("emails", "name"): ("emails",),
    ("emails", "users"): ("emails",),
    ("quotas", "name"): (),
    ("quotas", "quota"): ("limits",),
    ("quotas", "users"): ("limits",),
}


def affected_by(kind: str, changed: Collection[str]) -> frozenset[str]:
    """Return what a change of these fields and links makes stale."""
    return frozenset(what for name in changed for what in _AFFECTED[kind, name])


def all_affected(kind: str) -> frozenset[str]:
    """Return what adding or deleting an entry makes stale."""
    return frozenset(what for (owner, _), whats in _AFFECTED.items() if owner == kind for what in whats)


def chunks(ids: Collection[int]) -> Iterator[Sequence[int]]:
    """Yield the distinct ids, in order, in lists that fit in one statement on every database."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


def sides(kind: str, other: str) -> tuple[Table, Column[Any], Column[Any]]:
    """Return the table that links two kinds, its column for the first, and its column for the second.

    :raises ValueError: if they cannot be linked.
    """
    if kind == "users" and other in LINKS:
        table, column = LINKS[other]
        return table, table.c.user_id, column
    if other == "users" and kind in LINKS:
        table, column = LINKS[kind]
        return table, column, table.c.user_id
    raise ValueError(f"{kind} are not linked to {other}.")


def union(*parts: StaleKeys) -> StaleKeys:
    return _bounded(
        frozenset().union(*(part.limits for part in parts)),
        frozenset().union(*(part.senders for part in parts)),
        frozenset().union(*(part.flags for part in parts)),
        frozenset().union(*(part.unlisted for part in parts)),
    )


def _bounded(
    limits: Set[str], senders: Set[tuple[str, str]], flags: Set[str], unlisted: frozenset[str] = frozenset()
) -> StaleKeys:
    """Return stale keys; a kind with too many is named in ``unlisted`` instead."""
    found = {"limits": len(limits), "senders": len(senders)}
    unlisted |= {kind for kind, count in found.items() if count > MAX_LISTED}
    return StaleKeys(
        frozenset() if "limits" in unlisted else frozenset(limits),
        frozenset() if "senders" in unlisted else frozenset(senders),
        frozenset(flags),
        unlisted=unlisted,
    )


def senders_between(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    """Return the keys of the verdicts that depend on the links between an entry and others.

    :param other: ``domains`` or ``emails``; ``users`` if ``kind`` is one of these.
    """
    linked = other if kind == "users" else kind
    senders: set[tuple[str, str]] = set()
    for chunk in chunks(ids):
        senders.update(linked_senders(connection, kind, [id], linked, chunk))
    return _bounded(set(), senders, set())


def stale_keys(connection: Connection, kind: str, ids: Collection[int], affected: Collection[str]) -> StaleKeys:
    """Return the keys of what is cached about entries.

    :param affected: what is stale, see :func:`affected_by`.
    """
    limits: set[str] = set()
    senders: set[tuple[str, str]] = set()
    flags: set[str] = set()
    for chunk in chunks(ids):
        if "limits" in affected and len(limits) <= MAX_LISTED:
            limits.update(_limits(connection, kind, chunk))
        for other in ("domains", "emails"):
            if other in affected and len(senders) <= MAX_LISTED:
                senders.update(linked_senders(connection, kind, chunk, other))
        if "flags" in affected:
            names = connection.scalars(select(domains.c.name).where(domains.c.id.in_(chunk)))
            flags.update(map(normal_of(connection, "domains"), names))
    flags.discard("")
    return _bounded(limits, senders, flags)


def _limits(connection: Connection, kind: str, ids: Sequence[int]) -> Iterator[str]:
    names = select(users.c.name)
    if kind == "users":
        names = names.where(users.c.id.in_(ids))
    else:
        names = names.join(quota_user).where(quota_user.c.quota_id.in_(ids)).limit(MAX_LISTED + 1)
    yield from map(normal_of(connection, "users"), connection.scalars(names))


def linked_senders(
    connection: Connection, kind: str, ids: Sequence[int], other: str, only: Sequence[int] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield pairs of users and linked senders, in the forms that :meth:`PolicyBook.senders_of` takes.

    At most one pair more than ``MAX_LISTED``.

    :param kind: ``users``, or the same as ``other``.
    :param other: ``domains`` or ``emails``.
    :param only: ids of the entries at the other end of the links; by default all.
    """
    link, column = LINKS[other]
    table = TABLES[other]
    near, far = (link.c.user_id, column) if kind == "users" else (column, link.c.user_id)
    query = select(users.c.name, table.c.name).select_from(link.join(users).join(table)).where(near.in_(ids))
    if only is not None:
        query = query.where(far.in_(only))
    normal_user, normal_sender = normal_of(connection, "users"), normal_of(connection, other)
    for user, name in connection.execute(query.limit(MAX_LISTED + 1)):
        normal = normal_sender(name)
        if normal:
            yield normal_user(user), normal
