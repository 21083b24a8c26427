"""Error codes and messages of the database drivers."""

from __future__ import annotations

import re
from traceback import clear_frames
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, TimeoutError

SET_UP: Final = "run 'chapps-cli admin db-setup'"

# PostgreSQL: undefined table, undefined column. MariaDB: no such table, unknown column.
_MISSING: Final = frozenset(("42P01", "42703", 1146, 1054))
# MariaDB: no common collation for a name and its column, which may have another character set.
_COLLATIONS: Final = frozenset((1267, 1270, 1271))
# SQLite has no error code for these.
_MISSING_SQLITE: Final = re.compile("no such (table|column)")


def code(error: DBAPIError) -> str | int:
    """Return the error code of the driver: SQLSTATE, MariaDB's number, or SQLite's name."""
    cause = error.orig
    number = cause.args[0] if cause is not None and cause.args else ""
    if isinstance(number, int):
        return number
    return str(getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", ""))


def is_of_a_value(error: DBAPIError) -> bool:
    """Return whether a value caused an error, so that a query without it succeeds."""
    return isinstance(error, DataError) or code(error) in _COLLATIONS


def reason(error: BaseException) -> str:
    """Return the cause of an error in one line of limited length, with the remedy if known."""
    if isinstance(error, TimeoutError):
        return "all connections are in use"
    cause = error.orig if isinstance(error, DBAPIError) else error
    # PyMySQL puts a number before the text.
    text = str(cause.args[-1] if cause is not None and cause.args else cause).strip()
    line = (text.splitlines() or [type(error).__name__])[0][:200]
    if isinstance(error, OSError) and isinstance(error.filename, str):
        line = f"{error.filename}: {line}"
    # The database answers, but one of our tables or columns is missing.
    missing = isinstance(error, DBAPIError) and (code(error) in _MISSING or _MISSING_SQLITE.match(line))
    return f"{line}: {SET_UP}" if missing else line


def clear_tracebacks(error: BaseException | None) -> None:
    """Clear the tracebacks of an error if only its text is needed.

    They are part of reference cycles: up to half a megabyte for each connection that PyMySQL failed to open, which
    only the garbage collector frees, and that runs rarely here.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
