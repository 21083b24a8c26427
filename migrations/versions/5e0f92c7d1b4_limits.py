"""Limits, quotas of domains, overrides, exemptions and the audit trail.

Several quotas may have the same number, or none. On SQLite, ids of quotas are not used again.

Each step is idempotent: MariaDB commits each DDL statement, so an interrupted revision runs again.

Revision ID: 5e0f92c7d1b4
Revises: d1f4b86a2c95
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.mysql import MEDIUMTEXT

revision = "5e0f92c7d1b4"
down_revision = "d1f4b86a2c95"
branch_labels = None
depends_on = None

# SQLAlchemy accepts only options prefixed with the dialect's name, and this dialect has two.
_MARIADB: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in {
        "engine": "InnoDB",
        "default_charset": "utf8mb4",
        "collate": "utf8mb4_bin",
        "row_format": "DYNAMIC",
    }.items()
}
_JSON = sa.Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")
_OF_DOMAIN = ("each_quota_id", "pool_quota_id")
_UNITS = "'messages', 'recipients', 'bytes', 'distinct_recipients'"


def upgrade() -> None:
    _relax_quotas()
    with _domains():
        for column in _OF_DOMAIN:
            _add_quota_of_domain(column)
    _create_limits()
    _create_overrides()
    _create_exemptions()
    _create_audit()


def downgrade() -> None:
    for table in ("audit", "exemptions", "overrides", "limits"):
        op.drop_table(table)
    with _domains():
        for column in _OF_DOMAIN:
            with op.batch_alter_table("domains") as domains:
                domains.drop_constraint(f"fk_domains_{column}_quotas", type_="foreignkey")
                domains.drop_index(f"ix_domains_{column}")
                domains.drop_column(column)
    with op.batch_alter_table("quotas") as quotas:
        quotas.alter_column("quota", existing_type=sa.Integer(), nullable=False)
    op.create_index("ix_quotas_quota", "quotas", ["quota"], unique=True)


def _inspector() -> sa.Inspector:
    # One remembers what it has seen.
    return sa.inspect(op.get_bind())


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in _inspector().get_indexes(table)}


def _relax_quotas() -> None:
    if "ix_quotas_quota" in _indexes("quotas"):
        op.drop_index("ix_quotas_quota", "quotas")
    with op.batch_alter_table("quotas", table_kwargs={"sqlite_autoincrement": True}) as quotas:
        quotas.alter_column("quota", existing_type=sa.Integer(), nullable=True)


@contextmanager
def _domains() -> Iterator[None]:
    """On SQLite, Alembic recreates the table, and cannot copy a computed column."""
    sqlite = op.get_bind().dialect.name == "sqlite"
    if sqlite:
        op.drop_index("ix_domains_folded", "domains")
        op.drop_column("domains", "folded")
    yield
    if sqlite:
        op.add_column("domains", sa.Column("folded", sa.String(255), sa.Computed("lower(name)")))
        op.create_index("ix_domains_folded", "domains", ["folded"])


def _add_quota_of_domain(column: str) -> None:
    constraint = f"fk_domains_{column}_quotas"
    if column not in {each["name"] for each in _inspector().get_columns("domains")}:
        op.add_column("domains", sa.Column(column, sa.Integer))
    if f"ix_domains_{column}" not in _indexes("domains"):
        op.create_index(f"ix_domains_{column}", "domains", [column])
    if constraint not in {key["name"] for key in _inspector().get_foreign_keys("domains")}:
        with op.batch_alter_table("domains") as domains:
            domains.create_foreign_key(constraint, "quotas", [column], ["id"], ondelete="SET NULL")


def _create(table: str, *more: Any) -> None:
    columns = (sa.Column("id", sa.Integer, nullable=False), *more, sa.PrimaryKeyConstraint("id", name=f"pk_{table}"))
    op.create_table(table, *columns, if_not_exists=True, **_MARIADB)


def _index(table: str, *columns: str) -> None:
    if f"ix_{table}_{columns[0]}" not in _indexes(table):
        op.create_index(f"ix_{table}_{columns[0]}", table, list(columns))


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _number(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _deleted_with(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=f"fk_{table}_{column}_{other}", ondelete="CASCADE")


def _create_limits() -> None:
    _create(
        "limits",
        _number("quota_id", sa.Integer),
        _text("name", 32),
        _text("unit", 24),
        _number("amount", sa.BigInteger),
        _number("window_seconds", sa.Integer),
        _text("action", 8),
        _deleted_with("limits", "quota_id", "quotas"),
        sa.UniqueConstraint("quota_id", "name", name="uq_limits_quota_id"),
        sa.CheckConstraint(f"unit IN ({_UNITS})", name="ck_limits_unit"),
        sa.CheckConstraint("action IN ('refuse', 'defer', 'hold')", name="ck_limits_action"),
        sa.CheckConstraint("amount >= 0", name="ck_limits_amount"),
        sa.CheckConstraint("window_seconds >= 1", name="ck_limits_window"),
    )


def _create_overrides() -> None:
    _create(
        "overrides",
        sa.Column("user_id", sa.Integer),
        sa.Column("domain_id", sa.Integer),
        _text("kind", 16),
        _number("value", sa.BigInteger),
        _text("limit_name", 32),
        _number("begin_at", sa.Double),
        _number("until_at", sa.Double),
        _text("reason", 500),
        _text("action", 8),
        _text("author", 64),
        _number("created_at", sa.Double),
        _deleted_with("overrides", "user_id", "users"),
        _deleted_with("overrides", "domain_id", "domains"),
        sa.CheckConstraint("kind IN ('extra', 'unlimited', 'suspended')", name="ck_overrides_kind"),
    )
    _index("overrides", "user_id", "until_at")
    _index("overrides", "domain_id", "until_at")


def _create_exemptions() -> None:
    _create(
        "exemptions",
        _text("kind", 16),
        _text("value", 320),
        _text("scope", 80),
        _number("until_at", sa.Double),
        _text("reason", 500),
        _text("author", 64),
        _number("created_at", sa.Double),
        sa.CheckConstraint("kind IN ('client', 'sender', 'sender_domain', 'recipient')", name="ck_exemptions_kind"),
    )
    _index("exemptions", "until_at")


def _create_audit() -> None:
    _create(
        "audit",
        _number("at", sa.Double),
        _text("author", 64),
        _text("action", 16),
        _text("kind", 32),
        sa.Column("entry", sa.Integer),
        _text("name", 320),
        sa.Column("before", _JSON),
        sa.Column("after", _JSON),
    )
    _index("audit", "at")
    for column in ("author", "kind", "name"):
        _index("audit", column, "id")
