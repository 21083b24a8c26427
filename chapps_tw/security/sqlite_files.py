"""Creates SQLite files: private, and with a write-ahead log."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from pathlib import Path
from typing import Final

from chapps_tw.security import private_files

# Retries while another process initializes the same new file: interval in seconds, and number.
_INTERVAL, _RETRIES = 0.02, 100


def create(path: str | Path) -> None:
    """Create a file (mode 0600) and its directory (mode 0700) if they are missing.

    SQLite gives its ``-wal`` and ``-shm`` files the mode of the database file, and, as root, its owner.

    :raises OSError: if that fails, or an existing file is not readable and writable. Names the file.
    """
    private_files.make_directory(Path(path).parent)
    try:
        os.close(private_files.create(path, os.O_RDWR))
    except FileExistsError:
        # Do not open the file: closing it would release the locks that another connection of this process
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
    """Set the journal mode to WAL. Retries while the file is locked: the busy timeout does not apply here.

    :raises sqlite3.Error: if it cannot be set.
    """
    for _ in range(_RETRIES):
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise
            time.sleep(_INTERVAL)
    db.execute("PRAGMA journal_mode = WAL")


# Beside a database in use: its write-ahead log, and what its connections share.
_BESIDE: Final = ("-wal", "-shm")

_Identity = tuple[int, int] | None


class OpenedFile:
    """A database that is open, to notice that its file is removed or replaced by another one.

    SQLite itself would go on with the former file, and whoever opened the new one would apply the log of the former to
    it (https://www.sqlite.org/howtocorrupt.html, 1.4). That log is all that has to be removed.

    :param path: of the file, which has just been opened.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = _identity(path)
        self._beside = {each: _identity(each) for each in (path + suffix for suffix in _BESIDE)}

    @property
    def is_there(self) -> bool:
        """Whether the path still leads to it."""
        return _identity(self._path) == self._file

    def remove_log(self) -> None:
        """Remove its log, once. The path leads to another file, or to none."""
        beside, self._beside = self._beside, {}
        for path, was in beside.items():
            if was is not None and _identity(path) == was:
                os.unlink(path)


def _identity(path: str) -> _Identity:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
