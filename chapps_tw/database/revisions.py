"""Alembic's scripts: which revisions there are, and how a database is brought to the newest.

Importing Alembic takes as long as a tenth of the whole start, so :mod:`chapps_tw.database.schema` does so only when
a database is not at the newest revision.
"""

from __future__ import annotations

from importlib.resources import files

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection


def known() -> tuple[str, ...]:
    """All that this version knows, newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(config()).walk_revisions())


def run(connection: Connection, stamped: str) -> None:
    """Run all scripts that a database has not had, in the caller's transaction.

    :param stamped: the revision to take it for first, ``""`` where it knows by itself.
    """
    settings = config()
    settings.attributes["connection"] = connection
    if stamped:
        command.stamp(settings, stamped)
    command.upgrade(settings, "head")


def config() -> Config:
    """Alembic's settings; the scripts want ``connection`` among its attributes."""
    found = Config()
    found.set_main_option("script_location", str(files("chapps_tw.migrations")).replace("%", "%%"))
    return found
