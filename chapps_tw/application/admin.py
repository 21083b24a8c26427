"""The program ``chapps-cli``: joins its commands to the database and the clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from chapps_tw.application.preflight import findings
from chapps_tw.application.start_errors import StartError, database_problem, open_engine
from chapps_tw.cli import commands as cli
from chapps_tw.config.settings import Settings
from chapps_tw.database import examples, schema


def main() -> int:
    """Run the command that the program was called with; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What a terminal has no letters for is shown all the same.
            stream.reconfigure(errors="backslashreplace")
    return cli.run(sys.argv[1:], cli.Dependencies(set_up, add_examples, time.time, findings))


def set_up(settings: Settings, dry_run: bool = False) -> str:
    """Make the database's tables, or bring them up to date.

    :param dry_run: change nothing, and say what would be done.

    :returns: a line that says what was done, and one for each thing that there is to tell about names.
    :raises ConfigError: when the database's URL is wrong.
    :raises CommandError: when the database cannot be used.
    """
    told: list[str] = []
    with _engine(settings) as engine:
        before, after = (schema.preview if dry_run else schema.upgrade)(engine, told.append), schema.HEAD
        done = f"{'brought up to' if before else 'set up at'} revision {after}"
        if dry_run:
            done = f"nothing was changed; it is at revision {before or 'none'}, and this would be done for {after}"
        elif before == after:
            schema.normalise_names(engine, told.append)
            done = f"is up to date (revision {after})"
        return "\n".join([f"{engine.url}: {done}", *told])


def add_examples(settings: Settings) -> str:
    """Set the database up, and add the example users to one that is empty.

    :returns: a sentence that says what was done.
    :raises ConfigError: when the database's URL is wrong.
    :raises CommandError: when the database cannot be used.
    """
    with _engine(settings) as engine:
        schema.upgrade(engine)
        if examples.add_examples(engine):
            return f"{engine.url}: alice@example.com and bob@example.org added"
        return f"{engine.url}: holds something already, and is left as it is"


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    try:
        engine = open_engine(settings)
        try:
            yield engine
        finally:
            engine.dispose()
    except StartError as error:
        raise cli.CommandError(str(error)) from None
    except (schema.SchemaError, SQLAlchemyError, OSError, UnicodeError, TypeError) as error:
        # The drivers leave values that they cannot take to Python.
        raise cli.CommandError(database_problem(settings, error)) from None


if __name__ == "__main__":
    sys.exit(main())
