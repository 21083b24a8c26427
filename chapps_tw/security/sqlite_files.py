"""What every SQLite file of this program needs: to be private, and to have a write-ahead log."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

from chapps_tw.security import private_files

# Seconds that another process may take to do the same to a new file.
_STEP, _STEPS = 0.02, 100


def create(path: str | Path) -> None:
    """Make a file (mode 0600) and its directory (mode 0700) when they are not there.

    SQLite gives its ``-wal`` and ``-shm`` files the mode of the main one, and its owner where root makes them.

    :raises OSError: when that cannot be done, or what is there may not be read and written. Names what it is.
    """
    private_files.make_directory(Path(path).parent)
    try:
        os.close(private_files.create(path, os.O_RDWR))
    except FileExistsError:
        # Looked at, not opened: closing it would end the locks that another connection of this process
        # holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
        if os.path.isdir(path):
            raise _error(errno.EISDIR, path) from None
    for each in (path, f"{path}-wal", f"{path}-shm"):
        if os.path.lexists(each) and not os.access(each, os.R_OK | os.W_OK):
            raise _error(errno.EACCES, each)
    if not os.access(Path(path).parent, os.W_OK | os.X_OK):
        raise _error(errno.EACCES, Path(path).parent)


def _error(number: int, path: str | Path) -> OSError:
    return OSError(number, os.strerror(number), str(path))


def write_ahead(db: sqlite3.Connection) -> None:
    """Set the journal mode. SQLite does not wait for its turn there, so this does.

    :raises sqlite3.Error: when it cannot be set.
    """
    for _ in range(_STEPS):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            time.sleep(_STEP)
    db.execute("PRAGMA journal_mode = WAL")
