"""An indexed column with the names in lower case, for case-insensitive lookups.

Each step is idempotent: MariaDB commits each DDL statement, so an interrupted revision runs again.

Revision ID: a93c5d1e7f02
Revises: e4a7c2d9b610
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "a93c5d1e7f02"
down_revision = "e4a7c2d9b610"
branch_labels = None
depends_on = None

_NAMES = {"users": 128, "domains": 255, "emails": 320}


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    # PostgreSQL requires a stored column; SQLite cannot add one, but can index a virtual one, as MariaDB can.
    stored = True if op.get_bind().dialect.name == "postgresql" else None
    for table, length in _NAMES.items():
        if "folded" not in {column["name"] for column in inspector.get_columns(table)}:
            op.add_column(table, sa.Column("folded", sa.String(length), sa.Computed("lower(name)", persisted=stored)))
        if f"ix_{table}_folded" not in {index["name"] for index in inspector.get_indexes(table)}:
            op.create_index(f"ix_{table}_folded", table, ["folded"])


def downgrade() -> None:
    for table in _NAMES:
        op.drop_index(f"ix_{table}_folded", table)
        op.drop_column(table, "folded")
