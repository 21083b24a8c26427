"""Users, domains, emails and quotas, and their links to users.

Identifier and result are those of the first revision of CHAPPS 0.4.12 and later.

Revision ID: ce81767cec26
Revises:
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "ce81767cec26"
down_revision = None
branch_labels = None
depends_on = None

# SQLAlchemy accepts only options prefixed with the dialect's name, and this dialect has two.
_MARIADB: dict[str, Any] = {
    f"{dialect}_{option}": value
    for dialect in ("mysql", "mariadb")
    for option, value in {"engine": "InnoDB", "default_charset": "utf8mb4", "row_format": "DYNAMIC"}.items()
}
_ENTRIES = {"users": 128, "domains": 64, "emails": 128, "quotas": 32}


def _create_entries(table: str, length: int, *more: sa.Column[int]) -> None:
    op.create_table(
        table,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(length), nullable=False),
        *more,
        sa.PrimaryKeyConstraint("id", name=f"pk_{table}"),
        **_MARIADB,
    )
    op.create_index(f"ix_{table}_name", table, ["name"], unique=True)


def _create_link(kind: str, *, one: bool = False) -> None:
    table, other = f"{kind}_user", f"{kind}_id"
    op.create_table(
        table,
        sa.Column("user_id", sa.Integer, nullable=False),
        sa.Column(other, sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=f"fk_{table}_user_id_users", onupdate="RESTRICT", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            [other], [f"{kind}s.id"], name=f"fk_{table}_{other}_{kind}s", onupdate="CASCADE", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", *([] if one else [other]), name=f"pk_{table}"),
        **_MARIADB,
    )


def upgrade() -> None:
    for table in ("users", "domains", "emails"):
        _create_entries(table, _ENTRIES[table])
    _create_entries("quotas", _ENTRIES["quotas"], sa.Column("quota", sa.Integer, nullable=False))
    op.create_index("ix_quotas_quota", "quotas", ["quota"], unique=True)
    _create_link("domain")
    _create_link("email")
    _create_link("quota", one=True)


def downgrade() -> None:
    for table in ("quota_user", "email_user", "domain_user", *_ENTRIES):
        op.drop_table(table)
