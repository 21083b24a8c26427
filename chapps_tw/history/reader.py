"""Searches the history in threads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.interfaces import IReactorTime

from chapps_tw.database.errors import clear_tracebacks, reason
from chapps_tw.history.counts import counts
from chapps_tw.history.search import Expired, search
from chapps_tw.history.store import Store
from chapps_tw.interfaces.history import Counts, GroupBy, HistoryUnavailable, Page, Wanted

# Seconds until a search returns what it has found, and until it fails.
_SEARCH, _COUNT, _FAILURE = 3.0, 5.0, 12.0
# Searches at a time. Each has a connection.
SEARCHES: Final = 2

T = TypeVar("T")


class Reader:
    """Searches the history (:class:`~chapps_tw.interfaces.history.History`).

    :param run: calls a function in a thread.
    :param reactor: for time.
    """

    def __init__(self, store: Store, run: Callable[[Callable[[], Any]], Deferred[Any]], reactor: IReactorTime) -> None:
        self._store = store
        self._run = run
        self._reactor = reactor
        self._slots = DeferredSemaphore(SEARCHES)

    async def search(self, wanted: Wanted, before: int | None = None, limit: int = 100) -> Page:
        """Return decisions, newest first."""
        return await self._ask(_SEARCH, partial(search, self._store, wanted, before, limit))

    async def counts(self, wanted: Wanted, by: GroupBy, limit: int = 100) -> Counts:
        """Count decisions in groups."""
        return await self._ask(_COUNT, partial(counts, self._store, wanted, by, limit))

    async def _ask(self, seconds: float, work: Callable[[Expired], T]) -> T:
        result: T = await self._slots.run(self._start, seconds, work)
        return result

    def _start(self, seconds: float, work: Callable[[Expired], T]) -> Deferred[T]:
        end = self._reactor.seconds() + seconds

        def ask() -> T:
            return _attempt(lambda: work(lambda: self._reactor.seconds() >= end))

        return self._run(ask).addTimeout(_FAILURE, self._reactor, _timed_out)


def _attempt(work: Callable[[], T]) -> T:
    """Do some work. Errors of the store are converted here, so that nothing retains what they refer to.

    :raises HistoryUnavailable: if the store is unavailable.
    """
    try:
        return work()
    except (SQLAlchemyError, OSError) as error:
        clear_tracebacks(error)
        why = reason(error)
    raise HistoryUnavailable(f"The history is unavailable: {why}")


def _timed_out(_result: object, seconds: float) -> Any:
    raise HistoryUnavailable(f"The history is unavailable: it did not answer in {seconds:g} s")
