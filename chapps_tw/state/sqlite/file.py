"""Opening the SQLite file of the live state."""

from __future__ import annotations

import sqlite3

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.security import sqlite_files
from chapps_tw.security.private_files import explain
from chapps_tw.state.sqlite.schema import SCHEMA, VERSION, run, upgrade

MEMORY = ":memory:"

# "CHTW": identifies this file among other SQLite files.
_APPLICATION = 0x43485457
# Small pages: a commit writes every changed page, and the rows of most users are on different pages.
PAGE = 2048
# Size in bytes to which the WAL is truncated when it is restarted.
_WAL_SIZE_LIMIT = 8 * 2**20
# Milliseconds to wait for locks of other processes. This blocks the reactor.
_BUSY_TIMEOUT = 200
# The same while tables are created or upgraded, which happens once per version.
_SETUP_BUSY_TIMEOUT = 5000


class StateTooNew(StateUnavailable):
    """The file was written by a later version."""


def unavailable(path: str, error: sqlite3.Error) -> StateUnavailable:
    """Return the exception to raise for an error of SQLite."""
    return StateUnavailable(f"The live state in {path} cannot be used: {error}.")


def open_file(path: str) -> sqlite3.Connection:
    """Open the file. Creates it (mode 0600) and its directory (mode 0700) if they do not exist.

    :raises StateTooNew: if a later version wrote the file.
    :raises StateUnavailable: if it cannot be opened, or is not a live state.
    """
    try:
        if path != MEMORY:
            sqlite_files.create(path)
        db = connect(path, _BUSY_TIMEOUT)
    except OSError as error:
        raise StateUnavailable(f"The live state in {path} cannot be opened: {explain(path, error)}.") from error
    except sqlite3.Error as error:
        raise unavailable(path, error) from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise unavailable(path, error) from error
    except StateUnavailable:
        db.close()
        raise
    return db


def connect(path: str, busy_timeout: int) -> sqlite3.Connection:
    """Return a plain connection. ``busy_timeout`` is in milliseconds."""
    # Transactions begin explicitly; close() may be called from another thread than the reactor's.
    return sqlite3.connect(path, busy_timeout / 1000, isolation_level=None, check_same_thread=False)


def _prepare(db: sqlite3.Connection, path: str) -> None:
    found = _check(db, path)
    # Before WAL mode, in which the page size cannot be changed.
    db.execute(f"PRAGMA page_size = {PAGE}")
    sqlite_files.write_ahead(db)
    # A long WAL is truncated to this size, not to zero: overwriting is faster than extending.
    wal_size_limit = f"journal_size_limit = {_WAL_SIZE_LIMIT}"
    for pragma in ("synchronous = NORMAL", "wal_autocheckpoint = 0", "cache_size = -32000", wal_size_limit):
        db.execute(f"PRAGMA {pragma}").fetchall()
    if found < VERSION:
        _make_tables(db, path)


def _make_tables(db: sqlite3.Connection, path: str) -> None:
    db.execute(f"PRAGMA busy_timeout = {_SETUP_BUSY_TIMEOUT}").fetchall()
    db.execute("BEGIN IMMEDIATE")
    # Check again under the lock: another process may have created them meanwhile.
    found = _check(db, path)
    if not found:
        run(db, SCHEMA)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
    else:
        upgrade(db, found)
    db.execute(f"PRAGMA user_version = {VERSION}")
    db.execute("COMMIT")
    db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}").fetchall()


def _check(db: sqlite3.Connection, path: str) -> int:
    """Return the version of the tables, 0 if there are none."""
    if not db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise StateUnavailable(f"{path} is a database of another program: the live state needs its own file.")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > VERSION:
        raise StateTooNew(
            f"The live state in {path} has version {version}; this program supports version {VERSION}. "
            "Run the program that wrote it, or move the file away to start with an empty state."
        )
    return version
