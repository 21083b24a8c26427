"""Group commit: the operations of one reactor turn share one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeAlias, TypeVar, TypeVarTuple

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.observe.timer import Timer, no_timer
from chapps_tw.sockets.turn import Stage, Turn
from chapps_tw.state.reply import StoreReply
from chapps_tw.state.sqlite.damage import describe, is_damage
from chapps_tw.state.sqlite.file import open_file, unavailable

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

# Seconds until the next attempt to begin a transaction after one has failed, because waiting for a lock blocks the
# reactor.
_RETRY_INTERVAL = 0.5

# The area that contains all others.
EVERYTHING: Final = -1

# Errors after which the connection can still be used.
_TRANSIENT = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)


class Scheduler(Protocol):
    """The part of ``IReactorTime`` that is used here."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> object: ...


class Buffer(Protocol):
    """What operations have changed in memory.

    :ivar changes: increases with each change.
    """

    changes: int

    def write(self, db: sqlite3.Cursor) -> None:
        """Write it to the file. Called before each commit, in its transaction."""

    def committed(self) -> None:
        """Note that it was committed."""


_Reply: TypeAlias = Deferred[Any] | StoreReply[Any]

# A reply, its result, and what is needed to run the operation again: area, operation and arguments.
_Pending: TypeAlias = tuple[_Reply, Any, int, Callable[..., Any], tuple[Any, ...]]


class GroupCommit:
    """Runs operations at once, and delivers their results when everything they read and wrote is committed.

    An *area* is a bit mask of the data that an operation reads or writes. The result of an operation is delivered at
    once if nothing in its area is uncommitted.

    :ivar problem: one sentence while the file is unavailable, otherwise ``""``.
    :ivar damage: one sentence with the remedy once a part of the file could not be read, otherwise ``""``. The rest of
        the file remains in use.
    :ivar finished: whether all further operations are rejected.
    :ivar operations: number of operations requested.
    :param path: of the file.
    :param buffer: written before each commit.
    :param invalidate: clears the caches and the buffer. Called when they may be outdated: another process has
        written, or a transaction was rolled back.
    :param turn: of the reactor.
    :param timer: measures the ``commit`` of each turn.
    """

    log = Logger()

    def __init__(
        self,
        path: str,
        reactor: Scheduler,
        buffer: Buffer,
        invalidate: Callable[[], None],
        turn: Turn,
        timer: Timer = no_timer,
    ) -> None:
        self.problem = ""
        self.damage = ""
        self.finished = False
        self.operations = 0
        self._path = path
        self._reactor = reactor
        self._buffer = buffer
        self._invalidate = invalidate
        self._version = 0
        self._db: sqlite3.Connection | None = None
        # Shared by all operations: creating one takes as long as finding a row.
        self._cursor: sqlite3.Cursor
        self._in_turn = False
        self._turn = turn
        self._write_each = False
        self._dirty = 0
        self._pending: list[_Pending] = []
        self._restart_wal_pending = False
        self._unavailable = ""
        self._timer = timer

    def open(self) -> None:
        """Open the file now. Raises what :func:`open_file` does."""
        self._connection()

    def finish(self) -> bool:
        """Commit the current turn, and reject further operations; return whether the file was open."""
        self._commit()
        self.finished = True
        return self._db is not None

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._drop_connection(self._db)

    def read(self, area: int, operation: Callable[[sqlite3.Cursor, *Ts], T], *args: *Ts) -> Deferred[T]:
        """Run an operation that only reads. It does not begin a transaction.

        :returns: fires with the result; fails with :class:`StateUnavailable`, or with what the operation raises.
        """
        deferred: Deferred[T] = Deferred()
        self._read(deferred, area, operation, args)
        return deferred

    def read_fast(self, area: int, operation: Callable[[sqlite3.Cursor, *Ts], T], *args: *Ts) -> StoreReply[T]:
        """Do the same as :meth:`read`, with another kind of result."""
        reply: StoreReply[T] = StoreReply()
        self._read(reply, area, operation, args)
        return reply

    def _read(self, reply: _Reply, area: int, operation: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.operations += 1
        try:
            db = self._connection()
        except StateUnavailable as error:
            reply.errback(error)
            return
        try:
            if not self._in_turn:
                self._check_data_version(db)
            result = operation(self._cursor, *args)
        except sqlite3.Error as error:
            if self._note_damage(error) and self._in_turn:
                self._retry_turn(db)
            reply.errback(unavailable(self._path, error))
        except Exception as error:
            reply.errback(error)
        else:
            self._deliver(reply, result, area, operation, args)

    def write(self, area: int, operation: Callable[[sqlite3.Cursor, *Ts], T], *args: *Ts) -> Deferred[T]:
        """Run an operation that may write.

        If it fails after a change, the turn is rolled back, and its other operations are run again.

        :returns: fires with the result; fails with :class:`StateUnavailable`, or with what the operation raises.
        """
        deferred: Deferred[T] = Deferred()
        self._write(deferred, area, operation, args)
        return deferred

    def write_fast(self, area: int, operation: Callable[[sqlite3.Cursor, *Ts], T], *args: *Ts) -> StoreReply[T]:
        """Do the same as :meth:`write`, with another kind of result."""
        reply: StoreReply[T] = StoreReply()
        self._write(reply, area, operation, args)
        return reply

    def _write(self, reply: _Reply, area: int, operation: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.operations += 1
        db = self._db
        if not self._in_turn or db is None:
            try:
                self._begin()
                db = self._connection()
            except StateUnavailable as error:
                reply.errback(error)
                return
        before = db.total_changes + self._buffer.changes
        try:
            result = operation(self._cursor, *args)
            if self._write_each:
                self._buffer.write(self._cursor)
        except sqlite3.Error as error:
            reason = unavailable(self._path, error)
            if self._note_damage(error):
                # SQLite would not commit the transaction after this, even if nothing was changed.
                self._retry_turn(db)
            else:
                self._report(reason)
                self._undo(db, before)
            reply.errback(reason)
        except Exception as error:
            self._undo(db, before)
            reply.errback(error)
        else:
            if db.total_changes + self._buffer.changes != before:
                self._dirty |= area
            self._deliver(reply, result, area, operation, args)

    def _deliver(
        self, reply: _Reply, result: Any, area: int, operation: Callable[..., Any], args: tuple[Any, ...]
    ) -> None:
        if self._dirty & area:
            self._pending.append((reply, result, area, operation, args))
        else:
            reply.callback(result)

    def restart_wal(self) -> None:
        """Checkpoint the rest of the WAL after the turn, so that the WAL is restarted.

        A thread cannot catch up while the WAL is written to, which does not happen between two turns. Blocks the
        reactor: call it when only few frames are left.
        """
        self._restart_wal_pending = True
        if not self._in_turn:
            self._restart_wal()

    def _restart_wal(self) -> None:
        self._restart_wal_pending = False
        if self._db is None:
            return
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # No data is lost: the frames remain in the WAL until the next checkpoint.
            self._note_damage(error)

    def _connection(self) -> sqlite3.Connection:
        if self.finished:
            raise StateUnavailable("The live state is closed.")
        if self._db is None:
            self._db = open_file(self._path)
            self._cursor = self._db.cursor()
        return self._db

    def is_current(self) -> bool:
        """Return whether the caches are valid now; clear them if another process has written."""
        if self._in_turn:
            return True
        if self._db is None or self.finished:
            return False
        try:
            self._check_data_version(self._db)
        except sqlite3.Error as error:
            self._note_damage(error)
            return False
        return True

    def _check_data_version(self, db: sqlite3.Connection) -> None:
        """Invalidate the caches if another process has written, which is impossible during our transaction."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self._invalidate()

    def _begin(self) -> None:
        # Fail at once, since the last attempt has already waited for the lock.
        if self._unavailable:
            raise StateUnavailable(self._unavailable)
        try:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            self._check_data_version(db)
        except (sqlite3.Error, StateUnavailable) as error:
            reason = self._abandon(error) if isinstance(error, sqlite3.Error) else error
            self._report(reason)
            self._unavailable = str(reason)
            self._reactor.callLater(_RETRY_INTERVAL, self._allow_retry)
            raise reason from error
        self._in_turn = True
        self._turn.at_end(Stage.WRITE, self._commit)

    def _allow_retry(self) -> None:
        self._unavailable = ""

    def _commit(self) -> None:
        if not self._in_turn or self._db is None:
            return
        committed = self._timer("commit")
        try:
            self._buffer.write(self._cursor)
        except sqlite3.Error as error:
            if self._note_damage(error):
                # Only the operation that needs the damaged part is to fail.
                self._retry_turn(self._db, write_each=True)
            else:
                self._fail_turn(error)
            return
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._fail_turn(error)
            return
        self._buffer.committed()
        committed(None)
        if self._dirty and self.problem:
            self.log.info("The live state in {path} can be used again.", path=self._path)
            self.problem = ""
        ended = self._end_turn()
        if self._restart_wal_pending:
            self._restart_wal()
        for reply, result, *_ in ended:
            reply.callback(result)

    def _fail_turn(self, error: sqlite3.Error) -> None:
        reason = self._abandon(error)
        self._report(reason)
        for reply, *_ in self._end_turn():
            reply.errback(StateUnavailable(str(reason)))

    def _end_turn(self) -> list[_Pending]:
        ended, self._pending = self._pending, []
        self._in_turn = self._write_each = False
        self._dirty = 0
        return ended

    def _undo(self, db: sqlite3.Connection, before: int) -> None:
        """Roll the turn back if a failed operation has changed anything."""
        if db.total_changes + self._buffer.changes != before or not db.in_transaction:
            self._retry_turn(db)

    def _retry_turn(self, db: sqlite3.Connection, write_each: bool = False) -> None:
        """Roll the turn back, and run its pending operations again.

        :param write_each: write the buffer after each operation, so that an error is that of this operation.
        """
        write_each = write_each or self._write_each
        self._roll_back(db)
        # In the next turn: otherwise callbacks would run in the middle of another operation.
        self._reactor.callLater(0, self._rerun, self._end_turn(), write_each)

    def _rerun(self, lost: list[_Pending], write_each: bool) -> None:
        """Run operations again that were rolled back."""
        self._write_each = self._write_each or write_each
        for reply, _, area, operation, args in lost:
            self._write(reply, area, operation, args)

    def _note_damage(self, error: sqlite3.Error) -> bool:
        """Return whether an error means that a part of the file is damaged. Logs the first one."""
        if not is_damage(error):
            return False
        if not self.damage:
            self.damage = describe(self._path, error)
            self.log.error("{damage}", damage=self.damage)
        return True

    def _report(self, reason: StateUnavailable) -> None:
        if not self.problem:
            self.log.error("{why}", why=str(reason))
        self.problem = str(reason)

    def _abandon(self, error: sqlite3.Error) -> StateUnavailable:
        self._note_damage(error)
        if self._db is not None:
            self._roll_back(self._db)
            if self._db is not None and error.sqlite_errorcode & 0xFF not in _TRANSIENT:
                self._drop_connection(self._db)
        return unavailable(self._path, error)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        self._invalidate()
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection(db)

    def _drop_connection(self, db: sqlite3.Connection) -> None:
        self._db = None
        self._invalidate()
        try:
            # A statement that it still holds would keep the connection, and with it the WAL.
            self._cursor.close()
            db.close()
        except sqlite3.Error:
            # The old connection leaks until the process exits; the next turn opens a new one.
            return
