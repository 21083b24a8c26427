"""Long work in slices: mail's questions are answered on the same reactor, and none may wait for a page of HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

# Seconds until the reactor is let in. What is done between two looks at the clock comes on top.
SLICE = 0.002

T = TypeVar("T")


class Slices:
    """Runs iterators for a moment at a time.

    :param reactor: lets others in, and tells how long a slice took.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor

    async def collect(self, items: Iterable[T | None], limit: int | None = None) -> list[T]:
        """All items but ``None``, or the first so many: each item, ``None`` too, is a place to pause at."""
        found: list[T] = []
        end = self._reactor.seconds() + SLICE
        for item in items:
            if item is not None:
                found.append(item)
                if len(found) == limit:
                    break
            if self._reactor.seconds() >= end:
                await deferLater(self._reactor, 0)
                end = self._reactor.seconds() + SLICE
        return found
