"""The threads that wait for the database, so that the reactor need not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

T = TypeVar("T")

STOP_SECONDS = 1.0


class Threads:
    """A pool of threads of its own.

    There are twice as many as there are connections: should every connection hang for good, there are
    as many threads left to notice that the database is back. They end with the process.

    :param reactor: a provider of ``IReactorFromThreads``.
    :param size: connections of the engine.
    """

    def __init__(self, reactor: Any, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, 2 * size, "database")
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        """Let work begin, also what was brought before."""
        self._pool.start()

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Do some work in a thread. Cancelling the result does not stop the work."""
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """End the threads that have nothing to do; returns within a second even when some hang."""
        helper = Thread(target=self._pool.stop, daemon=True)
        helper.start()
        helper.join(STOP_SECONDS)
