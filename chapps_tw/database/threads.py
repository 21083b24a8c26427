"""A thread pool for blocking database calls."""

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
    """Daemon threads for database calls only.

    Twice as many as connections: if every connection hangs, as many threads remain to probe the database.

    :param reactor: a provider of ``IReactorFromThreads``.
    :param size: number of connections of the engine.
    """

    def __init__(self, reactor: Any, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, 2 * size, "database")
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        """Start the queued calls."""
        self._pool.start()

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Call a function in a thread. Cancelling the result does not stop the call."""
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """Stop the idle threads. Returns within ``STOP_SECONDS`` even if some hang."""
        helper = Thread(target=self._pool.stop, daemon=True)
        helper.start()
        helper.join(STOP_SECONDS)
