"""Which cached values depend on an entry or a link of the book."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Table, select

from chapps_tw.database.models import LINKS, TABLES, domains, quota_user, quotas, users
from chapps_tw.database.text import normal_of
from chapps_tw.interfaces.book import StaleKeys

CHUNK: Final = 500

# The most users to list, or domains of senders. More would occupy the database, the state store and the reactor for
# too long.
MAX_LISTED: Final = 5000

# Of more pairs about one domain, all verdicts about it are stale: that is one key.
MAX_PAIRS: Final = 500

# What a change of a field or of links makes stale: plans of users, of domains or of quotas, flags, or verdicts about a
# user and a kind of sender. The users of a quota are not among it: their plans have its id only.
_AFFECTED: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("users", "name"): ("users", "to domains", "to emails"),
    ("users", "quotas"): ("users",),
    ("users", "domains"): ("to domains",),
    ("users", "emails"): ("to emails",),
    ("domains", "name"): ("domains", "flags", "to domains"),
    ("domains", "greylist"): ("flags",),
    ("domains", "check_spf"): ("flags",),
    ("domains", "each_quota"): ("domains",),
    ("domains", "pool_quota"): ("domains",),
    ("domains", "users"): ("to domains",),
    ("emails", "name"): ("to emails",),
    ("emails", "users"): ("to emails",),
    ("quotas", "name"): ("quotas",),
    ("quotas", "quota"): ("quotas",),
    ("quotas", "users"): ("users",),
}


def affected_by(kind: str, changed: Collection[str]) -> frozenset[str]:
    """Return what a change of these fields and links makes stale. Adding or deleting an entry changes its name.

    :raises ValueError: if entries of this kind have no such field.
    """
    for name in changed:
        if (kind, name) not in _AFFECTED:
            raise ValueError(f"{kind} have no field {name}.")
    return frozenset(what for name in changed for what in _AFFECTED[kind, name])


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


class _Senders:
    """Pairs of users and senders, and domains of which all pairs are stale."""

    def __init__(self) -> None:
        self._pairs: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
        self._domains: set[str] = set()

    def add(self, pairs: Iterable[tuple[str, str]]) -> None:
        for user, name in pairs:
            domain = _domain(name)
            if domain not in self._domains:
                self._pairs[domain].add((user, name))
                if len(self._pairs[domain]) > MAX_PAIRS:
                    self.add_all(domain)

    def add_all(self, *names: str) -> None:
        """Add all pairs about the domains of these domains and addresses."""
        for domain in map(_domain, names):
            self._domains.add(domain)
            self._pairs.pop(domain, None)

    def keys(self) -> StaleKeys:
        if sum(map(len, self._pairs.values())) > MAX_LISTED:
            self.add_all(*self._pairs)
        if len(self._domains) > MAX_LISTED:
            return StaleKeys(unlisted=frozenset({"senders"}))
        pairs = frozenset().union(*self._pairs.values())
        return StaleKeys(senders=pairs, sender_domains=frozenset(self._domains))


def _domain(name: str) -> str:
    return name.rpartition("@")[2]


def union(*parts: StaleKeys) -> StaleKeys:
    """Return all keys of several changes; too many of a kind are in ``unlisted`` instead."""
    senders = _Senders()
    for part in parts:
        senders.add_all(*part.sender_domains)
        senders.add(part.senders)
    found = senders.keys()
    listed = {field: frozenset().union(*(getattr(part, field) for part in parts)) for field in _SETS}
    if len(listed["users"]) > MAX_LISTED:
        listed |= {"users": frozenset(), "unlisted": listed["unlisted"] | {"users"}}
    listed["unlisted"] |= found.unlisted
    return found._replace(**listed, exemptions=any(part.exemptions for part in parts))


_SETS: Final = ("users", "flags", "quotas", "quota_names", "domains", "unlisted")


def senders_of(pairs: Iterable[tuple[str, str]]) -> StaleKeys:
    """Return the keys of the verdicts about pairs of user and domain or address, in normal form."""
    senders = _Senders()
    senders.add(pairs)
    return senders.keys()


def senders_between(connection: Connection, kind: str, id: int, other: str, ids: Collection[int]) -> StaleKeys:
    """Return the keys of the verdicts that depend on the links between an entry and others.

    :param other: ``domains`` or ``emails``; ``users`` if ``kind`` is one of these.
    """
    linked, senders = other if kind == "users" else kind, _Senders()
    for chunk in chunks(ids):
        _add_linked(senders, connection, kind, [id], linked, chunk)
    return senders.keys()


def stale_keys(connection: Connection, kind: str, ids: Collection[int], affected: Collection[str]) -> StaleKeys:
    """Return the keys of what is cached about entries.

    :param affected: what is stale, see :func:`affected_by`.
    """
    senders, logins, names = _Senders(), set[str](), set[str]()
    for chunk in chunks(ids):
        if "users" in affected and len(logins) <= MAX_LISTED:
            logins.update(_users(connection, kind, chunk))
        for other in ("domains", "emails"):
            if f"to {other}" in affected:
                _add_linked(senders, connection, kind, chunk, other)
        if not {"flags", "domains"}.isdisjoint(affected):
            found = connection.scalars(select(domains.c.name).where(domains.c.id.in_(chunk)))
            names.update(map(normal_of(connection, "domains"), found))
    domain_names = frozenset(names - {""})
    own = StaleKeys(
        users=frozenset(logins),
        flags=domain_names if "flags" in affected else frozenset(),
        domains=domain_names if "domains" in affected else frozenset(),
    )
    return union(own, senders.keys(), _quotas(connection, ids) if "quotas" in affected else StaleKeys())


def _quotas(connection: Connection, ids: Collection[int]) -> StaleKeys:
    found: list[tuple[int, str]] = []
    for chunk in chunks(ids):
        rows = connection.execute(select(quotas.c.id, quotas.c.name).where(quotas.c.id.in_(chunk)))
        found += [(row.id, row.name) for row in rows]
    return StaleKeys(quotas=frozenset(id for id, _ in found), quota_names=frozenset(name for _, name in found))


def _users(connection: Connection, kind: str, ids: Sequence[int]) -> Iterator[str]:
    names = select(users.c.name)
    if kind == "users":
        names = names.where(users.c.id.in_(ids))
    else:
        names = names.join(quota_user).where(quota_user.c.quota_id.in_(ids)).limit(MAX_LISTED + 1)
    yield from map(normal_of(connection, "users"), connection.scalars(names))


def _add_linked(
    senders: _Senders,
    connection: Connection,
    kind: str,
    ids: Sequence[int],
    other: str,
    only: Sequence[int] | None = None,
) -> None:
    """Add users and linked senders, in the forms that :meth:`PolicyBook.senders_of` takes.

    :param kind: ``users``, or the same as ``other``.
    :param other: ``domains`` or ``emails``.
    :param only: ids of the entries at the other end of the links; by default all.
    """
    link, column = LINKS[other]
    table = TABLES[other]
    near, far = (link.c.user_id, column) if kind == "users" else (column, link.c.user_id)
    linked = near.in_(ids) if only is None else near.in_(ids) & far.in_(only)
    query = select(users.c.name, table.c.name).select_from(link.join(users).join(table)).where(linked)
    normal_user, normal_sender = normal_of(connection, "users"), normal_of(connection, other)
    most = MAX_LISTED if kind == "users" else min(MAX_LISTED, MAX_PAIRS * len(ids))
    pairs = [(normal_user(user), normal_sender(name)) for user, name in connection.execute(query.limit(most + 1))]
    if len(pairs) <= most:
        senders.add(pair for pair in pairs if pair[1])
        return
    names = select(table.c.name)
    if kind == "users":
        names = names.join(link).where(linked).distinct().limit(MAX_LISTED + 1)
    else:
        names = names.where(table.c.id.in_(ids))
    senders.add_all(*filter(None, map(normal_sender, connection.scalars(names))))
