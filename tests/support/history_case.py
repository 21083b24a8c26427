"""Stores of the history on each kind of database."""

from __future__ import annotations

import unittest
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from sqlalchemy import delete

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.history.counts import counts
from chapps_tw.history.files import FileStore
from chapps_tw.history.search import search
from chapps_tw.history.servers import ServerStore
from chapps_tw.history.store import Store
from chapps_tw.history.table import HISTORY
from chapps_tw.interfaces.history import Counts, GroupBy, KeptDecision, Page, Wanted
from chapps_tw.observe.decision_record import Record
from tests.support.book_case import OnMariaDB, OnPostgreSQL, patient_engine
from tests.support.history import BOUNDS, keep


class HistoryCase(unittest.TestCase):
    """A test with an empty :attr:`store`, whose spans have few rows."""

    store: Store

    def keep(self, *records: Record, node: str = "mx1", process: int = 1) -> None:
        keep(self.store, records, node, process)

    def search(self, before: int | None = None, limit: int = 100, **wanted: Any) -> Page:
        return search(self.store, Wanted(**wanted), before, limit, lambda: False)

    def found(self, limit: int = 100, **wanted: Any) -> list[str]:
        """Return the queue ids of what is found."""
        return [each.queue_id for each in self.search(limit=limit, **wanted).decisions]

    def everything(self) -> list[KeptDecision]:
        return list(self.search(limit=1000).decisions)

    def counts(self, by: GroupBy, limit: int = 100, **wanted: Any) -> Counts:
        return counts(self.store, Wanted(**wanted), by, limit, lambda: False)


class InFile(HistoryCase):
    """In an SQLite file, in parts of a few rows each."""

    part_rows = 3

    def setUp(self) -> None:
        self.directory = Path(self.enterContext(TemporaryDirectory(prefix="history-")))
        self.path = self.directory / "new" / "book-history.sqlite3"
        self.store: FileStore = self.open()

    def open(self) -> FileStore:
        store = FileStore(str(self.path), BOUNDS, self.part_rows)
        self.addCleanup(store.close)
        return store


class OnServer(HistoryCase):
    """On a database server. Mix in what makes a database."""

    adapter: ClassVar[PolicyConfigAdapter]
    span_rows = 5

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        raise NotImplementedError

    @classmethod
    def setUpClass(cls) -> None:
        cls.adapter = replace(cls.new_database(), pool_size=3)
        engine = patient_engine(cls.adapter)
        schema.upgrade(engine)
        engine.dispose()

    def setUp(self) -> None:
        self.engine = patient_engine(self.adapter)
        with self.engine.begin() as connection:
            connection.execute(delete(HISTORY))
        self.store = ServerStore(self.engine, BOUNDS, self.span_rows)
        self.addCleanup(self.store.close)


class InPostgreSQL(OnPostgreSQL, OnServer):
    pass


class InMariaDB(OnMariaDB, OnServer):
    pass
