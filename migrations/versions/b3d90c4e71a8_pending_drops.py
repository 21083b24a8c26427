"""A table of cached values that changes have made stale, kept until they are invalidated.

Revision ID: b3d90c4e71a8
Revises: 7c1d5b0e94fa
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "b3d90c4e71a8"
down_revision = "7c1d5b0e94fa"
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


def upgrade() -> None:
    # MariaDB commits each DDL statement: an interrupted revision runs again.
    op.create_table(
        "pending_drops",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("copies", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_pending_drops"),
        if_not_exists=True,
        **_MARIADB,
    )


def downgrade() -> None:
    op.drop_table("pending_drops")
