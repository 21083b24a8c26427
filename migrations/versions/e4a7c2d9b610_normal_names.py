"""Names of users, domains and addresses in their normal form; those that would be the same are told and left.

Names that were rewritten stay so when the revision is taken back. Run twice, it changes nothing more.

Revision ID: e4a7c2d9b610
Revises: b3d90c4e71a8
"""

from __future__ import annotations

from alembic import context, op

from chapps_tw.database.normal_names import normalise

revision = "e4a7c2d9b610"
down_revision = "b3d90c4e71a8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    normalise(op.get_bind(), context.config.attributes["say"])


def downgrade() -> None:
    pass
