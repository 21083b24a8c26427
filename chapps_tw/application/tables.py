"""The tables of the database, as ``chapps-cli`` creates and upgrades them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from chapps_tw.application.start_errors import StartError, database_problem, open_engine
from chapps_tw.cli.session import CommandError
from chapps_tw.config.settings import Settings
from chapps_tw.database import examples, moving, schema


def set_up(settings: Settings, dry_run: bool = False) -> str:
    """Create the tables, or upgrade them.

    :param dry_run: change nothing, and report what would be done.
    :returns: a line about the result, and one for each report about names.
    :raises ConfigError: if the URL of the database is invalid.
    :raises CommandError: if the database cannot be used.
    """
    messages: list[str] = []
    with using_database(settings) as engine:
        before, after = (schema.preview if dry_run else schema.upgrade)(engine, messages.append), schema.HEAD
        done = f"{'brought up to' if before else 'set up at'} revision {after}"
        if dry_run:
            done = f"nothing was changed; it is at revision {before or 'none'}, and this would be done for {after}"
        elif before == after:
            schema.normalise_names(engine, messages.append)
            done = f"is up to date (revision {after})"
        return "\n".join([f"{engine.url}: {done}", *messages])


def add_examples(settings: Settings) -> str:
    """Set up the database, and add the example users if it is empty.

    :returns: a sentence about the result.
    :raises ConfigError: if the URL of the database is invalid.
    :raises CommandError: if the database cannot be used.
    """
    with using_database(settings) as engine:
        schema.upgrade(engine)
        if examples.add_examples(engine, time.time()):
            return f"{engine.url}: alice@example.com and bob@example.org added"
        return f"{engine.url}: holds something already, and is left as it is"


def copy_tables(source: Settings, settings: Settings) -> str:
    """Copy the tables of another configuration's database to the one of this configuration, which must be empty.

    :returns: a line about the result.
    :raises ConfigError: if the URL of a database is invalid.
    :raises CommandError: if a database cannot be used, or is not empty.
    """
    with using_database(source) as old:
        schema.check(old)
        with using_database(settings) as engine:
            schema.upgrade(engine)
            rows = moving.copy_tables(old, engine)
            copied = ", ".join(f"{number} {name}" for name, number in rows.items() if number)
            return f"{engine.url}: copied from {old.url}: {copied or 'nothing'}"


@contextmanager
def using_database(settings: Settings) -> Iterator[Engine]:
    """Yield the engine of the database; convert errors inside.

    :raises ConfigError: if the URL of the database is invalid.
    :raises CommandError: if the database cannot be used.
    """
    try:
        engine = open_engine(settings)
        try:
            yield engine
        finally:
            engine.dispose()
    except StartError as error:
        raise CommandError(str(error)) from None
    except (schema.SchemaError, SQLAlchemyError, OSError, UnicodeError, TypeError) as error:
        # The drivers raise Python's own exceptions for invalid parameters.
        raise CommandError(database_problem(settings, error)) from None
