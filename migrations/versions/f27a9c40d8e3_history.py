"""The history of decisions. Nothing on SQLite, where it has a file of its own.

Each step is idempotent: MariaDB commits each DDL statement, so an interrupted revision runs again.

Revision ID: f27a9c40d8e3
Revises: 5e0f92c7d1b4
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "f27a9c40d8e3"
down_revision = "5e0f92c7d1b4"
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
_TEXTS = {
    "node": 64, "listener": 128, "policy": 128, "action": 512, "verb": 32, "reason": 64, "user": 320, "sender": 320,
    "sender_domain": 320, "recipient": 320, "recipient_domain": 320, "client": 64, "client_key": 33, "instance": 128,
    "queue_id": 64, "stage": 32, "shadow": 512, "detail": 512, "source": 64, "also": 512,
}  # fmt: skip
_INDEXED = (
    "user", "sender", "sender_domain", "recipient", "recipient_domain", "client_key", "instance", "queue_id", "refused",
)  # fmt: skip


def upgrade() -> None:
    if _is_sqlite():
        return
    op.create_table(
        "history",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.Double, nullable=False),
        sa.Column("refused", sa.SmallInteger, nullable=False),
        *(sa.Column(name, sa.String(length)) for name, length in _TEXTS.items()),
        sa.Column("figures", sa.Text),
        if_not_exists=True,
        **_MARIADB,
    )
    made = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("history")}
    for first in _INDEXED:
        if f"ix_history_{first}" not in made:
            columns = [first, "id", "refused"] if first == "user" else [first, "id"]
            where = sa.text("refused = 1" if first == "refused" else f'"{first}" IS NOT NULL')
            op.create_index(f"ix_history_{first}", "history", columns, postgresql_where=where)


def downgrade() -> None:
    if not _is_sqlite():
        op.drop_table("history")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
