"""What every SQLite file of this program needs: to be private, and to have a write-ahead log."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path

# Seconds that another process may take to do the same to a new file.
_STEP, _STEPS = 0.02, 100


def create(path: str | Path) -> None:
    """Make a file (mode 0600) and its directory (mode 0700) when they are not there.

    SQLite gives its ``-wal`` and ``-shm`` files the mode of the main one.

    :raises OSError: when that cannot be done, or the file that is there may not be read and written.
    """
    Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Looked at, not opened: closing it would end the locks that another connection of this process
        # holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
        usable = os.access(path, os.R_OK | os.W_OK)
        problem = errno.EISDIR if os.path.isdir(path) else 0 if usable else errno.EACCES
        if problem:
            raise OSError(problem, os.strerror(problem), str(path)) from None


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
