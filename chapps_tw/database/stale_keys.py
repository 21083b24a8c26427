"""Which cached values depend on what the book holds now."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence, Set
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, select

from chapps_tw.database.models import LINKS, TABLES, domains, quota_user, users
from chapps_tw.database.text import normal_of
from chapps_tw.interfaces.book import StaleKeys

CHUNK: Final = 500

# Keys of a kind that are listed. More would keep the database, the state store and the reactor busy for long.
MAX_LISTED: Final = 5000

# What a change of a field, or of a kind of link, makes stale: limits, flags, or verdicts about a user
# and a kind of sender.
_REACH: Final[dict[tuple[str, str], tuple[str, ...]]] = {
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


def reached(kind: str, changed: Collection[str]) -> frozenset[str]:
    """What changes of some fields and links of an entry make stale."""
    return frozenset(what for name in changed for what in _REACH[kind, name])


def everything(kind: str) -> frozenset[str]:
    """What adding or removing an entry makes stale."""
    return frozenset(what for (owner, _), whats in _REACH.items() if owner == kind for what in whats)


def chunks(ids: Collection[int]) -> Iterator[Sequence[int]]:
    """The ids in order, each once, in lists that every database takes in one statement."""
    ordered = sorted(set(ids))
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]


def sides(kind: str, other: str) -> tuple[Table, Column[Any], Column[Any]]:
    """The table that links two kinds, its column for the first and that for the second.

    :raises ValueError: when they cannot be linked.
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
    """Stale keys, with kinds in place of too many keys."""
    found = {"limits": len(limits), "senders": len(senders)}
    unlisted |= {kind for kind, count in found.items() if count > MAX_LISTED}
    return StaleKeys(
        frozenset() if "limits" in unlisted else frozenset(limits),
        frozenset() if "senders" in unlisted else frozenset(senders),
        frozenset(flags),
        unlisted=unlisted,
    )


def senders_between(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    """The verdicts that depend on the links between one entry and some others.

    :param other: ``domains`` or ``emails``, or ``users`` where ``kind`` is one of these.
    """
    thing = other if kind == "users" else kind
    senders: set[tuple[str, str]] = set()
    for chunk in chunks(ids):
        senders.update(linked_senders(connection, kind, [id], thing, chunk))
    return _bounded(set(), senders, set())


def stale_keys(connection: Connection, kind: str, ids: Collection[int], reach: Collection[str]) -> StaleKeys:
    """The keys of what is cached about some entries.

    :param reach: what is stale, see :func:`reached`.
    """
    limits: set[str] = set()
    senders: set[tuple[str, str]] = set()
    flags: set[str] = set()
    for chunk in chunks(ids):
        if "limits" in reach and len(limits) <= MAX_LISTED:
            limits.update(_limits(connection, kind, chunk))
        for other in ("domains", "emails"):
            if other in reach and len(senders) <= MAX_LISTED:
                senders.update(linked_senders(connection, kind, chunk, other))
        if "flags" in reach:
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
    """Users and what they are linked to: pairs as :meth:`PolicyBook.senders_of` takes them, no more than one too many.

    :param kind: ``users``, or the same as ``other``.
    :param other: ``domains`` or ``emails``.
    :param only: of what is at the far end of the links, only these.
    """
    link, column = LINKS[other]
    thing = TABLES[other]
    near, far = (link.c.user_id, column) if kind == "users" else (column, link.c.user_id)
    query = select(users.c.name, thing.c.name).select_from(link.join(users).join(thing)).where(near.in_(ids))
    if only is not None:
        query = query.where(far.in_(only))
    normal_user, normal_sender = normal_of(connection, "users"), normal_of(connection, other)
    for user, name in connection.execute(query.limit(MAX_LISTED + 1)):
        normal = normal_sender(name)
        if normal:
            yield normal_user(user), normal
