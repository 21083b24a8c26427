"""Live state in one SQLite file, inside this process."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from chapps_tw.interfaces.adoption import PastCounts, PastTally, PastTuple
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
from chapps_tw.sockets.turn import Turn
from chapps_tw.state.memory import ValueMemory
from chapps_tw.state.reply import StoreReply
from chapps_tw.state.sqlite import adopting, spending
from chapps_tw.state.sqlite import events as sqlite_events
from chapps_tw.state.sqlite import greylist as sqlite_greylist
from chapps_tw.state.sqlite import values as sqlite_values
from chapps_tw.state.sqlite.accounts import MAX_BYTES, Accounts
from chapps_tw.state.sqlite.group_commit import EVERYTHING, GroupCommit
from chapps_tw.state.sqlite.maintenance import Maintenance

# Areas of the file: a write in one does not delay reads in another.
_COUNTS, _VALUES, _FLAGS, _GREYLIST, _ONCE, _EVENTS = 1, 2, 4, 8, 16, 32
_GREYLIST_TABLES = _FLAGS | _GREYLIST

_OUTDATED = Spent(Outcome.OUTDATED, -1, (), 0.0)


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
    :param turn: of the reactor, at the end of which changes are committed together.
    :param max_bytes: size of the accounts that are kept in memory.
    """

    def __init__(
        self,
        path: str,
        now: Callable[[], float],
        reactor: IReactorTime,
        timer: Timer = no_timer,
        turn: Turn | None = None,
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
        self._commits = GroupCommit(
            path, reactor, self._accounts, self._clear_caches, turn or Turn(reactor.callLater), timer
        )
        self._maintenance = Maintenance(path, now, reactor, self._commits, self._accounts, self.ping)

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
        self._maintenance.start()

    def stop(self) -> Deferred[None]:
        """Commit the current turn, checkpoint the WAL and close the file. Fires when done."""
        self._maintenance.stop()
        opened = self._commits.finish()
        return Deferred.fromCoroutine(self._close(opened))

    async def _close(self, opened: bool) -> None:
        await self._maintenance.finish(opened)
        self._commits.close()

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

    # --- what another service has counted ---

    def adopt_counts(self, counts: Sequence[PastCounts]) -> Deferred[int]:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        return self._commits.write(_COUNTS, adopting.adopt_counts, self._now(), self._accounts, counts)

    def adopt_tuples(self, tuples: Sequence[PastTuple], rules: GreylistRules) -> Deferred[int]:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        return self._commits.write(_GREYLIST, adopting.adopt_tuples, self._now(), tuples, rules)

    def adopt_tallies(self, tallies: Sequence[PastTally], rules: GreylistRules) -> Deferred[int]:
        """See :class:`~chapps_tw.interfaces.adoption.AdoptingState`."""
        return self._commits.write(_GREYLIST, adopting.adopt_tallies, self._now(), self._greylist, tallies, rules)

    # --- the rest ---

    def note_event(self, name: str, ttl: float, event: str) -> Deferred[bool]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.write(_ONCE | _EVENTS, sqlite_events.note, self._now(), name, ttl, event)

    def events(self, count: int) -> Deferred[list[str]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`."""
        return self._commits.read(_EVENTS, sqlite_events.last, count)

    def announce(self, name: str, text: str, ttl: float) -> Deferred[list[str]]:
        """See :class:`~chapps_tw.interfaces.state.LiveState`. Only this node uses the file."""
        return succeed([text] if ttl > 0 else [])

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
        return self._commits.write(EVERYTHING, sqlite_values.write_ping)
