"""Keeps the file small: removes expired rows, and checkpoints the WAL."""

from __future__ import annotations

import os
import sqlite3
from typing import Any, NamedTuple

from chapps_tw.state.sqlite.file import PAGE, connect
from chapps_tw.state.sqlite.values import GRACE

# Rows per step of a scan: well under a millisecond.
_STEP = 300
# How often a checkpoint is repeated while the WAL grows, and how many bytes may remain.
_ROUNDS, _REMAINDER = 5, 2**20
# Size of the WAL in bytes above which it is checkpointed soon. With what is added meanwhile it stays below 64 MiB.
LONG_WAL = 16 * 2**20


class _Walk(NamedTuple):
    """How one table is walked: in the order of its key, from where the last step ended.

    :ivar start: sorts before every key.
    :ivar select: the next rows: the key's columns, when the row expires, and what else is needed.
    :ivar changes: done for each expired row, with the numbers of the columns that they take.
    """

    start: tuple[Any, ...]
    select: str
    changes: tuple[tuple[str, tuple[int, ...]], ...]


_WALKS = (
    _Walk(
        (b"", -1),
        """
            SELECT account, chunk, last + keep FROM chunk WHERE (account, chunk) > (?, ?)
            ORDER BY account, chunk LIMIT ?""",
        (("DELETE FROM chunk WHERE account = ? AND chunk = ?", (0, 1)),),
    ),
    _Walk(
        (b"", b""),
        """
            SELECT account, recipient, at + keep FROM recipient WHERE (account, recipient) > (?, ?)
            ORDER BY account, recipient LIMIT ?""",
        (("DELETE FROM recipient WHERE account = ? AND recipient = ?", (0, 1)),),
    ),
    _Walk(
        (b"",),
        f"SELECT name, fresh + {GRACE}, dropped FROM value WHERE name > ? ORDER BY name LIMIT ?",
        (
            ("UPDATE meta SET floor = MAX(floor, ?)", (2,)),
            ("DELETE FROM value WHERE name = ?", (0,)),
        ),
    ),
    _Walk(
        (-(2**63),),
        "SELECT tuple, until FROM meeting WHERE tuple > ? ORDER BY tuple LIMIT ?",
        (("DELETE FROM meeting WHERE tuple = ?", (0,)),),
    ),
    _Walk(
        (b"",),
        "SELECT client, MAX(until) FROM tally WHERE client > ? GROUP BY client ORDER BY client LIMIT ?",
        (("DELETE FROM tally WHERE client = ?", (0,)),),
    ),
    _Walk(
        (b"", b""),
        "SELECT space, name, until FROM once WHERE (space, name) > (?, ?) ORDER BY space, name LIMIT ?",
        (("DELETE FROM once WHERE space = ? AND name = ?", (0, 1)),),
    ),
)


class Cleaner:
    """Scans all tables step by step, and removes expired rows.

    In the order of the keys, not of the expiry times: neighbours are on the same page, and the hot path has no index
    to maintain.
    """

    tables = range(len(_WALKS))

    def __init__(self) -> None:
        self._places = [walk.start for walk in _WALKS]

    def step(self, db: sqlite3.Cursor, now: float, number: int) -> int:
        """Clean the next rows of one table; return the number of expired rows."""
        walk = _WALKS[number]
        width = len(walk.start)
        place = self._places[number]
        # If a row cannot be read, the next step starts over, so that at least the rows before it are cleaned.
        self._places[number] = walk.start
        rows = db.execute(walk.select, (*place, _STEP)).fetchall()
        self._places[number] = rows[-1][:width] if len(rows) == _STEP else walk.start
        expired = [row for row in rows if row[width] <= now]
        for statement, columns in walk.changes:
            db.executemany(statement, [[row[column] for column in columns] for row in expired])
        return len(expired)


def is_long(path: str) -> bool:
    """Return whether the WAL of a file should be checkpointed soon."""
    try:
        return os.stat(f"{path}-wal").st_size > LONG_WAL
    except OSError:
        return False


def checkpoint(path: str) -> int:
    """Checkpoint the WAL. Blocks; call it in a thread.

    :returns: the size of the WAL in bytes, including frames that were checkpointed before.
    :raises sqlite3.Error: if the file cannot be used.
    """
    db = connect(path, 0)
    try:
        for _ in range(_ROUNDS):
            # PASSIVE blocks no reader or writer.
            _, length, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if (length - moved) * PAGE <= _REMAINDER or length * PAGE > 2 * LONG_WAL:
                break
        return int(length) * PAGE
    finally:
        db.close()
