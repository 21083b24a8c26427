"""The history in an SQLite file.

It consists of parts, each a table with decisions of at most a day or so. Only the newest part is written, and has no
indexes; they are made when it is full. So writing takes the same time however large the history is, and old decisions
are removed by dropping a table. With one indexed table, each row would change nine pages at random places.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.schema import CreateIndex, CreateTable

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database.engine import WRITES, make_engine
from chapps_tw.history.conditions import Conditions
from chapps_tw.history.rows import COLUMNS, Row
from chapps_tw.history.store import TABLE, Bounds, Span, StoreUnusable
from chapps_tw.history.table import INDEXED, id_at, index_name, make_table
from chapps_tw.security import sqlite_files

# Rows of a part: it is searched without indexes in a tenth of a second, and an index is made in as much.
PART_ROWS: Final = 100_000
# Old decisions are removed by parts, so a part spans at most this share of the time that they are kept.
_SHARE: Final = 30
# Of the writer, and of two searches.
_CONNECTIONS: Final = 3
# Memory of a connection in KiB. An index of a part is sorted within it.
_CACHE: Final = 8_000

# "CHHI": identifies this file among other SQLite files.
_APPLICATION: Final = 0x43484849
_VERSION: Final = 1

_NAME: Final = re.compile(r"history_(\d+)")
_HISTORY: Final = re.compile(r"\bhistory\b")
_VALUES: Final = f"({', '.join('?' * len(COLUMNS))})"
# Rows of a statement. SQLite runs without the lock of the interpreter, and taking that back for each row would stop
# the reactor as often. Many at once would keep it from the reactor.
_INSERTED: Final = 20


class FileStore:
    """The history in a file of its own (:class:`~chapps_tw.history.store.Store`). One thread may write.

    :param path: of the file. It is created, readable by its owner only.
    :raises OSError: if it cannot be created.
    """

    def __init__(self, path: str, bounds: Bounds, part_rows: int = PART_ROWS) -> None:
        self._path = path
        self.bounds = bounds
        self._part_rows = part_rows
        self._engine = make_engine(PolicyConfigAdapter(db_name=os.path.abspath(path), pool_size=_CONNECTIONS), "", "")
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "before_cursor_execute", _use_table, retval=True)
        # The part to write to, and its rows. Empty before the first write, and after a failure.
        self._current = ""
        self._rows = 0
        # Lowest and highest ids of parts that do not change any more.
        self._ranges: dict[str, tuple[int, int]] = {}

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows in one transaction.

        :raises sqlalchemy.exc.IntegrityError: if an id is in use.
        """
        with self._writing() as connection:
            if self._rows >= self._part_rows:
                self._begin_part(connection)
            left, written = iter(rows), 0
            while some := list(islice(left, _INSERTED)):
                insert = f"INSERT INTO {self._current} VALUES {', '.join([_VALUES] * len(some))}"
                connection.exec_driver_sql(insert, tuple(chain.from_iterable(some)))
                written += len(some)
        self._rows += written

    def has(self, row: Row) -> bool:
        """Return whether it has a row: always false, since the outcome of a transaction is known here."""
        return False

    def maintain(self, now: float) -> bool:
        """Begin a part, make an index, or remove the oldest part. Return whether more may be due."""
        with self._writing() as connection:
            parts = _parts(connection)
            oldest = self._range(connection, parts[-1], changes=True)
            if oldest and oldest[0] < id_at(now - self.bounds.keep / _SHARE):
                self._begin_part(connection)
                return True
            return self._index(connection, parts[:-1]) or self._remove(connection, parts[:-1], now)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a transaction for a search."""
        with self._engine.connect() as connection:
            yield connection

    def spans(self, connection: Connection, conditions: Conditions, low: int, high: int) -> Iterator[Span]:
        """Yield the parts, newest first. If the clock was set back, their ids may overlap."""
        parts = _parts(connection)
        found = [(name, self._range(connection, name, changes=name == parts[-1])) for name in parts]
        ranges = sorted((ids[1], ids[0], name) for name, ids in found if ids)
        for last, first, name in reversed(ranges):
            if last >= low and first < high:
                yield Span(name, max(low, first), min(high, last + 1))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        if not os.path.exists(self._path):
            self._current = ""
            sqlite_files.create(self._path)
        try:
            with self._engine.connect().execution_options(**{WRITES: True}) as connection, connection.begin():
                if not self._current:
                    self._load(connection)
                yield connection
        except BaseException:
            self._current = ""
            raise

    def _load(self, connection: Connection) -> None:
        """Find the part to write to. In a new file, create one."""
        _require_own(connection, self._path)
        self._ranges.clear()
        parts = _parts(connection)
        if parts:
            self._current = parts[-1]
            self._rows = connection.exec_driver_sql(f"SELECT count(*) FROM {parts[-1]}").scalar_one()
        else:
            connection.exec_driver_sql(f"PRAGMA application_id = {_APPLICATION}")
            connection.exec_driver_sql(f"PRAGMA user_version = {_VERSION}")
            self._begin_part(connection)

    def _begin_part(self, connection: Connection) -> None:
        parts = _parts(connection)
        name = f"history_{_number(parts[-1]) + 1 if parts else 1}"
        connection.execute(CreateTable(make_table(name, in_file=True)))
        self._current, self._rows = name, 0

    def _index(self, connection: Connection, parts: Sequence[str]) -> bool:
        """Make an index that a part lacks; return whether there was one."""
        made = set(connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'index'")))
        for name in reversed(parts):
            if missing := {index_name(name, first) for first in INDEXED} - made:
                indexes = make_table(name, in_file=True).indexes
                connection.execute(CreateIndex(next(each for each in indexes if each.name in missing)))
                return True
        return False

    def _remove(self, connection: Connection, parts: Sequence[str], now: float) -> bool:
        """Drop the oldest part if it is to be removed; return whether it was."""
        if not parts:
            return False
        ids = self._range(connection, parts[0], changes=False)
        is_old = ids is None or ids[1] < id_at(now - self.bounds.keep)
        if not is_old and _size(connection) <= self.bounds.max_bytes:
            return False
        connection.exec_driver_sql(f"DROP TABLE {parts[0]}")
        self._ranges.pop(parts[0], None)
        return True

    def _range(self, connection: Connection, name: str, *, changes: bool) -> tuple[int, int] | None:
        """Return the lowest and the highest id of a part, ``None`` if it has no rows."""
        if changes:
            return _read_range(connection, name)
        found = self._ranges.get(name) or _read_range(connection, name)
        if found:
            self._ranges[name] = found
        return found


def _read_range(connection: Connection, name: str) -> tuple[int, int] | None:
    # Each subquery reads one row.
    ends = f"SELECT (SELECT min(id) FROM {name}), (SELECT max(id) FROM {name})"
    first, last = connection.exec_driver_sql(ends).one()
    return None if first is None else (first, last)


def _set_up(connection: Any, _entry: object) -> None:
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")


def _use_table(
    _connection: Any, _cursor: Any, statement: str, parameters: Any, context: Any, _many: bool
) -> tuple[str, Any]:
    """Replace the table of a statement. So SQLAlchemy compiles it once for all parts."""
    name = context.execution_options.get(TABLE) if context else None
    return (_HISTORY.sub(name, statement) if name else statement), parameters


def _number(name: str) -> int:
    return int(name.partition("_")[2])


def _parts(connection: Connection) -> list[str]:
    """Return the names of the parts, oldest first."""
    tables = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'"))
    return sorted(filter(_NAME.fullmatch, tables), key=_number)


def _size(connection: Connection) -> int:
    """Return the size of what is stored, in bytes."""
    pages, free, size = (
        connection.exec_driver_sql(f"PRAGMA {each}").scalar_one()
        for each in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


def _require_own(connection: Connection, path: str) -> None:
    """Check that a file is new, or a history that this version can write.

    :raises StoreUnusable: if not.
    """
    if not connection.scalar(text("SELECT count(*) FROM sqlite_master")):
        return
    if connection.exec_driver_sql("PRAGMA application_id").scalar_one() != _APPLICATION:
        raise StoreUnusable(f"{path} is a database of another program; move it away")
    if connection.exec_driver_sql("PRAGMA user_version").scalar_one() > _VERSION:
        raise StoreUnusable(f"{path} was written by a later version; move it away to begin a new history")
