"""The history part: its store, the thread that writes it, and searches."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from twisted.internet.threads import deferToThread

from chapps_tw.application import gauges
from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import opening
from chapps_tw.config.settings import History as Options
from chapps_tw.config.settings import Settings
from chapps_tw.database.engine import make_engine
from chapps_tw.database.threads import Threads
from chapps_tw.history.files import FileStore
from chapps_tw.history.reader import SEARCHES, Reader
from chapps_tw.history.servers import ServerStore
from chapps_tw.history.store import Bounds, Store
from chapps_tw.history.writer import Writer
from chapps_tw.observe.metrics import Metrics

# Seconds that a stop waits for the last decisions to be written.
STOP_SECONDS = 2.0


class History(Part):
    """Keeps decisions, and searches them.

    :ivar records: whether decisions are kept; those of before are found in any case.
    :ivar writer: takes the entries of decisions.
    :ivar reader: for the HTTP API.
    :param book: the engine of the policy book. The history is beside the book, with connections of its own.
    :raises StartError: if the file of the history cannot be created.
    """

    def __init__(self, settings: Settings, reactor: Any, metrics: Metrics, book: Engine) -> None:
        self._store = store = _make_store(settings, book)
        self._threads = Threads(reactor, SEARCHES)
        self.writer = Writer(store, settings.node, False, time.time)
        self._use(settings.history)
        self.reader = Reader(store, self._threads.run, reactor)
        gauges.show_history(metrics, self.writer)

    def prepare(self, settings: Settings) -> Callable[[], object]:
        return partial(self._use, settings.history)

    def _use(self, options: Options) -> None:
        self.records = options.record != "none"
        self.writer.refused_only = options.record == "refused"
        self._store.bounds = _bounds(options)

    def start(self) -> None:
        """Start the threads."""
        self._threads.start()
        self.writer.start()

    def stop(self) -> Awaitable[None]:
        """Write what waits, for a limited time, and stop the threads that do not hang."""
        self.writer.stop()
        return deferToThread(self._finish)

    def _finish(self) -> None:
        self.writer.join(STOP_SECONDS)
        self._threads.stop()


def _bounds(options: Options) -> Bounds:
    return Bounds(float(options.keep.seconds), options.max_size << 20)


def _make_store(settings: Settings, book: Engine) -> Store:
    bounds = _bounds(settings.history)
    if book.dialect.name != "sqlite":
        adapter = replace(settings.adapter, pool_size=1 + SEARCHES)
        return ServerStore(make_engine(adapter, settings.db_password, settings.chapps.data_dir), bounds)
    path = Path(str(book.url.database))
    file = str(path.with_name(f"{path.stem}-history{path.suffix}"))
    with opening(settings, "PolicyConfigAdapter", "db_url" if settings.adapter.db_url else "db_name", file):
        return FileStore(file, bounds)
