"""Errors that mean that a part of the file is damaged."""

from __future__ import annotations

import sqlite3

# Errors that mean damage: a page is malformed, or cannot be read from the disk.
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_UNREADABLE = frozenset((sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS))


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error means that a part of the file is damaged."""
    number = error.sqlite_errorcode
    return number & 0xFF in _DAMAGE or number in _UNREADABLE


def describe(path: str, error: sqlite3.Error) -> str:
    """Return one sentence with the remedy."""
    return (
        f"The live state in {path} is damaged ({error}): questions that need the damaged part fail, all others are "
        "answered. Look at the disk; then stop the service and move the file away to begin anew, or mend it with the "
        ".recover of the sqlite3 command."
    )
