"""Drops of cached copies that are still to be done, kept where the changes are kept.

A change, and the rows that name the copies it makes wrong, are one transaction: neither is there without
the other, however the process ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from secrets import token_hex
from typing import Final

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import ProgrammingError

from chapps_tw.database.errors import reason
from chapps_tw.database.models import pending_drops
from chapps_tw.interfaces.book import BookUnavailable, Touched

# MariaDB's TEXT ends at 65,535.
ROW_BYTES: Final = 60_000

# Rows that are in memory at a time, and rows that one statement removes.
PAGE: Final = 16
REMOVED_AT_ONCE: Final = 500


def note(connection: Connection, touched: Touched) -> Touched:
    """Write down which copies a change makes wrong, in the change's own transaction.

    :returns: the same, with the keys of the rows. Nothing is written for a change that touches nothing.
    :raises BookUnavailable: when the schema is behind.
    """
    keys: list[str] = []
    texts = _texts(touched)
    # Made here, so that no database has to be asked for the keys of many rows.
    while rows := [{"id": token_hex(16), "copies": text} for text in islice(texts, PAGE)]:
        with _schema_needed():
            connection.execute(insert(pending_drops), rows)
        keys += [row["id"] for row in rows]
    return touched._replace(pending=tuple(keys))


def some(connection: Connection, after: str) -> list[Touched]:
    """A few of the rows there are, in the order of their keys, from one key on.

    :raises BookUnavailable: when the schema is behind.
    """
    query = select(pending_drops).where(pending_drops.c.id > after).order_by(pending_drops.c.id).limit(PAGE)
    with _schema_needed():
        return [_touched(key, copies) for key, copies in connection.execute(query)]


def remove(connection: Connection, keys: Sequence[str]) -> None:
    """Remove rows, whether or not somebody else has done so."""
    # In order, as any other node that removes the same.
    ordered = sorted(keys)
    for start in range(0, len(ordered), REMOVED_AT_ONCE):
        chunk = ordered[start : start + REMOVED_AT_ONCE]
        connection.execute(delete(pending_drops).where(pending_drops.c.id.in_(chunk)))


@contextmanager
def _schema_needed() -> Iterator[None]:
    """A table that is not there does not mean that the database is away."""
    try:
        yield
    except ProgrammingError as error:
        raise BookUnavailable(f"The table {pending_drops.name} cannot be used: {reason(error)}") from None


def _texts(touched: Touched) -> Iterator[str]:
    """The copies as lists in JSON, each small enough for one row."""
    copies = chain(
        (("limits", user) for user in touched.limits),
        (("senders", user, name) for user, name in touched.senders),
        (("flags", domain) for domain in touched.flags),
    )
    row: list[str] = []
    size = 0
    for copy in copies:
        text = json.dumps(copy, ensure_ascii=False)
        length = len(text.encode()) + 1
        if row and size + length > ROW_BYTES:
            yield f"[{','.join(row)}]"
            row, size = [], 0
        row.append(text)
        size += length
    if row:
        yield f"[{','.join(row)}]"


def _touched(key: str, text: str) -> Touched:
    copies = json.loads(text)
    return Touched(
        frozenset(name for kind, *names in copies if kind == "limits" for name in names),
        frozenset((names[0], names[1]) for kind, *names in copies if kind == "senders"),
        frozenset(name for kind, *names in copies if kind == "flags" for name in names),
        (key,),
    )
