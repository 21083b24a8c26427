"""Request coalescing: identical concurrent queries run once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


class _Call(Generic[T]):
    def __init__(self, query: Callable[[], Deferred[T]]) -> None:
        self.query = query
        self.waiters: list[Deferred[T]] = []

    def finish(self, result: T | Failure) -> None:
        for waiter in self.waiters:
            waiter.callback(result)


class Coalescer:
    """Lets callers with the same query share one result.

    A query starts in the next turn of the reactor; callers until then share its result. Callers while it runs wait for
    it to finish, and share the result of the next one. So no query starts before its caller asked: a caller after a
    change never gets a value that was read before it.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._next: dict[Hashable, _Call[object]] = {}
        self._running: set[Hashable] = set()

    def join(self, key: Hashable, query: Callable[[], Deferred[T]]) -> Deferred[T]:
        """Return the result of a query. Cancelling it does not affect other callers.

        :param key: equal for identical queries.
        """
        call = self._next.get(key)
        if call is None:
            call = self._next[key] = _Call(query)  # type: ignore[arg-type]
            if key not in self._running:
                self._reactor.callLater(0, self._begin, key)
        waiter: Deferred[T] = Deferred()
        call.waiters.append(waiter)  # type: ignore[arg-type]
        return waiter

    def _begin(self, key: Hashable) -> None:
        call = self._next.pop(key)
        call.waiters = [waiter for waiter in call.waiters if not waiter.called]
        if not call.waiters:
            return
        self._running.add(key)
        call.query().addBoth(self._finished, key, call)

    def _finished(self, result: object, key: Hashable, call: _Call[object]) -> None:
        self._running.discard(key)
        if key in self._next:
            self._begin(key)
        call.finish(result)
