"""Where the history is stored: what a search and the writer need of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Final, NamedTuple, Protocol

from sqlalchemy import Connection

from chapps_tw.history.conditions import Conditions
from chapps_tw.history.rows import Row

# The most rows of a transaction: when writing, and when removing old ones from a database server.
BATCH: Final = 1000


# An execution option of statements: name of the table to use instead of ``history``.
TABLE: Final = "chapps_history_table"


class StoreUnusable(OSError):
    """What is stored belongs to a later version, or to another program. The message says so."""


class Span(NamedTuple):
    """A range of ids that one query can search in a fraction of a second.

    :ivar table: name of the table that has them.
    :ivar low, high: from ``low`` until before ``high``.
    :ivar few: whether the rows that match are few, so that all are sorted. Otherwise the planner of the database might
        walk through the table in the order of the ids, expecting to meet them soon.
    """

    table: str
    low: int
    high: int
    few: bool = False


class Bounds(NamedTuple):
    """What is removed.

    :ivar keep: rows that are older, in seconds.
    :ivar max_bytes: the oldest rows, while the history is larger.
    """

    keep: float
    max_bytes: int


class Store(Protocol):
    """The stored history. All methods block, and raise ``SQLAlchemyError`` or ``OSError`` if it is unavailable.

    :ivar bounds: what is removed; may be replaced at any time.
    """

    bounds: Bounds

    def write(self, rows: Iterable[Row]) -> None:
        """Add rows, at most :data:`BATCH`, in one transaction. Each is added, or sent, when the iterable yields it.

        :raises sqlalchemy.exc.IntegrityError: if an id is in use.
        """

    def has(self, row: Row) -> bool:
        """Return whether it has a row: an earlier transaction with an unknown outcome was committed."""

    def maintain(self, now: float) -> bool:
        """Do a small part of what is due, such as removing old rows. Return whether more is due.

        :param now: epoch seconds.
        """

    def reading(self) -> AbstractContextManager[Connection]:
        """Return a transaction for a search."""

    def spans(self, connection: Connection, conditions: Conditions, low: int, high: int) -> Iterator[Span]:
        """Yield the spans to search, newest first. Statements get the table by the option :data:`TABLE`.

        :param low, high: ids: from ``low`` until before ``high``.
        """

    def close(self) -> None:
        """Close all connections."""
