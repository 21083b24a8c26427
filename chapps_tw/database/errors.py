"""Error codes and messages of the database drivers."""

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
    """The cause of an error in one line of bounded length, with the remedy where we know one."""
    if isinstance(error, TimeoutError):
        return "all connections are in use"
    cause = error.orig if isinstance(error, DBAPIError) else error
    # PyMySQL puts a number before the text.
    text = str(cause.args[-1] if cause is not None and cause.args else cause).strip()
    line = (text.splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError) and isinstance(error.filename, str):
        line = f"{error.filename}: {line}"
    # The database answers, but lacks one of our tables or columns.
    lacking = isinstance(error, DBAPIError) and (code(error) in _LACKING or _LACKING_SQLITE.match(line))
    return f"{line}: {SET_UP}" if lacking else line


def let_go(error: BaseException | None) -> None:
    """Clear the tracebacks of an error of which only the text is needed.

    They and what failed refer to each other: up to half a megabyte for each connection that PyMySQL could not open,
    which only the garbage collector would free, and that runs seldom here.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
