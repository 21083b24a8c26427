"""Longer names, exact comparison, and indexes for both directions of links.

Each step is idempotent: MariaDB commits each DDL statement, so an interrupted revision runs again.

Revision ID: 7c1d5b0e94fa
Revises: 0b5ef72836bd
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7c1d5b0e94fa"
down_revision = "0b5ef72836bd"
branch_labels = None
depends_on = None

# Old and new length of the name.
_NAMES = {"users": (128, 128), "domains": (64, 255), "emails": (128, 320), "quotas": (32, 32)}
_LINKS = {"domain_user": "domain_id", "email_user": "email_id", "quota_user": "quota_id"}


def _resize(table: str, old: int, new: int) -> None:
    if op.get_bind().dialect.name in ("mysql", "mariadb"):
        # DYNAMIC, since an index of COMPACT rows is limited to 767 octets, and 320 characters may take 1280.
        op.execute(
            f"ALTER TABLE {table} ROW_FORMAT=DYNAMIC, CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin,"
            f" MODIFY name VARCHAR({new}) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL"
        )
    elif old != new:
        with op.batch_alter_table(table) as batch:
            batch.alter_column("name", existing_type=sa.String(old), type_=sa.String(new), existing_nullable=False)


def _indexes(table: str) -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}


def upgrade() -> None:
    for table, (old, new) in _NAMES.items():
        _resize(table, old, new)
    for table, column in _LINKS.items():
        if f"ix_{table}_{column}" not in _indexes(table):
            op.create_index(f"ix_{table}_{column}", table, [column])


def downgrade() -> None:
    mariadb = op.get_bind().dialect.name in ("mysql", "mariadb")
    for table, column in _LINKS.items():
        # MariaDB requires an index for each foreign key, and created one itself with the table.
        if mariadb and f"fk_{table}_{column}_{column[:-3]}s" not in _indexes(table):
            op.create_index(f"fk_{table}_{column}_{column[:-3]}s", table, [column])
        op.drop_index(f"ix_{table}_{column}", table)
    for table, (old, new) in _NAMES.items():
        _resize(table, new, old)
