"""Names of users, domains and addresses have one normal form. The schema stays.

The names are rewritten when the schema is at the newest revision, by :func:`chapps_tw.database.schema.upgrade`: what is
cached about them is invalidated by a table that has another name there.

Revision ID: e4a7c2d9b610
Revises: b3d90c4e71a8
"""

from __future__ import annotations

revision = "e4a7c2d9b610"
down_revision = "b3d90c4e71a8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    pass


def downgrade() -> None:
    pass
