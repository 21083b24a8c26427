"""A history for tests, and decisions to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import reactor

from chapps_tw.history.files import PART_ROWS, FileStore
from chapps_tw.history.reader import Reader
from chapps_tw.history.rows import row_of
from chapps_tw.history.store import Bounds, Store
from chapps_tw.history.table import Ids
from chapps_tw.observe.decision_record import Record

DAY = 86400.0
BOUNDS = Bounds(30 * DAY, 1 << 30)
# A full hour.
MOMENT = 1_790_000_000.0 - 1_790_000_000.0 % 3600

_RECORD = Record(
    MOMENT, "outbound", "OutboundQuotaPolicy", "DUNNO", "within_quota", {"limit": 5, "used": 2}, "ann",
    "ann@example.com", "bob@example.net", "192.0.2.7", "1a2b.3c", "4F5D", "RCPT", "", "", "cache", "",
)  # fmt: skip
REFUSAL = {"action": "REJECT too much", "reason": "quota_exceeded"}


def record(**fields: Any) -> Record:
    """Return the record of a decision, with some fields changed."""
    return _RECORD._replace(**fields)


def keep(store: Store, records: Sequence[Record], node: str = "mx1", process: int = 1) -> None:
    """Write decisions, in the order of their times."""
    ids = Ids(process)
    store.write([row_of(ids.next(each.time), node, each) for each in records])


class History:
    """The history of a test in a file."""

    def __init__(self, directory: str, run: Callable[[Callable[[], Any]], Any], part_rows: int = PART_ROWS) -> None:
        self.store = FileStore(str(Path(directory, "history.sqlite3")), BOUNDS, part_rows)
        self.reader = Reader(self.store, run, reactor)

    def keep(self, *records: Record, node: str = "mx1") -> None:
        keep(self.store, records, node)

    def close(self) -> None:
        self.store.close()
