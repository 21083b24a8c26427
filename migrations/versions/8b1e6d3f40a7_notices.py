"""The outbox of notices.

Each step is idempotent: MariaDB commits each DDL statement, so an interrupted revision runs again.

Revision ID: 8b1e6d3f40a7
Revises: f27a9c40d8e3
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "8b1e6d3f40a7"
down_revision = "f27a9c40d8e3"
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
    op.create_table(
        "notices",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("channel", sa.String(8), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("due_at", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        if_not_exists=True,
        **_MARIADB,
    )
    made = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("notices")}
    for name, columns in (("created_at", ["created_at"]), ("channel", ["channel", "due_at"])):
        if f"ix_notices_{name}" not in made:
            op.create_index(f"ix_notices_{name}", "notices", columns)


def downgrade() -> None:
    op.drop_table("notices")
