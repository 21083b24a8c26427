"""Flags of domains: greylisting and SPF, off by default.

Identifier and result are those of the second revision of CHAPPS.

Revision ID: 0b5ef72836bd
Revises: ce81767cec26
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0b5ef72836bd"
down_revision = "ce81767cec26"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for flag in ("greylist", "check_spf"):
        op.add_column("domains", sa.Column(flag, sa.Boolean, nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("domains") as domains:
        domains.drop_column("check_spf")
        domains.drop_column("greylist")
