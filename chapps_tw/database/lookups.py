"""The lookups of the policies, each in one transaction.

Names are looked up in their unique index, then in the index of the names in lower case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, Select, Table, select

from chapps_tw.database.batches import MOST
from chapps_tw.database.models import TABLES, domain_user, domains, email_user, users
from chapps_tw.database.text import domain_spellings, folded, name_spellings, normal_of, storable
from chapps_tw.interfaces.book import DomainFlags, SenderGrant
from chapps_tw.mail.addresses import MAX_EMAIL

UNKNOWN_SENDER = SenderGrant(False, False, False)
UNKNOWN_DOMAIN = DomainFlags(False, False, False)

# Kinds whose names have a normal form, and how a normal name may be spelled in the table.
_SPELLINGS: Final[dict[str, Callable[[str], list[str]]]] = {
    "users": name_spellings,
    "domains": domain_spellings,
    "emails": name_spellings,
}


class Sender(NamedTuple):
    """A user, and names by which a sender may be linked to it; ``""`` for none."""

    user: str
    domain: str
    email: str
    base: str = ""


def flags_of(connection: Connection, domain: str) -> DomainFlags:
    """Return the flags of a domain."""
    found = named(connection, select(domains.c.name, domains.c.greylist, domains.c.check_spf), "domains", domain)
    return DomainFlags(True, bool(found[0].greylist), bool(found[0].check_spf)) if found else UNKNOWN_DOMAIN


def grants(connection: Connection, senders: Sequence[Sender]) -> dict[Sender, SenderGrant]:
    """Return whether each user is linked to a domain and two addresses."""
    found = all_named(connection, select(users.c.name, users.c.id), "users", {each.user for each in senders})
    ids = {name: rows[0].id for name, rows in found.items()}
    known = [(ids[each.user], each) for each in senders if each.user in ids]
    of_domains = _linked(connection, "domains", domain_user, {(id, each.domain) for id, each in known})
    of_emails = _linked(connection, "emails", email_user, {(id, name) for id, each in known for name in each[2:]})
    granted = {
        each: SenderGrant(
            True, (id, each.domain) in of_domains, (id, each.email) in of_emails, (id, each.base) in of_emails
        )
        for id, each in known
    }
    return {each: granted.get(each, UNKNOWN_SENDER) for each in senders}


def _linked(connection: Connection, kind: str, link: Table, pairs: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those pairs of the id of a user and a name that are linked. ``""`` never is."""
    left = {(id, name) for id, name in pairs if name}
    query = select(TABLES[kind].c.name, link.c.user_id).join(link)
    query = query.where(link.c.user_id.in_({id for id, _ in left}))
    linked: set[tuple[int, str]] = set()
    for rows in _by_spelling(connection, query, kind, lambda: {name for _, name in left.difference(linked)}):
        linked.update(left & {(row.user_id, name) for name, row in rows})
    return linked


def id_of(connection: Connection, kind: str, name: str) -> int | None:
    """Return the id of the entry that policies use for a name. Quota names are compared exactly."""
    table = TABLES[kind]
    query = select(table.c.name, table.c.id)
    if kind in _SPELLINGS:
        found = named(connection, query, kind, normal_of(connection, kind)(name))
    else:
        # The collation may match other names too: compare again.
        found = [row for row in connection.execute(query.where(table.c.name == name)) if row.name == name]
    return found[0].id if found else None


def ids_of(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, int]:
    """Return the ids of the entries that policies use for some names. Not for quotas.

    :param names: in normal form.
    """
    table = TABLES[kind]
    possible = [name for name in names if storable(name, MAX_EMAIL)]
    found: dict[str, int] = {}
    for start in range(0, len(possible), MOST):
        rows = all_named(connection, select(table.c.name, table.c.id), kind, set(possible[start : start + MOST]))
        found |= {name: same[0].id for name, same in rows.items()}
    return found


def other_spelling(connection: Connection, kind: str, name: str, id: int | None = None) -> str | None:
    """Return the name of another entry that has the same normal form, if there is one.

    :param id: of the entry that has this name, or is to get it.
    """
    if kind not in _SPELLINGS:
        return None
    table = TABLES[kind]
    others = select(table.c.name).where(table.c.id != (id or 0))
    found = named(connection, others, kind, normal_of(connection, kind)(name))
    return found[0].name if found else None


def named(
    connection: Connection, query: Select[*tuple[Any, ...]], kind: str, wanted: str
) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows whose name has the normal form ``wanted``, as :func:`all_named` does; none for ``""``."""
    return all_named(connection, query, kind, {wanted} - {""}).get(wanted, [])


def all_named(
    connection: Connection, query: Select[*tuple[Any, ...]], kind: str, wanted: Set[str]
) -> dict[str, list[Row[*tuple[Any, ...]]]]:
    """Return, by normal form, the rows whose name has it: an exact match first, then ordered by id.

    :param query: selects ``name`` and other columns.
    :param wanted: normal forms, at most :data:`~chapps_tw.database.batches.MOST`.
    """
    found: dict[str, list[Row[*tuple[Any, ...]]]] = {}
    for rows in _by_spelling(connection, query.order_by(TABLES[kind].c.id), kind, lambda: wanted - found.keys()):
        for name, row in rows:
            found.setdefault(name, []).append(row)
    return {name: sorted(rows, key=lambda row: bool(row.name != name)) for name, rows in found.items()}


def _by_spelling(
    connection: Connection, query: Select[Any], kind: str, left: Callable[[], Set[str]]
) -> Iterator[list[tuple[str, Row[Any]]]]:
    """Yield rows with the normal form of their names: of the usual spellings, then of any.

    :param left: returns the normal forms that are not found yet.
    """
    table, normal = TABLES[kind], normal_of(connection, kind)
    for column, variants in ((table.c.name, list[str]), (table.c.folded, folded)):
        names = left()
        if not names:
            return
        spellings = [each for name in names for each in _SPELLINGS[kind](name)]
        rows = connection.execute(query.where(column.in_(variants(spellings))))
        yield [(name, row) for row in rows if (name := normal(row.name)) in names]
