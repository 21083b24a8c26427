"""Files for tests of the SQLite state, a reactor that is moved on by hand, and states on them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from chapps_tw.state.sqlite import chunks
from chapps_tw.state.sqlite.journal import Journal

START = 1_700_000_000.0


def temporary(test: SynchronousTestCase) -> str:
    """A path in a directory that goes away with a test."""
    directory = TemporaryDirectory(prefix="chapps-state-")
    test.addCleanup(directory.cleanup)
    return str(Path(directory.name, "state.sqlite3"))


def stored(db: sqlite3.Connection) -> set[tuple[bytes, int]]:
    """The messages that a file has: the keys of their accounts, and their numbers there."""
    cursor = db.cursor()
    journal = Journal()
    journal.read(cursor)
    every = {(account, number) for account, each in journal._unfolded.items() for number in each.rows}
    for (account,) in cursor.execute("SELECT DISTINCT account FROM chunk").fetchall():
        for columns, _ in chunks.read(cursor, account):
            every |= {(account, number) for number in range(columns.first, columns.end)}
    return every


@implementer(IReactorThreads)
class HandReactor(Clock):
    """A reactor that is moved on by hand, and does a thread's work at once."""

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[..., object], *args: object
    ) -> None:
        try:
            result = work(*args)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        """There is none."""
