"""Files for tests of the SQLite state, a reactor that is moved on by hand, and states on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

START = 1_700_000_000.0


def temporary(test: SynchronousTestCase) -> str:
    """A path in a directory that goes away with a test."""
    directory = TemporaryDirectory(prefix="chapps-state-")
    test.addCleanup(directory.cleanup)
    return str(Path(directory.name, "state.sqlite3"))


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
