"""Request coalescing: identical questions that are asked at the same time are asked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


class _Call(Generic[T]):
    def __init__(self, ask: Callable[[], Deferred[T]]) -> None:
        self.ask = ask
        self.waiters: list[Deferred[T]] = []

    def finish(self, result: T | Failure) -> None:
        for waiter in self.waiters:
            waiter.callback(result)


class Coalescer:
    """Lets callers with the same question share one answer.

    A question is asked in the next turn of the reactor; callers until then share its answer. Callers while it is
    asked wait for it, and share the answer to the next one. So an answer is never older than the question: a
    caller after a change never gets what was read before it.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._next: dict[Hashable, _Call[object]] = {}
        self._running: set[Hashable] = set()

    def join(self, key: Hashable, ask: Callable[[], Deferred[T]]) -> Deferred[T]:
        """The answer to a question; cancelling it does not disturb other callers.

        :param key: equal for equal questions.
        """
        call = self._next.get(key)
        if call is None:
            call = self._next[key] = _Call(ask)  # type: ignore[arg-type]
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
        call.ask().addBoth(self._finished, key, call)

    def _finished(self, result: object, key: Hashable, call: _Call[object]) -> None:
        self._running.discard(key)
        if key in self._next:
            self._begin(key)
        call.finish(result)
