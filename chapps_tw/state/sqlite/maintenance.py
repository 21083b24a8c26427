"""What is done with the file from time to time: cleaning it, folding its journal, and checkpointing its WAL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.state.sqlite.accounts import Accounts
from chapps_tw.state.sqlite.file import MEMORY
from chapps_tw.state.sqlite.group_commit import EVERYTHING, GroupCommit
from chapps_tw.state.sqlite.upkeep import LONG_WAL, Cleaner, checkpoint, is_long

# Seconds between cleaning steps, normally and while many rows expire; rows per step that count as many.
_IDLE_INTERVAL, _BUSY_INTERVAL = 1.0, 0.02
_BUSY_ROWS = 100
# Seconds between steps of folding the journal, normally and while it is long.
_FOLD_INTERVAL, _BUSY_FOLD_INTERVAL = 1.0, 0.005
# Seconds between checks of the size of the WAL, and checks until it is checkpointed even if it is short.
_WAL_CHECK_INTERVAL = 0.25
_CHECKS_PER_CHECKPOINT = 20


def _still_unavailable(failure: Failure) -> None:
    failure.trap(StateUnavailable)


class Maintenance:
    """Maintains the file in small steps, in the turns of the reactor; checkpoints in a thread.

    :param ping: notices that the file can be written again.
    """

    _log = Logger()

    def __init__(
        self,
        path: str,
        now: Callable[[], float],
        reactor: IReactorTime,
        commits: GroupCommit,
        accounts: Accounts,
        ping: Callable[[], Deferred[None]],
    ) -> None:
        self._path = path
        self._now = now
        self._reactor = reactor
        self._commits = commits
        self._accounts = accounts
        self._ping = ping
        self._cleaner = Cleaner()
        self._timers: dict[Callable[[], None], IDelayedCall] = {}
        self._checkpoint: Deferred[None] | None = None
        self._wal_size = 0
        self._wal_checks = 0

    def start(self) -> None:
        """Start. The file is open."""
        self._commits.read(0, self._accounts.read).addErrback(_still_unavailable)
        self._later(_IDLE_INTERVAL, self._clean)
        self._later(_FOLD_INTERVAL, self._fold)
        if self._path != MEMORY:
            self._later(_WAL_CHECK_INTERVAL, self._check_wal)

    def stop(self) -> None:
        """Begin nothing more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    async def finish(self, opened: bool) -> None:
        """Wait for a checkpoint under way, and make the last one.

        :param opened: whether the file is open.
        """
        if self._checkpoint is not None:
            await self._checkpoint
        if opened and self._path != MEMORY:
            await self._checkpoint_in_thread()

    def _later(self, delay: float, work: Callable[[], None]) -> None:
        self._timers[work] = self._reactor.callLater(delay, work)

    def _clean(self) -> None:
        del self._timers[self._clean]
        if self._commits.problem:
            # Without traffic, only this notices that the file can be written again.
            self._ping().addErrback(_still_unavailable)
            self._later(_IDLE_INTERVAL, self._clean)
            return
        step, now = self._cleaner.step, self._now()
        # A separate operation per table, so that damage in one does not prevent cleaning the others.
        removed = [self._commits.write(EVERYTHING, step, now, table) for table in self._cleaner.tables]
        DeferredList(removed, consumeErrors=True).addCallback(self._clean_again)

    def _clean_again(self, results: list[tuple[bool, Any]]) -> None:
        if not self._commits.finished:
            rows = sum(removed for done, removed in results if done)
            self._later(_BUSY_INTERVAL if rows >= _BUSY_ROWS else _IDLE_INTERVAL, self._clean)

    def _fold(self) -> None:
        del self._timers[self._fold]
        if self._commits.problem or not self._accounts.is_unfolded:
            self._later(_FOLD_INTERVAL, self._fold)
        else:
            # No area: it changes no count.
            self._commits.write(0, self._accounts.fold).addBoth(self._fold_again)

    def _fold_again(self, result: object) -> None:
        if not self._commits.finished:
            self._later(_BUSY_FOLD_INTERVAL if self._accounts.is_long else _FOLD_INTERVAL, self._fold)

    def _check_wal(self) -> None:
        del self._timers[self._check_wal]
        self._commits.follow()
        self._wal_checks += 1
        if self._wal_checks < _CHECKS_PER_CHECKPOINT and not is_long(self._path):
            self._later(_WAL_CHECK_INTERVAL, self._check_wal)
            return
        self._wal_checks = 0
        self._checkpoint = self._checkpoint_in_thread().addCallback(self._checkpoint_done)

    def _checkpoint_done(self, result: None) -> None:
        self._checkpoint = None
        if self._commits.finished:
            return
        if self._wal_size > LONG_WAL:
            self._commits.restart_wal()
        self._later(_WAL_CHECK_INTERVAL, self._check_wal)

    def _checkpoint_in_thread(self) -> Deferred[None]:
        reactor = IReactorThreads(self._reactor)
        done = deferToThreadPool(reactor, reactor.getThreadPool(), checkpoint, self._path)
        return done.addCallbacks(self._written, self._not_written)

    def _written(self, length: int) -> None:
        self._wal_size = length

    def _not_written(self, failure: Failure) -> None:
        # Nothing is lost: it stays in the log until the next checkpoint.
        self._log.warn("The log of {path} was not written into it: {why}.", path=self._path, why=failure.value)
