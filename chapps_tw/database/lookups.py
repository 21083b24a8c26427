"""The lookups of the policies, each in one transaction.

Names are looked up in their unique index, then in the index of the names in lower case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, select

from chapps_tw.database.models import TABLES, domain_user, domains, email_user, emails, users
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


# Names that are looked up in one query.
_AT_ONCE: Final = 50


def flags_of(connection: Connection, domain: str) -> DomainFlags:
    """Return the flags of a domain."""
    found = named(connection, select(domains.c.name, domains.c.greylist, domains.c.check_spf), "domains", domain)
    return DomainFlags(True, bool(found[0].greylist), bool(found[0].check_spf)) if found else UNKNOWN_DOMAIN


def senders_of(connection: Connection, user: str, domain: str, email: str, base: str = "") -> SenderGrant:
    """Return whether a user is linked to a domain and two addresses. ``""`` means none."""
    found = named(connection, select(users.c.name, users.c.id), "users", user)
    if not found:
        return UNKNOWN_SENDER
    id = found[0].id
    by_domain = select(domains.c.name).join(domain_user).where(domain_user.c.user_id == id)
    by_email = select(emails.c.name).join(email_user).where(email_user.c.user_id == id)
    return SenderGrant(
        True,
        bool(domain and named(connection, by_domain, "domains", domain)),
        bool(email and named(connection, by_email, "emails", email)),
        bool(base and named(connection, by_email, "emails", base)),
    )


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
    table, normal, spellings = TABLES[kind], normal_of(connection, kind), _SPELLINGS[kind]
    query = select(table.c.name, table.c.id).order_by(table.c.id)
    possible = [name for name in names if storable(name, MAX_EMAIL)]
    found: dict[str, int] = {}
    for start in range(0, len(possible), _AT_ONCE):
        part = set(possible[start : start + _AT_ONCE])
        for condition in _conditions(table.c.name, [each for name in part for each in spellings(name)]):
            rows = connection.execute(query.where(condition)).all()
            for row in sorted(rows, key=lambda row: bool(row.name != normal(row.name))):
                if normal(row.name) in part:
                    found.setdefault(normal(row.name), row.id)
            if part <= found.keys():
                break
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
    """Return the rows whose name has the normal form ``wanted``: an exact match first, then ordered by id.

    :param query: selects ``name`` and other columns.
    """
    table, normal = TABLES[kind], normal_of(connection, kind)
    for condition in _conditions(table.c.name, _SPELLINGS[kind](wanted)) if wanted else ():
        rows = connection.execute(query.where(condition).order_by(table.c.id))
        found = [row for row in rows if normal(row.name) == wanted]
        if found:
            return sorted(found, key=lambda row: bool(row.name != wanted))
    return []


def _conditions(column: Column[str], spellings: list[str]) -> list[ColumnElement[bool]]:
    return [column.in_(spellings), column.table.c.folded.in_(folded(spellings))]
