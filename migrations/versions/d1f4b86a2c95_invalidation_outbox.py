"""The table and the column of the invalidation outbox get their names; its rows stay.

Every step can be taken twice: MariaDB commits each by itself, so an interrupted revision is run again.

Revision ID: d1f4b86a2c95
Revises: a93c5d1e7f02
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "d1f4b86a2c95"
down_revision = "a93c5d1e7f02"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _rename("pending_drops", "invalidation_outbox", "copies", "stale_keys")


def downgrade() -> None:
    _rename("invalidation_outbox", "pending_drops", "stale_keys", "copies")


def _rename(table: str, new_table: str, column: str, new_column: str) -> None:
    if new_table not in _inspector().get_table_names():
        op.rename_table(table, new_table)
        # Elsewhere a primary key has no name of its own, or keeps it within its table.
        if op.get_bind().dialect.name == "postgresql":
            op.execute(f"ALTER INDEX pk_{table} RENAME TO pk_{new_table}")
    if new_column not in {each["name"] for each in _inspector().get_columns(new_table)}:
        op.alter_column(new_table, column, new_column_name=new_column, existing_type=sa.Text(), existing_nullable=False)


def _inspector() -> sa.Inspector:
    # One remembers what it has seen.
    return sa.inspect(op.get_bind())
