"""The tables of the policy book, in the shape that CHAPPS gave them, and one of our own."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Boolean, Column, Computed, ForeignKey, Integer, MetaData, String, Table, Text

from chapps_tw.mail.addresses import MAX_EMAIL, MAX_USER

# Alembic's recommended names, so that a constraint is called the same on every database.
NAMING: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# Names compare exactly, as they do on the other databases. SQLAlchemy takes only those options that
# begin with the name of the dialect, and this one has two.
_MARIADB: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in {
        "engine": "InnoDB",
        "default_charset": "utf8mb4",
        "collate": "utf8mb4_bin",
        "row_format": "DYNAMIC",
    }.items()
}

metadata = MetaData(naming_convention=NAMING)


def _entries(name: str, length: int, *more: Column[Any]) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(length), nullable=False, unique=True, index=True),
        *more,
        **_MARIADB,
    )


def _link(name: str, other: str, target: str, *, one: bool = False) -> Table:
    """A table that links users to something; ``one``: to one of it at most."""
    return Table(
        name,
        metadata,
        Column("user_id", ForeignKey("users.id", ondelete="CASCADE", onupdate="RESTRICT"), primary_key=True),
        Column(
            other,
            ForeignKey(target, ondelete="CASCADE", onupdate="CASCADE"),
            primary_key=not one,
            nullable=False,
            index=True,
        ),
        **_MARIADB,
    )


def _folded(length: int) -> Column[str]:
    """The name in lower case, as the database folds it and for it alone: another spelling is found by its index."""
    return Column("folded", String(length), Computed("lower(name)"), index=True)


users = _entries("users", MAX_USER, _folded(MAX_USER))
domains = _entries(
    "domains",
    255,
    Column("greylist", Boolean, nullable=False, server_default="0"),
    Column("check_spf", Boolean, nullable=False, server_default="0"),
    _folded(255),
)
emails = _entries("emails", MAX_EMAIL, _folded(MAX_EMAIL))
quotas = _entries("quotas", 32, Column("quota", Integer, nullable=False, unique=True, index=True))

domain_user = _link("domain_user", "domain_id", "domains.id")
email_user = _link("email_user", "email_id", "emails.id")
quota_user = _link("quota_user", "quota_id", "quotas.id", one=True)

# The invalidation outbox: keys of stale cached values, until they are invalidated.
invalidation_outbox = Table(
    "invalidation_outbox",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("stale_keys", Text, nullable=False),
    **_MARIADB,
)

TABLES: Final = {"users": users, "domains": domains, "emails": emails, "quotas": quotas}

# What an entry consists of.
FIELDS: Final = {kind: [column for column in table.c if column.computed is None] for kind, table in TABLES.items()}

# What links a user to the things of a kind, and the name of the column that says to which.
LINKS: Final = {
    "domains": (domain_user, domain_user.c.domain_id),
    "emails": (email_user, email_user.c.email_id),
    "quotas": (quota_user, quota_user.c.quota_id),
}
