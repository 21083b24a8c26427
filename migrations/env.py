"""Runs the revisions on the caller's connection, in the caller's transaction.

There is no ``alembic.ini``: ``chapps-cli admin db-setup`` and the service itself call this, see
:mod:`chapps_tw.database.schema`. It does not configure logging.
"""

from __future__ import annotations

from alembic import context

from chapps_tw.database.models import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    compare_type=True,
    compare_server_default=True,
)
with context.begin_transaction():
    context.run_migrations()
