"""The history in a table of the book's database server, which all nodes share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, delete, func, insert, select
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from chapps_tw.database.engine import WRITES
from chapps_tw.history.conditions import Condition, Conditions
from chapps_tw.history.rows import COLUMNS, Row
from chapps_tw.history.store import BATCH, Bounds, Span
from chapps_tw.history.table import HISTORY, MAX_ID, id_at

# Rows that one query walks through at most. With an index, each takes longer.
SPAN_ROWS: Final = 50_000
_WITH_INDEX: Final = 5
# Rows of a network up to which all are sorted; the rows of larger ones are dense enough to be met by walking.
_NETWORK: Final = 20_000
# Estimated size of a row with its entries in the indexes, in bytes.
ROW_BYTES: Final = 1024
# Seconds between two comparisons with the maximum size.
_COMPARISON: Final = 600.0

_QUOTED: Final = [f'"{name}"' for name in COLUMNS]


class ServerStore:
    """The history on PostgreSQL or MariaDB (:class:`~chapps_tw.history.store.Store`).

    :param engine: with connections of its own, for a writer and two searches.
    """

    def __init__(self, engine: Engine, bounds: Bounds, span_rows: int = SPAN_ROWS) -> None:
        self._engine = engine
        self._span_rows = span_rows
        self.bounds = bounds
        self._compared = float("-inf")
        # Rows below this id exceed the maximum size.
        self._excess = 0

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows in one transaction.

        :raises sqlalchemy.exc.IntegrityError: if an id is in use.
        """
        with self._writing() as connection:
            if connection.dialect.name == "postgresql":
                _copy(connection, rows)
            else:
                connection.execute(insert(HISTORY), [dict(zip(COLUMNS, row, strict=True)) for row in rows])

    def has(self, row: Row) -> bool:
        """Return whether it has a row: an earlier transaction with an unknown outcome was committed."""
        found = dict(zip(COLUMNS, row, strict=True))
        with self.reading() as connection:
            query = select(HISTORY.c.node).where(HISTORY.c.id == found["id"], HISTORY.c.time == found["time"])
            return bool(connection.scalar(query) == found["node"])

    def maintain(self, now: float) -> bool:
        """Remove some rows that are old, or exceed the maximum size. Return whether there may be more."""
        # Also if the clock was set back.
        if not 0 <= now - self._compared < _COMPARISON:
            self._compared = now
            self._excess = self._find_excess()
        below = max(id_at(now - self.bounds.keep), self._excess)
        with self._writing() as connection:
            oldest = select(HISTORY.c.id).where(HISTORY.c.id < below).order_by(HISTORY.c.id).limit(BATCH)
            ids = connection.scalars(oldest).all()
            if ids:
                connection.execute(delete(HISTORY).where(HISTORY.c.id <= ids[-1]))
        return len(ids) == BATCH

    def _find_excess(self) -> int:
        """Return the id of the oldest row that does not exceed the maximum size, 0 if none does."""
        high = MAX_ID
        with self.reading() as connection:
            for _ in range(self.bounds.max_bytes // ROW_BYTES // self._span_rows):
                found = _nth(connection, (), 0, high, self._span_rows)
                if found is None:
                    return 0
                high = found
        return high

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a transaction for a search."""
        with self._engine.connect() as connection:
            yield connection

    def spans(self, connection: Connection, conditions: Conditions, low: int, high: int) -> Iterator[Span]:
        """Yield ranges with limited numbers of rows: of those that an index finds, or else of all."""
        if conditions.network is not None and _is_small(connection, conditions.network, low, high):
            yield Span(HISTORY.name, low, high, few=True)
            return
        size = self._span_rows // _WITH_INDEX if conditions.driver else self._span_rows
        while (found := _nth(connection, conditions.driver, low, high, size)) is not None:
            yield Span(HISTORY.name, found, high)
            high = found
        yield Span(HISTORY.name, low, high)

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
            yield connection


def _copy(connection: Connection, rows: Iterable[Row]) -> None:
    """Add rows by COPY, which takes a tenth of the processor time of INSERT here."""
    driver: Any = connection.connection.driver_connection
    errors: Any = connection.dialect.loaded_dbapi
    statement = f"COPY history ({', '.join(_QUOTED)}) FROM STDIN"
    try:
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)
    except errors.Error as error:
        kinds = {errors.IntegrityError: IntegrityError, errors.DataError: DataError}
        kind = next((ours for theirs, ours in kinds.items() if isinstance(error, theirs)), DBAPIError)
        raise kind(statement, None, error) from None


def _nth(connection: Connection, driver: Sequence[Condition], low: int, high: int, size: int) -> int | None:
    """Return the id of the row number ``size`` below ``high``, ``None`` if there are fewer."""
    ids = select(HISTORY.c.id).where(HISTORY.c.id >= low, HISTORY.c.id < high, *driver)
    return connection.scalar(ids.order_by(HISTORY.c.id.desc()).offset(size - 1).limit(1))


def _is_small(connection: Connection, network: Condition, low: int, high: int) -> bool:
    rows = select(HISTORY.c.id).where(network, HISTORY.c.id >= low, HISTORY.c.id < high).limit(_NETWORK + 1)
    return (connection.scalar(select(func.count()).select_from(rows.subquery())) or 0) <= _NETWORK
