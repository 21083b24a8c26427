"""The messages of accounts in the file: a row for each chunk, the messages with neighbouring numbers."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Sequence
from typing import Final

from chapps_tw.state.sqlite.columns import PARTS, Columns, Row, pack
from chapps_tw.state.sqlite.encoding import Damaged, seal, unseal

SIZE: Final = 256
"""Message numbers of a chunk: the first begins at 0."""

_WRITE = "INSERT OR REPLACE INTO chunk (account, chunk, last, keep, data) VALUES (?, ?, ?, ?, ?)"


def encode(columns: Columns) -> bytes:
    """Return a chunk for the file."""
    return seal(pack("q", [columns.first]), *columns.parts())


def decode(data: object, chunk: int) -> Columns:
    """Return a chunk that was encoded.

    :raises Damaged: if it is not this chunk.
    """
    first, *parts = unseal(data, 1 + PARTS)
    columns = Columns.of_parts(int.from_bytes(first, sys.byteorder, signed=True), parts)
    if not columns.times or columns.first // SIZE != chunk or (columns.end - 1) // SIZE != chunk:
        raise Damaged("a chunk has messages of another one")
    return columns


def read(db: sqlite3.Cursor, account: bytes) -> list[tuple[Columns, float]]:
    """Return the chunks of an account in order, and for how many seconds each has to be kept.

    :raises sqlite3.DatabaseError: if one is damaged.
    """
    rows = db.execute("SELECT chunk, keep, data FROM chunk WHERE account = ? ORDER BY chunk", (account,))
    return [(decode(data, chunk), keep) for chunk, keep, data in rows]


def merge(db: sqlite3.Cursor, account: bytes, keep: float, changes: Sequence[Row]) -> None:
    """Put changed messages of one chunk into it, and remove from it what has left all windows.

    :param keep: for how many seconds they have to be kept.
    :param changes: in order of their numbers.
    :raises sqlite3.DatabaseError: if the chunk is damaged.
    """
    chunk = changes[0][0] // SIZE
    found = db.execute("SELECT data FROM chunk WHERE account = ? AND chunk = ?", (account, chunk)).fetchone()
    columns = decode(found[0], chunk) if found else Columns(changes[0][0])
    columns.update(changes)
    last = columns.times[-1]
    columns.drop_until(last - keep)
    db.execute(_WRITE, (account, chunk, last, keep, encode(columns)))


def widen(db: sqlite3.Cursor, account: bytes, keep: float) -> None:
    """Have all chunks of an account kept for longer."""
    db.execute("UPDATE chunk SET keep = ? WHERE account = ? AND keep < ?", (keep, account, keep))


def delete(db: sqlite3.Cursor, account: bytes) -> None:
    """Delete all chunks of an account."""
    db.execute("DELETE FROM chunk WHERE account = ?", (account,))
