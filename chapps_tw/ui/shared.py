"""Answers that are the same for all visitors, and take long: pages that are open ask for them again and again."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


class Shared(Generic[T]):
    """Keeps each answer for some seconds. Whoever asks while one is made waits for it.

    :param reactor: for time.
    """

    def __init__(self, seconds: float, reactor: IReactorTime) -> None:
        self._seconds = seconds
        self._reactor = reactor
        # The answer, and the seconds at which it was complete.
        self._answers: dict[Hashable, tuple[T, float]] = {}
        self._waiting: dict[Hashable, list[Deferred[T]]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return an answer. If the caller is cancelled, others are not. Raises what making it raises.

        :param key: equal for the same answers; there are few.
        """
        answer, made = self._answers.get(key, (None, 0.0))
        if answer is not None and self._reactor.seconds() - made < self._seconds:
            return answer
        waiter: Deferred[T] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(waiter)
        else:
            self._waiting[key] = [waiter]
            Deferred.fromCoroutine(make()).addBoth(self._finish, key)
        return await waiter

    def _finish(self, outcome: T | Failure, key: Hashable) -> None:
        if not isinstance(outcome, Failure):
            self._answers[key] = outcome, self._reactor.seconds()
        for waiter in self._waiting.pop(key):
            if not waiter.called:
                waiter.callback(outcome)
