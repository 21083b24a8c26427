"""The tables of the policy book: those of CHAPPS, and its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.mysql import MEDIUMTEXT

from chapps_tw.interfaces.state import Unit
from chapps_tw.interfaces.writable_book import MAX_AUTHOR, MAX_REASON, MAX_RULE_NAME
from chapps_tw.mail.addresses import MAX_EMAIL, MAX_USER

# The naming convention that Alembic recommends, so that constraints have the same names on every database.
NAMING: Final = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# Names are compared exactly, as on the other databases. SQLAlchemy accepts only options with the name of the
# dialect as a prefix, and this dialect has two names.
MARIADB: Final[dict[str, Any]] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in {
        "engine": "InnoDB",
        "default_charset": "utf8mb4",
        "collate": "utf8mb4_bin",
        "row_format": "DYNAMIC",
    }.items()
}

# The largest value of an Integer column on every database.
MAX_INTEGER: Final = 2**31 - 1
MAX_QUOTA: Final = 32
MAX_SCOPE: Final = 80

LIMIT_ACTIONS: Final = ("refuse", "defer", "hold")
OVERRIDE_KINDS: Final = ("extra", "unlimited", "suspended")
EXEMPTION_KINDS: Final = ("client", "sender", "sender_domain", "recipient")

metadata = MetaData(naming_convention=NAMING)


def _entries(name: str, length: int, *more: Column[Any], **options: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", String(length), nullable=False, unique=True, index=True),
        *more,
        **MARIADB,
        **options,
    )


def _link(name: str, other: str, target: str, *, one: bool = False) -> Table:
    """A table that links users to entries of another kind; with ``one``, each user to at most one entry."""
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
        **MARIADB,
    )


def _folded(length: int) -> Column[str]:
    """The name in lower case, computed by the database. Its index finds other spellings."""
    return Column("folded", String(length), Computed("lower(name)"), index=True)


def _quota_of_domain(name: str) -> Column[int]:
    return Column(name, ForeignKey("quotas.id", ondelete="SET NULL"), index=True)


def _one_of(column: str, values: Iterable[str]) -> CheckConstraint:
    """Others would be rows of another program, and policies could not apply them."""
    return CheckConstraint(f"{column} IN ({', '.join(map(repr, map(str, values)))})", name=column)


def _rules(name: str, *more: Any) -> Table:
    return Table(name, metadata, Column("id", Integer, primary_key=True), *more, **MARIADB)


users = _entries("users", MAX_USER, _folded(MAX_USER))
domains = _entries(
    "domains",
    255,
    Column("greylist", Boolean, nullable=False, server_default="0"),
    Column("check_spf", Boolean, nullable=False, server_default="0"),
    _folded(255),
    _quota_of_domain("each_quota_id"),
    _quota_of_domain("pool_quota_id"),
)
emails = _entries("emails", MAX_EMAIL, _folded(MAX_EMAIL))
# The id of a deleted quota is not used again: a cached value may still refer to it.
quotas = _entries("quotas", MAX_QUOTA, Column("quota", Integer), sqlite_autoincrement=True)

domain_user = _link("domain_user", "domain_id", "domains.id")
email_user = _link("email_user", "email_id", "emails.id")
quota_user = _link("quota_user", "quota_id", "quotas.id", one=True)

limits = _rules(
    "limits",
    Column("quota_id", ForeignKey("quotas.id", ondelete="CASCADE"), nullable=False),
    Column("name", String(MAX_RULE_NAME), nullable=False),
    Column("unit", String(24), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("action", String(8), nullable=False),
    UniqueConstraint("quota_id", "name"),
    _one_of("unit", Unit),
    _one_of("action", LIMIT_ACTIONS),
    CheckConstraint("amount >= 0", name="amount"),
    CheckConstraint("window_seconds >= 1", name="window"),
)

overrides = _rules(
    "overrides",
    Column("user_id", ForeignKey("users.id", ondelete="CASCADE")),
    Column("domain_id", ForeignKey("domains.id", ondelete="CASCADE")),
    Column("kind", String(16), nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("limit_name", String(MAX_RULE_NAME), nullable=False),
    Column("begin_at", Double, nullable=False),
    Column("until_at", Double, nullable=False),
    Column("reason", String(MAX_REASON), nullable=False),
    Column("action", String(8), nullable=False),
    Column("author", String(MAX_AUTHOR), nullable=False),
    Column("created_at", Double, nullable=False),
    _one_of("kind", OVERRIDE_KINDS),
    Index("ix_overrides_user_id", "user_id", "until_at"),
    Index("ix_overrides_domain_id", "domain_id", "until_at"),
)

exemptions = _rules(
    "exemptions",
    Column("kind", String(16), nullable=False),
    Column("value", String(MAX_EMAIL), nullable=False),
    Column("scope", String(MAX_SCOPE), nullable=False),
    Column("until_at", Double, nullable=False, index=True),
    Column("reason", String(MAX_REASON), nullable=False),
    Column("author", String(MAX_AUTHOR), nullable=False),
    Column("created_at", Double, nullable=False),
    _one_of("kind", EXEMPTION_KINDS),
)

# 64 KiB on MariaDB would not hold the longest names.
_JSON: Final = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")

audit = _rules(
    "audit",
    Column("at", Double, nullable=False, index=True),
    Column("author", String(MAX_AUTHOR), nullable=False),
    Column("action", String(16), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("entry", Integer),
    Column("name", String(MAX_EMAIL), nullable=False),
    Column("before", _JSON),
    Column("after", _JSON),
    # Each is followed by the order of the list.
    Index("ix_audit_author", "author", "id"),
    Index("ix_audit_kind", "kind", "id"),
    Index("ix_audit_name", "name", "id"),
)

# The invalidation outbox: keys of stale cached values, until they are invalidated.
invalidation_outbox = Table(
    "invalidation_outbox",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("stale_keys", Text, nullable=False),
    **MARIADB,
)

# The outbox of notices: what is to be sent; what was settled stays for a while, without content.
notices = Table(
    "notices",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("channel", String(8), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("content", Text, nullable=False),
    Column("created_at", Double, nullable=False, index=True),
    # When it is to be sent, or when its lease ends; NULL if it is settled.
    Column("due_at", Double),
    Column("attempts", Integer, nullable=False),
    Index("ix_notices_channel", "channel", "due_at"),
    **MARIADB,
)

TABLES: Final = {"users": users, "domains": domains, "emails": emails, "quotas": quotas}
RULES: Final = {"limits": limits, "overrides": overrides, "exemptions": exemptions}

# The tables and columns that CHAPPS has.
CHAPPS_TABLES: Final = (*TABLES.values(), domain_user, email_user, quota_user)
OWN_COLUMNS: Final = frozenset({"folded", "each_quota_id", "pool_quota_id"})

# A field that is not named like its column.
_COLUMNS: Final = {
    "quota": "quota_id",
    "window": "window_seconds",
    "user": "user_id",
    "domain": "domain_id",
    "limit": "limit_name",
    "begin": "begin_at",
    "until": "until_at",
    "created": "created_at",
    "each_quota": "each_quota_id",
    "pool_quota": "pool_quota_id",
}
_NAMES: Final = {column: field for field, column in _COLUMNS.items()}

# The columns of an entry, by the names of its fields.
COLUMNS: Final = {
    kind: {_NAMES.get(column.name, column.name): column for column in table.c if column.computed is None}
    for kind, table in (TABLES | RULES).items()
}
FIELDS: Final = {kind: [column.label(name) for name, column in found.items()] for kind, found in COLUMNS.items()}

# The table that links users to entries of a kind, and its column for the entry.
LINKS: Final = {
    "domains": (domain_user, domain_user.c.domain_id),
    "emails": (email_user, email_user.c.email_id),
    "quotas": (quota_user, quota_user.c.quota_id),
}
