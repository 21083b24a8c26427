"""What the drivers' errors mean: in words, and as codes."""

from __future__ import annotations

import re
from traceback import clear_frames
from typing import Final

from sqlalchemy.exc import DBAPIError, TimeoutError

SET_UP: Final = "run 'chapps-cli admin db-setup'"

# PostgreSQL: undefined table, undefined column. MariaDB: no such table, unknown column.
_LACKING: Final = frozenset(("42P01", "42703", 1146, 1054))
# SQLite has no code for it.
_LACKING_SQLITE: Final = re.compile("no such (table|column)")


def code(error: DBAPIError) -> str | int:
    """What kind of error the driver reports: SQLSTATE, MariaDB's number, or SQLite's name."""
    cause = error.orig
    number = cause.args[0] if cause is not None and cause.args else ""
    if isinstance(number, int):
        return number
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", ""))


def reason(error: BaseException) -> str:
    """Why the database did not do something: one line, bounded, with the remedy where it is ours to tell."""
    if isinstance(error, TimeoutError):
        return "all connections are in use"
    cause = error.orig if isinstance(error, DBAPIError) else error
    # PyMySQL puts a number before the text.
    text = str(cause.args[-1] if cause is not None and cause.args else cause).strip()
    line = (text.splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError) and isinstance(error.filename, str):
        line = f"{error.filename}: {line}"
    # The database answers, but has not all of our tables.
    lacking = isinstance(error, DBAPIError) and (code(error) in _LACKING or _LACKING_SQLITE.match(line))
    return f"{line}: {SET_UP}" if lacking else line


def let_go(error: BaseException | None) -> None:
    """Take the tracebacks off an error whose text is all that is wanted.

    They hold what failed, and are held by it: up to half a megabyte for each connection that PyMySQL could not
    make, which only the garbage collector would free, and that runs seldom here.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
