"""Questions that are asked at the same time are asked once."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")


class _Flight(Generic[T]):
    def __init__(self, ask: Callable[[], Deferred[T]]) -> None:
        self.ask = ask
        self.waiters: list[Deferred[T]] = []

    def land(self, result: T | Failure) -> None:
        for waiter in self.waiters:
            waiter.callback(result)


class Flights:
    """Joins those who ask the same.

    A question leaves in the next turn of the reactor; whoever asks the same until then shares its
    answer, and whoever asks while it is under way waits for it and shares the one after. An answer is
    therefore never older than the question: somebody who asks after a change never gets
    what was read before it.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._boarding: dict[Hashable, _Flight[object]] = {}
        self._under_way: set[Hashable] = set()

    def join(self, key: Hashable, ask: Callable[[], Deferred[T]]) -> Deferred[T]:
        """The answer to a question; cancelling it does not disturb the others.

        :param key: the same for the same question.
        """
        flight = self._boarding.get(key)
        if flight is None:
            flight = self._boarding[key] = _Flight(ask)  # type: ignore[arg-type]
            if key not in self._under_way:
                self._reactor.callLater(0, self._leave, key)
        waiter: Deferred[T] = Deferred()
        flight.waiters.append(waiter)  # type: ignore[arg-type]
        return waiter

    def _leave(self, key: Hashable) -> None:
        flight = self._boarding.pop(key)
        flight.waiters = [waiter for waiter in flight.waiters if not waiter.called]
        if not flight.waiters:
            return
        self._under_way.add(key)
        flight.ask().addBoth(self._arrived, key, flight)

    def _arrived(self, result: object, key: Hashable, flight: _Flight[object]) -> None:
        self._under_way.discard(key)
        if key in self._boarding:
            self._leave(key)
        flight.land(result)
