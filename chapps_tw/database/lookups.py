"""What the policies ask of the book, each in one transaction on one connection.

Names are looked up by their unique index, and what is not found that way by the index of the names in lower case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sqlalchemy import Column, ColumnElement, Connection, select

from chapps_tw.database.models import TABLES, domain_user, domains, email_user, emails, quota_user, quotas, users
from chapps_tw.database.text import domain_spellings, email_spellings, folded
from chapps_tw.interfaces import DomainFlags, QuotaGrant, SenderGrant
from chapps_tw.names import normal_domain, normal_email

UNKNOWN_QUOTA = QuotaGrant(False, None)
UNKNOWN_SENDER = SenderGrant(False, False, False)
UNKNOWN_DOMAIN = DomainFlags(False, False, False)

# Kinds whose names are not compared as they are: where they stand, the form that is compared, and how
# a name of that form may be spelled.
_SPELLED: Final[dict[str, tuple[Column[str], Callable[[str], str], Callable[[str], list[str]]]]] = {
    "domains": (domains.c.name, normal_domain, domain_spellings),
    "emails": (emails.c.name, normal_email, email_spellings),
}


def quota_of(connection: Connection, user: str) -> QuotaGrant:
    """The quota of the user of exactly this name."""
    query = (
        select(users.c.name, quotas.c.quota)
        .select_from(users.outerjoin(quota_user).outerjoin(quotas))
        .where(users.c.name == user)
    )
    # A collation may take other names for the same: compare again.
    found = [quota for name, quota in connection.execute(query) if name == user]
    return QuotaGrant(True, found[0]) if found else UNKNOWN_QUOTA


def flags_of(connection: Connection, domain: str) -> DomainFlags:
    """The flags of a domain; of several spellings the normal one's."""
    for condition in _conditions(domains.c.name, domain_spellings(domain)):
        query = select(domains.c.name, domains.c.greylist, domains.c.check_spf).where(condition).order_by(domains.c.id)
        rows = [row for row in connection.execute(query) if normal_domain(row.name) == domain]
        if rows:
            best = min(rows, key=lambda row: bool(row.name != domain))
            return DomainFlags(True, bool(best.greylist), bool(best.check_spf))
    return UNKNOWN_DOMAIN


def senders_of(connection: Connection, user: str, domain: str, email: str) -> SenderGrant:
    """Whether a user is linked to a domain and to an address. ``""`` is neither."""
    query = select(users.c.id, users.c.name).where(users.c.name == user)
    found = [id for id, name in connection.execute(query) if name == user]
    if not found:
        return UNKNOWN_SENDER
    return SenderGrant(
        True,
        bool(domain) and _has_domain(connection, found[0], domain),
        bool(email) and _has_email(connection, found[0], email),
    )


def _has_domain(connection: Connection, user_id: int, domain: str) -> bool:
    joined = select(domains.c.name).join(domain_user).where(domain_user.c.user_id == user_id)
    return any(
        normal_domain(name) == domain
        for condition in _conditions(domains.c.name, domain_spellings(domain))
        for name in connection.scalars(joined.where(condition))
    )


def _has_email(connection: Connection, user_id: int, email: str) -> bool:
    joined = select(emails.c.name).join(email_user).where(email_user.c.user_id == user_id)
    return any(
        normal_email(name) == email
        for condition in _conditions(emails.c.name, email_spellings(email))
        for name in connection.scalars(joined.where(condition))
    )


def spelled_otherwise(connection: Connection, kind: str, name: str, id: int | None = None) -> str | None:
    """How an entry is spelled that a policy would take for the one of this name.

    :param id: of the entry that has the name, or is to have it.
    """
    if kind not in _SPELLED:
        return None
    column, normal, spellings = _SPELLED[kind]
    wanted = normal(name)
    if not wanted:
        return None
    others = select(column).where(TABLES[kind].c.id != (id or 0))
    found = (
        other
        for condition in _conditions(column, spellings(wanted))
        for other in connection.scalars(others.where(condition))
    )
    return next((other for other in found if normal(other) == wanted), None)


def _conditions(column: Column[str], spellings: list[str]) -> list[ColumnElement[bool]]:
    return [column.in_(spellings), column.table.c.folded.in_(folded(spellings))]
