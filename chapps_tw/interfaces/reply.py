"""The result of an operation that nearly every request waits for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Reply(Awaitable[T_co], Protocol[T_co]):
    """A result that is there already, or comes later. It is used once: awaited, or given to callbacks.

    Callbacks take a quarter of the time of a coroutine.
    """

    def then(self, done: Callable[[T_co], object], failed: Callable[[Exception], object]) -> None:
        """Have one of two functions called with the result or the error: now if it is there, else when it comes.

        Called again before that, it replaces the functions.
        """

    def cancel(self) -> None:
        """Have the second function called now, with ``twisted.internet.defer.CancelledError``."""
