"""Replies of a store: a Deferred with one callback, in a third of the time."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

T = TypeVar("T")

_NOTHING: Any = object()


def _ignore(_outcome: object) -> None:
    """Do nothing with a result that nobody waits for."""


class StoreReply(Generic[T]):
    """See :class:`~chapps_tw.interfaces.reply.Reply`. The store uses the methods that a Deferred has, too.

    :ivar called: whether the result is there.
    """

    __slots__ = ("_done", "_failed", "_outcome", "called")

    _log = Logger()

    def __init__(self) -> None:
        self.called = False
        self._done: Callable[[T], object] | None = None
        self._failed: Callable[[Exception], object] | None = None
        self._outcome: Any = _NOTHING

    def callback(self, result: T) -> None:
        """Deliver the result."""
        self.called = True
        done = self._done
        if done is None:
            self._outcome = result
            return
        # No cycle of references is left to the garbage collector.
        self._done = self._failed = None
        try:
            done(result)
        except Exception:
            # Not for the store, which delivers other results next.
            self._log.failure("a reply was not processed")

    def errback(self, error: Exception | Failure) -> None:
        """Deliver an error instead."""
        self.called = True
        exception = cast(Exception, error.value) if isinstance(error, Failure) else error
        failed = self._failed
        if failed is None:
            self._outcome = Failure(exception)
            return
        self._done = self._failed = None
        try:
            failed(exception)
        except Exception:
            self._log.failure("a failure was not processed")

    def then(self, done: Callable[[T], object], failed: Callable[[Exception], object]) -> None:
        """See :class:`~chapps_tw.interfaces.reply.Reply`."""
        outcome = self._outcome
        if outcome is _NOTHING:
            self._done, self._failed = done, failed
        elif isinstance(outcome, Failure):
            failed(cast(Exception, outcome.value))
        else:
            done(outcome)

    def cancel(self) -> None:
        """See :class:`~chapps_tw.interfaces.reply.Reply`."""
        if not self.called and self._done is not None:
            self.errback(CancelledError())
            self.then(_ignore, _ignore)

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for it in a coroutine. If that is cancelled, so is this."""
        deferred: Deferred[T] = Deferred(lambda _: self.cancel())
        self.then(deferred.callback, deferred.errback)
        return (yield from deferred.__await__())
