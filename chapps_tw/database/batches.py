"""Lookups in batches: those of one turn of the reactor are one query."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

Results: TypeAlias = Mapping[K, V | Exception]
"""What was found by key, or why the lookup of this key alone failed."""

MOST: Final = 50
"""Lookups of a batch."""


class Batches(Generic[K, V]):
    """Looks up many keys in one query.

    A query starts in the next turn of the reactor. So it never starts before its caller asked: a caller after a change
    never gets a value that was read before it.

    :param query: looks up different keys, at most :data:`MOST`.
    """

    def __init__(self, reactor: IReactorTime, query: Callable[[Sequence[K]], Deferred[Results[K, V]]]) -> None:
        self._reactor = reactor
        self._query = query
        self._next: dict[K, list[Deferred[V]]] = {}

    def look_up(self, key: K) -> Deferred[V]:
        """Return what is found. Cancelling it does not affect other callers.

        Fails with the error of the query, or of this key.
        """
        if not self._next:
            self._reactor.callLater(0, self._begin)
        waiter: Deferred[V] = Deferred()
        self._next.setdefault(key, []).append(waiter)
        return waiter

    def _begin(self) -> None:
        waiting, self._next = self._next, {}
        # Without those that nobody waits for any more.
        keys = [key for key, waiters in waiting.items() if not all(waiter.called for waiter in waiters)]
        for start in range(0, len(keys), MOST):
            batch = keys[start : start + MOST]
            self._query(batch).addBoth(_deliver, {key: waiting[key] for key in batch})


def _deliver(result: Results[K, V] | Failure, batch: Mapping[K, Sequence[Deferred[V]]]) -> None:
    for key, waiters in batch.items():
        found = result if isinstance(result, Failure) else result[key]
        for waiter in waiters:
            if isinstance(found, Failure | Exception):
                waiter.errback(found)
            else:
                waiter.callback(found)
