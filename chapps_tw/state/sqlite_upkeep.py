"""What keeps the file small: walking the tables for what has expired, and moving the log into the file."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from chapps_tw.state.sqlite_file import PAGE, connect
from chapps_tw.state.sqlite_verdicts import GRACE

# Rows looked at in one step of each walk: well under a millisecond.
_STEP = 300
# Bytes of log that are waited for before writers are held up for a moment to begin it anew.
_LONG_LOG = 64 * 2**20
# How long a checkpoint waits, milliseconds: for a writer, and for readers, which holds writers up as well.
_PATIENCE = 20


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
        "SELECT instance, run, until, cost FROM message WHERE (instance, run) > (?, ?) ORDER BY instance, run LIMIT ?",
        (
            ("UPDATE account SET used = used - ? WHERE run = ?", (3, 1)),
            ("DELETE FROM message WHERE instance = ? AND run = ?", (0, 1)),
        ),
    ),
    _Walk(
        (b"",),
        "SELECT name, until, dropped FROM account WHERE name > ? ORDER BY name LIMIT ?",
        (
            ("UPDATE meta SET floor = MAX(floor, ?)", (2,)),
            ("DELETE FROM account WHERE name = ?", (0,)),
        ),
    ),
    _Walk(
        (b"",),
        f"SELECT name, fresh + {GRACE}, dropped FROM verdict WHERE name > ? ORDER BY name LIMIT ?",
        (
            ("UPDATE meta SET floor = MAX(floor, ?)", (2,)),
            ("DELETE FROM verdict WHERE name = ?", (0,)),
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
    """Walks all tables a step at a time, and removes what has expired.

    In the order of the keys and not of the ends: neighbours lie on one page, and no index has to be
    kept for it on the hot path.
    """

    def __init__(self) -> None:
        self._places = [walk.start for walk in _WALKS]

    def step(self, db: sqlite3.Cursor, now: float) -> int:
        """Clean the next rows of each table; returns how many rows had expired."""
        return sum(self._step(db, now, number) for number in range(len(_WALKS)))

    def _step(self, db: sqlite3.Cursor, now: float, number: int) -> int:
        walk = _WALKS[number]
        width = len(walk.start)
        rows = db.execute(walk.select, (*self._places[number], _STEP)).fetchall()
        self._places[number] = rows[-1][:width] if len(rows) == _STEP else walk.start
        expired = [row for row in rows if row[width] <= now]
        for statement, columns in walk.changes:
            db.executemany(statement, [[row[column] for column in columns] for row in expired])
        return len(expired)


def checkpoint(path: str) -> None:
    """Move the log into the file. Blocks: for a thread.

    :raises sqlite3.Error: when the file cannot be used.
    """
    db = connect(path, _PATIENCE)
    try:
        # Holds nobody up, and does nearly all of the work.
        _, length, _ = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if length * PAGE > _LONG_LOG:
            # Written over from its beginning, not cut: making a file longer takes more time than writing over it.
            db.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
    finally:
        db.close()
