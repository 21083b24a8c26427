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
    """Threads for database calls alone.

    There are twice as many as connections: if every connection hangs, as many threads are left to probe the
    database. They are daemon threads.

    :param reactor: a provider of ``IReactorFromThreads``.
    :param size: connections of the engine.
    """

    def __init__(self, reactor: Any, size: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(0, 2 * size, "database")
        self._pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]

    def start(self) -> None:
        """Begin with the calls that are queued."""
        self._pool.start()

    def run(self, work: Callable[[], T]) -> Deferred[T]:
        """Call a function in a thread. Cancelling the result does not stop the call."""
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """End the idle threads; returns within a second even when some hang."""
        helper = Thread(target=self._pool.stop, daemon=True)
        helper.start()
        helper.join(STOP_SECONDS)
