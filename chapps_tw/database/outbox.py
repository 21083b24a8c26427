"""The invalidation outbox: which cached values are stale, kept in the database until they are invalidated.

A change and its outbox rows are one transaction (the transactional outbox pattern): neither is stored without the
other, however the process ends.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from secrets import token_hex
from typing import Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import ProgrammingError

from chapps_tw.database.errors import reason
from chapps_tw.database.models import invalidation_outbox
from chapps_tw.interfaces.book import BookUnavailable, StaleKeys

# MariaDB's TEXT ends at 65,535.
ROW_BYTES: Final = 60_000

# Rows that are in memory at a time, and rows that one statement deletes.
PAGE: Final = 16
DELETED_AT_ONCE: Final = 500


class OutboxRow(NamedTuple):
    """A row of the outbox. Its ``stale`` lists keys only: those of ``unlisted`` are not stored."""

    id: str
    stale: StaleKeys


def append(connection: Connection, stale: StaleKeys) -> tuple[str, ...]:
    """Add stale keys to the outbox, in the transaction of the change.

    :returns: the ids of the rows; none where no keys are listed.
    :raises BookUnavailable: when the schema is behind.
    """
    ids: list[str] = []
    texts = _texts(stale)
    # Ids are made here, so that no database has to be asked for those of many rows.
    while rows := [{"id": token_hex(16), "stale_keys": text} for text in islice(texts, PAGE)]:
        with _schema_needed():
            connection.execute(insert(invalidation_outbox), rows)
        ids += [row["id"] for row in rows]
    return tuple(ids)


def read(connection: Connection, after: str) -> list[OutboxRow]:
    """A page of the rows whose id is greater than ``after``, by id.

    :raises BookUnavailable: when the schema is behind.
    """
    query = (
        select(invalidation_outbox)
        .where(invalidation_outbox.c.id > after)
        .order_by(invalidation_outbox.c.id)
        .limit(PAGE)
    )
    with _schema_needed():
        return [OutboxRow(id, _stale_keys(text)) for id, text in connection.execute(query)]


def remove(connection: Connection, ids: Sequence[str]) -> None:
    """Delete rows that exist."""
    # Sorted, so that nodes that delete the same rows do not deadlock.
    ordered = sorted(ids)
    for start in range(0, len(ordered), DELETED_AT_ONCE):
        chunk = ordered[start : start + DELETED_AT_ONCE]
        connection.execute(delete(invalidation_outbox).where(invalidation_outbox.c.id.in_(chunk)))


@contextmanager
def _schema_needed() -> Iterator[None]:
    """A missing table does not mean that the database is unavailable."""
    try:
        yield
    except ProgrammingError as error:
        raise BookUnavailable(f"The table {invalidation_outbox.name} cannot be used: {reason(error)}") from None


def _texts(stale: StaleKeys) -> Iterator[str]:
    """The keys as lists in JSON, each small enough for one row."""
    keys = chain(
        (("limits", user) for user in stale.limits),
        (("senders", user, name) for user, name in stale.senders),
        (("flags", domain) for domain in stale.flags),
    )
    row: list[str] = []
    size = 0
    for key in keys:
        text = json.dumps(key, ensure_ascii=False)
        length = len(text.encode()) + 1
        if row and size + length > ROW_BYTES:
            yield f"[{','.join(row)}]"
            row, size = [], 0
        row.append(text)
        size += length
    if row:
        yield f"[{','.join(row)}]"


def _stale_keys(text: str) -> StaleKeys:
    keys = json.loads(text)
    return StaleKeys(
        frozenset(name for kind, *names in keys if kind == "limits" for name in names),
        frozenset((names[0], names[1]) for kind, *names in keys if kind == "senders"),
        frozenset(name for kind, *names in keys if kind == "flags" for name in names),
    )
