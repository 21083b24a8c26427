"""Migrations with Alembic.

Importing Alembic takes a tenth of the time of a start, so :mod:`chapps_tw.database.schema` imports this module only if
a database is not at the newest revision.
"""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def known() -> tuple[str, ...]:
    """Return all revisions that this version knows, newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(config()).walk_revisions())


def run(connection: Connection, stamped: str) -> None:
    """Run all pending migrations in the transaction of the caller.

    :param stamped: the revision to stamp the database with first, ``""`` if it has one.
    """
    settings = config()
    settings.attributes["connection"] = connection
    if stamped:
        command.stamp(settings, stamped)
    command.upgrade(settings, "head")


def config() -> Config:
    """Return the configuration for Alembic. The scripts need ``connection`` in its attributes."""
    found = Config()
    found.set_main_option("script_location", str(files("chapps_tw.migrations")).replace("%", "%%"))
    return found
