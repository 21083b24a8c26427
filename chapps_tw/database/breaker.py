"""A circuit breaker: while the database is unavailable, calls fail at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.database.errors import SET_UP, clear_tracebacks, reason
from chapps_tw.interfaces.book import BookUnavailable

T = TypeVar("T")

# Calls a function in a thread.
Run: TypeAlias = Callable[[Callable[[], Any]], Awaitable[Any]]

FAILURES: Final = 3
PROBE_SECONDS: Final = 0.5
PROBE_DEADLINE: Final = 2.0


def always() -> bool:
    """The ``give_up`` of a caller that may give up at any time."""
    return True


class _Lost(NamedTuple):
    """The result of work that failed because of the database."""

    why: str


def _attempt(work: Callable[[], T]) -> T | _Lost:
    """Do some work in a thread. Database errors are caught there, so that nothing retains what they refer to.

    :raises Exception: any other error of the work.
    """
    try:
        return work()
    except (SQLAlchemyError, OSError) as error:
        clear_tracebacks(error)
        return _Lost(reason(error))


class Breaker:
    """Runs work with a deadline, and fails it at once while the database is unavailable.

    It opens after three consecutive failures, or when as many threads are overdue as there are connections. While
    it is open, a probe runs twice a second; it closes when one succeeds.

    :ivar problem: while it is open, why, in a sentence; else ``""``.
    :param run: calls a function in a thread.
    :param probe: a small query that needs everything other queries need; raises if the database does not answer.
    :param discard: closes all connections. Called from the reactor's thread; must not block.
    :param size: number of connections of the engine.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, run: Run, probe: Callable[[], object], discard: Callable[[], None], size: int
    ) -> None:
        self.problem = ""
        self.reactor = reactor
        self.run = run
        self._probe = probe
        self._discard = discard
        self._size = size
        self._failures = 0
        self._overdue = 0
        self._next_probe: IDelayedCall | None = None
        self._stopped = False

    def call(self, work: Callable[[], T], deadline: float, give_up: Callable[[], bool] = always) -> Deferred[T]:
        """Do some work in a thread.

        :param deadline: seconds until the result fails, although the thread continues.
        :param give_up: called at the deadline. If it returns false, the result waits for the thread, and after the
            same time again the connections are closed, which unblocks the thread.
        :returns: the result, or a failure: :exc:`BookUnavailable`, or any other error of the work.
        """
        if self.problem:
            return fail(BookUnavailable(self.problem))
        return _Job[T](self, deadline, give_up).start(work)

    def stop(self) -> None:
        """Stop probing."""
        self._stopped = True
        if self._next_probe and self._next_probe.active():
            self._next_probe.cancel()

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, why: str) -> None:
        self._failures += 1
        if self._failures >= FAILURES or self._overdue >= self._size:
            self.open(why)

    def overdue(self, change: int) -> None:
        self._overdue += change

    def open(self, why: str) -> None:
        """Fail all calls until a probe succeeds."""
        if self.problem or self._stopped:
            return
        self._set_problem(why)
        self._log.error("{problem}", problem=self.problem)
        self._discard()
        self._schedule()

    def _schedule(self) -> None:
        if not self._stopped:
            self._next_probe = self.reactor.callLater(PROBE_SECONDS, self._try)

    def _try(self) -> None:
        if self._overdue >= 2 * self._size:
            # No thread is free for a probe until one returns.
            self._schedule()
            return
        probe = _Job[object](self, PROBE_DEADLINE, always)
        probe.start(self._probe).addCallbacks(self._close, lambda _: self._probe_failed(probe.why))

    def _close(self, _answer: object) -> None:
        self.problem = ""
        self._failures = 0
        self._log.info("The database is available again.")

    def _probe_failed(self, why: str) -> None:
        known = SET_UP in self.problem
        self._set_problem(why)
        if SET_UP in why and not known:
            # Waiting does not help: an administrator must act.
            self._log.error("{problem}", problem=self.problem)
        self._discard()
        self._schedule()

    def _set_problem(self, why: str) -> None:
        self.problem = f"The database is unavailable: {why}"


class _Job(Generic[T]):
    """Work in a thread, and the result that its caller waits for.

    :ivar why: why it failed, ``""`` if it has not.
    """

    def __init__(self, breaker: Breaker, deadline: float, give_up: Callable[[], bool]) -> None:
        self._breaker = breaker
        self._deadline = deadline
        self._give_up = give_up
        self._answer: Deferred[T] | None = Deferred()
        self._timer: IDelayedCall | None = None
        self._late = False
        self.why = ""

    def start(self, work: Callable[[], T]) -> Deferred[T]:
        answer = self._answer
        assert answer is not None
        self._timer = self._breaker.reactor.callLater(self._deadline, self._expired)
        done = Deferred.fromCoroutine(self._go(work))
        done.addCallbacks(self._done, self._failed)
        return answer

    async def _go(self, work: Callable[[], T]) -> T | _Lost:
        result: T | _Lost = await self._breaker.run(partial(_attempt, work))
        return result

    def _expired(self) -> None:
        self.why = why = f"it did not answer in {self._deadline:g} s"
        if self._late:
            self._breaker.open(why)
            return
        self._late = True
        self._breaker.overdue(+1)
        self._breaker.failed(why)
        if self._give_up():
            self._fail(BookUnavailable(f"The database query failed: {why}"))
        else:
            self._timer = self._breaker.reactor.callLater(self._deadline, self._expired)

    def _returned(self) -> None:
        if self._timer and self._timer.active():
            self._timer.cancel()
        if self._late:
            self._breaker.overdue(-1)

    def _done(self, result: T | _Lost) -> None:
        self._returned()
        if isinstance(result, _Lost):
            self.why = result.why
            if not self._late:
                self._breaker.failed(self.why)
            self._fail(BookUnavailable(f"The database query failed: {self.why}"))
            return
        if not self._late:
            self._breaker.succeeded()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.callback(result)

    def _failed(self, failure: Failure) -> None:
        self._returned()
        if not self._late:
            self._breaker.succeeded()
        error = failure.value
        assert error is not None
        self.why = reason(error)
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(error)
