"""The rows of the journal in the file."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Sequence
from itertools import accumulate, chain, islice, pairwise
from typing import Any, TypeAlias

from chapps_tw.state.sqlite.columns import SEPARATOR, Row
from chapps_tw.state.sqlite.damage import is_damage
from chapps_tw.state.sqlite.encoding import Damaged, seal, unseal
from chapps_tw.state.sqlite.schema import JOURNAL

# Bytes of the key of an account; the columns of no messages.
_DIGEST = 16
_NOTHING: tuple[tuple[Any, ...], ...] = ((),) * 6


Change: TypeAlias = tuple[bytes, float, Sequence[Row]]
"""Changes of an account: its key; for how many seconds messages have to be kept, negative if everything before is
deleted; the changed messages."""

StoredRow: TypeAlias = tuple[int, int, Sequence[Change]]
"""A row: its number, its bytes, and what it says."""


def insert(db: sqlite3.Cursor, number: int, changes: Sequence[Change]) -> int:
    """Write a row; return its bytes."""
    data = encode(changes)
    db.execute("INSERT INTO journal (number, changes) VALUES (?, ?)", (number, data))
    return len(data)


def replace(db: sqlite3.Cursor, number: int) -> None:
    """Begin a new table. A damaged page of the old one is not touched: then nothing could be committed."""
    db.execute(f"ALTER TABLE journal RENAME TO damaged_journal_{number}")
    db.execute(JOURNAL)


def read(db: sqlite3.Cursor) -> tuple[list[StoredRow], sqlite3.DatabaseError | None]:
    """Return the rows that can be read, in order, and an error if others cannot."""
    found, damage = _select(db, "ORDER BY number")
    if damage:
        # From the other end, and then those in between one by one.
        found |= _select(db, "ORDER BY number DESC")[0]
        for number in set(range(min(found, default=0), max(found, default=0))) - found.keys():
            found |= _select(db, f"WHERE number = {number}")[0]
    rows: list[StoredRow] = []
    for number, data in sorted(found.items()):
        try:
            rows.append((number, len(data), decode(data)))
        except Damaged as error:
            damage = error
    return rows, damage


def _select(db: sqlite3.Cursor, which: str) -> tuple[dict[int, bytes], sqlite3.DatabaseError | None]:
    """Return rows up to the first that cannot be read, and the error there."""
    found: dict[int, bytes] = {}
    try:
        for number, data in db.execute(f"SELECT number, changes FROM journal {which}"):
            found[number] = data
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise
        return found, error
    return found, None


def encode(changes: Sequence[Change]) -> bytes:
    """Return changes for a row. Few parts, because most rows have few messages."""
    accounts, keeps, each = zip(*changes, strict=True)
    rows = list(chain.from_iterable(each))
    numbers, instances, times, costs, seen, settle = zip(*rows, strict=True) if rows else _NOTHING
    return seal(
        b"".join(accounts),
        array("d", (*keeps, *times, *settle)).tobytes(),
        array("q", (*map(len, each), *numbers, *costs, *map(len, seen))).tobytes(),
        SEPARATOR.join(instances),
        b"".join(seen),
    )


def decode(data: object) -> list[Change]:
    """Return the changes of a row. Raises :class:`Damaged`."""
    keys, floats, integers, instances, seen = unseal(data, 5)
    accounts = [keys[start : start + _DIGEST] for start in range(0, len(keys), _DIGEST)]
    try:
        keeps, times, settle = _split(array("d", floats), len(accounts), 2)
        counts, numbers, costs, lengths = _split(array("q", integers), len(accounts), 3)
        marks = [seen[begin:end] for begin, end in pairwise(accumulate(lengths, initial=0))]
        names = instances.split(SEPARATOR) if numbers else []
        rows = iter(list(zip(numbers, names, times, costs, marks, settle, strict=True)))
        return [(key, keep, list(islice(rows, n))) for key, keep, n in zip(accounts, keeps, counts, strict=True)]
    except ValueError as error:
        raise Damaged(f"the parts of a row do not fit together: {error}") from error


def _split(values: array[Any], first: int, others: int) -> list[array[Any]]:
    """Return the first values, and the others in so many equal parts."""
    size = (len(values) - first) // others
    return [values[:first], *(values[first + size * part :][:size] for part in range(others))]
