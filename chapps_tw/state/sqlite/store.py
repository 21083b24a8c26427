"""Live state in one SQLite file, inside this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorThreads, IReactorTime
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import (
    CachedValue,
    CacheVersion,
    Charge,
    Fresh,
    Message,
    Spent,
    StateUnavailable,
    Usage,
    ValueKey,
    Window,
)
from chapps_tw.observe.timer import Timer, no_timer
from chapps_tw.state.memory import ValueMemory
from chapps_tw.state.reply import StoreReply
from chapps_tw.state.sqlite import events as sqlite_events
from chapps_tw.state.sqlite import greylist as sqlite_greylist
from chapps_tw.state.sqlite import spending
from chapps_tw.state.sqlite import values as sqlite_values
from chapps_tw.state.sqlite.accounts import MAX_BYTES, Accounts
from chapps_tw.state.sqlite.file import MEMORY
from chapps_tw.state.sqlite.group_commit import GroupCommit
from chapps_tw.state.sqlite.upkeep import LONG_WAL, Cleaner, checkpoint, is_long

# Areas of the file: a write in one does not delay reads in another.
_COUNTS, _VALUES, _FLAGS, _GREYLIST, _ONCE, _EVENTS = 1, 2, 4, 8, 16, 32
_GREYLIST_TABLES = _FLAGS | _GREYLIST
_EVERYTHING = 63

# Seconds between cleaning steps, normally and while many rows expire; rows per step that count as many.
_IDLE_INTERVAL, _BUSY_INTERVAL = 1.0, 0.02
_BUSY_ROWS = 100
# Seconds between steps of folding the journal, normally and while it is long.
_FOLD_INTERVAL, _BUSY_FOLD_INTERVAL = 1.0, 0.005
# Seconds between checks of the size of the WAL, and checks until it is checkpointed even if it is short.
_WAL_CHECK_INTERVAL = 0.25
_CHECKS_PER_CHECKPOINT = 20


_OUTDATED = Spent(Outcome.OUTDATED, -1, (), 0.0)


def _still_unavailable(failure: Failure) -> None:
    failure.trap(StateUnavailable)


class SqliteState:
    """Live state in an SQLite file in WAL mode.

    All operations of a reactor turn share one transaction, and their results are delivered after its commit, so
    that they survive a crash of the process. (If the machine crashes, the last seconds may be lost: the WAL is synced
    at each checkpoint.)

    Opens the file at the first operation, unless it was started before. All methods except :meth:`start`,
    :meth:`stop` and :meth:`ready` are those of :class:`chapps_tw.interfaces.state.LiveState`.

    :param path: of the file, or ``:memory:``.
    :param now: returns epoch seconds.
    :param reactor: for turns and timers, and for threads if the store is started on a file.
    :param timer: measures each ``commit``.
    :param max_bytes: size of the accounts that are kept in memory.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        now: Callable[[], float],
        reactor: IReactorTime,
        timer: Timer = no_timer,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._path = path
        self._now = now
        self._reactor = reactor
        self._accounts = Accounts(max_bytes)
        self._values = sqlite_values.CachedValues()
        self._memory = ValueMemory(now)
        self._stamps = count(1)
        self._greylist = sqlite_greylist.Greylist()
        self._commits = GroupCommit(path, reactor, self._accounts, self._clear_caches, timer)
        self._cleaner = Cleaner()
        self._timers: dict[Callable[[], None], IDelayedCall] = {}
        self._checkpoint: Deferred[None] | None = None
        self._wal_size = 0
        self._wal_checks = 0

    def _clear_caches(self) -> None:
        self._accounts.clear()
        self._values.clear()
        self._greylist.clear()
        self._outdate()

    def _outdate(self) -> None:
        self._memory.set_stamp(b"%d" % next(self._stamps))

    @property
    def problem(self) -> str:
        """One sentence while the file is unavailable, or since a part of it could not be read; otherwise ``""``."""
        return self._commits.problem or self._commits.damage

    @property
    def operations(self) -> int:
        """Number of operations requested."""
        return self._commits.operations

    def start(self) -> None:
        """Open the file, and start cleaning and checkpointing it.

        :raises chapps_tw.interfaces.state.StateUnavailable: if it cannot be opened;
            :class:`~chapps_tw.state.sqlite.file.StateTooNew` if a later version has written it.
        """
        self._commits.open()
        self._commits.read(0, self._accounts.read).addErrback(_still_unavailable)
        self._later(_IDLE_INTERVAL, self._clean)
        self._later(_FOLD_INTERVAL, self._fold)
        if self._path != MEMORY:
            self._later(_WAL_CHECK_INTERVAL, self._check_wal)

    def stop(self) -> Deferred[None]:
        """Commit the current turn, checkpoint the WAL and close the file. Fires when done."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        opened = self._commits.finish()
        return Deferred.fromCoroutine(self._close(opened))

    async def _close(self, opened: bool) -> None:
        if self._checkpoint is not None:
            await self._checkpoint
        if opened and self._path != MEMORY:
            await self._checkpoint_in_thread()
        self._commits.close()

    def _later(self, delay: float, work: Callable[[], None]) -> None:
        self._timers[work] = self._reactor.callLater(delay, work)

    def _clean(self) -> None:
        del self._timers[self._clean]
        if self._commits.problem:
            # Without traffic, only this notices that the file can be written again.
            self.ping().addErrback(_still_unavailable)
            self._later(_IDLE_INTERVAL, self._clean)
            return
        step, now = self._cleaner.step, self._now()
        # A separate operation per table, so that damage in one does not prevent cleaning the others.
        removed = [self._commits.write(_EVERYTHING, step, now, table) for table in self._cleaner.tables]
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
        self.log.warn("The log of {path} was not written into it: {why}.", path=self._path, why=failure.value)

    # --- counts ---

    def spend(
        self, message: Message, charges: Sequence[Charge], version: CacheVersion | None = None
    ) -> StoreReply[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write_fast(_COUNTS, self._spend, self._now(), message, charges, version)

    def _spend(
        self, db: sqlite3.Cursor, now: float, message: Message, charges: Sequence[Charge], version: CacheVersion | None
    ) -> Spent:
        if version is not None and not self._is_current(version):
            return _OUTDATED
        return spending.spend(db, now, self._accounts, message, charges)

    def peek(self, message: Message, charges: Sequence[Charge]) -> Deferred[Spent]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_COUNTS, spending.peek, self._now(), self._accounts, message, charges)

    def usage(self, windows: Sequence[Window]) -> Deferred[list[Usage]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_COUNTS, spending.usage, self._now(), self._accounts, windows)

    def reset(self, windows: Sequence[Window]) -> Deferred[list[int]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_COUNTS, spending.reset, self._now(), self._accounts, windows)

    # --- cached values ---

    def values(self, keys: Sequence[ValueKey]) -> Deferred[list[CachedValue]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_VALUES, self._find_values, self._now(), keys)

    def _find_values(self, db: sqlite3.Cursor, now: float, keys: Sequence[ValueKey]) -> list[CachedValue]:
        found = self._values.find(db, now, keys)
        for key, (value, _) in zip(keys, found, strict=True):
            if value is None:
                self._memory.forget(key)
            else:
                self._memory.remember(key, value)
        return found

    def version(self) -> CacheVersion:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._memory.version() if self._commits.is_current() else CacheVersion(b"")

    def recall(self, key: ValueKey) -> str | None:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._memory.recall(key) if self._commits.is_current() else None

    def confirm(self, version: CacheVersion) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return succeed(self._commits.is_current() and self._is_current(version))

    def _is_current(self, version: CacheVersion) -> bool:
        return version.stamp == self._memory.stamp

    def keep_values(self, values: Sequence[Fresh], ttl: float) -> Deferred[None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_VALUES, self._values.keep, self._now(), values, ttl)

    def drop_values(self, keys: Sequence[ValueKey]) -> Deferred[list[str | None]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_VALUES, self._drop_values, self._now(), keys)

    def _drop_values(self, db: sqlite3.Cursor, now: float, keys: Sequence[ValueKey]) -> list[str | None]:
        self._outdate()
        return self._values.drop(db, now, keys)

    # --- greylisting ---

    def check_greylist(
        self,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        fill: Fill | None = None,
        version: CacheVersion | None = None,
    ) -> StoreReply[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write_fast(
            _GREYLIST_TABLES, self._check_greylist, self._now(), attempt, rules, fill, version
        )

    def _check_greylist(
        self,
        db: sqlite3.Cursor,
        now: float,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        fill: Fill | None,
        version: CacheVersion | None,
    ) -> GreylistResult:
        if version is not None and not self._is_current(version):
            return GreylistResult(Outcome.OUTDATED, 0.0, 0, "")
        return self._greylist.check_greylist(db, now, attempt, rules, fill, False)

    def peek_greylist(
        self, attempt: GreylistAttempt, rules: GreylistRules, fill: Fill | None = None
    ) -> StoreReply[GreylistResult]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read_fast(
            _GREYLIST_TABLES, self._greylist.check_greylist, self._now(), attempt, rules, fill, True
        )

    def pass_greylist(self, client: str, sender: str, recipient: str, rules: GreylistRules) -> Deferred[None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        names = (client, sender, recipient)
        return self._commits.write(_GREYLIST, sqlite_greylist.let_pass, self._now(), names, rules)

    def last_attempt(self, client: str, sender: str, recipient: str) -> Deferred[float]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_GREYLIST, sqlite_greylist.last_attempt, self._now(), client, sender, recipient)

    def tally(self, client: str) -> Deferred[list[tuple[str, float]]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_GREYLIST, sqlite_greylist.tally, self._now(), client)

    def clear_tally(self, client: str) -> Deferred[None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_GREYLIST, self._greylist.clear_tally, client)

    def drop_flags(self, domains: Iterable[str]) -> Deferred[None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_FLAGS, self._greylist.drop_flags, self._now(), domains)

    # --- the rest ---

    def note_event(self, name: str, ttl: float, event: str) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_ONCE | _EVENTS, sqlite_events.note, self._now(), name, ttl, event)

    def events(self, count: int) -> Deferred[list[str]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_EVENTS, sqlite_events.last, count)

    def first_time(self, space: str, name: str, ttl: float) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_ONCE, sqlite_values.first_time, self._now(), space, name, ttl)

    async def ready(self) -> None:
        """Return when the store answers and no damage of the file is known.

        :raises StateUnavailable: with what helps.
        """
        await self.ping()
        if self._commits.damage:
            raise StateUnavailable(self._commits.damage)

    def ping(self) -> Deferred[None]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`. Writes: a file that can only be read is of no use."""
        return self._commits.write(_EVERYTHING, sqlite_values.write_ping)
