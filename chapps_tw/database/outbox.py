"""The invalidation outbox: stale keys, stored in the database until they are invalidated.

A change and its outbox rows are one transaction (the transactional outbox pattern): neither is stored without the
other, even if the process is killed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from secrets import token_hex
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import ProgrammingError

from chapps_tw.database.errors import reason
from chapps_tw.database.models import invalidation_outbox
from chapps_tw.interfaces.book import BookUnavailable, StaleKeys

# Less than the 65,535 bytes of a TEXT on MariaDB.
ROW_BYTES: Final = 60_000

# Rows per page in memory, and rows per DELETE.
PAGE: Final = 16
DELETE_BATCH: Final = 500


_FIELDS: Final = ("users", "flags", "quotas", "quota_names", "domains", "sender_domains")
# What older rows call it.
_RENAMED: Final = {"limits": "users"}


class OutboxRow(NamedTuple):
    """A row of the outbox. ``stale.unlisted`` is not stored."""

    id: str
    stale: StaleKeys


def append(connection: Connection, stale: StaleKeys) -> tuple[str, ...]:
    """Add stale keys to the outbox, in the transaction of the change.

    :returns: the ids of the rows; none if no keys are listed.
    :raises BookUnavailable: if the schema is out of date.
    """
    ids: list[str] = []
    texts = _texts(stale)
    # Ids are generated here, since not every database returns those of a multi-row INSERT.
    while rows := [{"id": token_hex(16), "stale_keys": text} for text in islice(texts, PAGE)]:
        with _schema_needed():
            connection.execute(insert(invalidation_outbox), rows)
        ids += [row["id"] for row in rows]
    return tuple(ids)


def read(connection: Connection, after: str) -> list[OutboxRow]:
    """Return a page of the rows with an id greater than ``after``, ordered by id.

    :raises BookUnavailable: if the schema is out of date.
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
    """Delete rows. Ids that do not exist are ignored."""
    # Sorted, so that two nodes that delete the same rows do not deadlock.
    ordered = sorted(ids)
    for start in range(0, len(ordered), DELETE_BATCH):
        chunk = ordered[start : start + DELETE_BATCH]
        connection.execute(delete(invalidation_outbox).where(invalidation_outbox.c.id.in_(chunk)))


@contextmanager
def _schema_needed() -> Iterator[None]:
    """Report a missing table without treating the database as unavailable."""
    try:
        yield
    except ProgrammingError as error:
        raise BookUnavailable(f"The table {invalidation_outbox.name} cannot be used: {reason(error)}") from None


def _texts(stale: StaleKeys) -> Iterator[str]:
    """Return the keys as JSON arrays, each small enough for one row."""
    keys = chain(
        ((field, key) for field in _FIELDS for key in getattr(stale, field)),
        (("senders", user, name) for user, name in stale.senders),
        [("exemptions",)] if stale.exemptions else [],
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
    found: defaultdict[str, set[Any]] = defaultdict(set)
    for kind, *key in json.loads(text):
        found[_RENAMED.get(kind, kind)].add(tuple(key) if len(key) > 1 else next(iter(key), True))
    listed = {field: frozenset(found[field]) for field in (*_FIELDS, "senders")}
    return StaleKeys(**listed, exemptions=bool(found["exemptions"]))
