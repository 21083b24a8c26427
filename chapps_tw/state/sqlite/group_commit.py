"""Group commit: the operations of one reactor turn share one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.observe.timer import Timer, no_timer
from chapps_tw.state.sqlite.file import open_file, unavailable

P = ParamSpec("P")
T = TypeVar("T")

# Seconds without another attempt after the lock of another process timed out, since waiting blocks the reactor.
_REFUSE = 0.5

# The file cannot be read: an invalid page, or a read error of the disk.
_DAMAGE = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_UNREADABLE = frozenset((sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_IOERR_SHORT_READ, sqlite3.SQLITE_IOERR_CORRUPTFS))

# These leave the connection usable.
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)


class Later(Protocol):
    """The part of the reactor used here."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> object: ...


# The Deferred, its result, and where it came from: area, operation and arguments.
_Waiting: TypeAlias = tuple[Deferred[Any], Any, int, Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class GroupCommit:
    """Runs operations at once, and lets their results out when what they saw and did is committed.

    An *area* is a set of bits: the rows that an operation reads or writes. One that has seen nothing
    uncommitted in its area need not wait.

    :ivar problem: a sentence while the file cannot be used, else ``""``.
    :ivar damage: a sentence, with what helps, once a part of the file could not be read; else ``""``. The other parts
        work on.
    :ivar finished: whether everything is refused from now on.
    :ivar operations: how many were asked for.
    :param path: of the file.
    :param forget: called when what was read before may not hold any more: another process has written, or
        a turn was taken back.
    :param timer: times the ``commit`` of each turn.
    """

    log = Logger()

    def __init__(self, path: str, reactor: Later, forget: Callable[[], None], timer: Timer = no_timer) -> None:
        self.problem = ""
        self.damage = ""
        self.finished = False
        self.operations = 0
        self._path = path
        self._reactor = reactor
        self._forget = forget
        self._version = 0
        self._db: sqlite3.Connection | None = None
        # One for all operations: creating a cursor takes as long as finding a row.
        self._cursor: sqlite3.Cursor
        self._begun = False
        self._dirty = 0
        self._waiting: list[_Waiting] = []
        self._moving_log = False
        self._refusal = ""
        self._timer = timer

    def open(self) -> None:
        """Open the file now. Raises what :func:`open_file` does."""
        self._connection()

    def finish(self) -> bool:
        """Commit what is open, and refuse what comes later; returns whether the file was open."""
        self._commit()
        self.finished = True
        return self._db is not None

    def close(self) -> None:
        """Close the file."""
        if self._db is not None:
            self._drop_connection(self._db)

    def look(
        self, area: int, operation: Callable[Concatenate[sqlite3.Cursor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run an operation that only reads. It opens no transaction of its own."""
        self.operations += 1
        try:
            db = self._connection()
        except StateUnavailable as error:
            return fail(error)
        try:
            if not self._begun:
                self._look_around(db)
            result = operation(self._cursor, *args, **kwargs)
        except sqlite3.Error as error:
            if self._look_for_damage(error) and self._begun:
                self._take_back(db)
            return fail(unavailable(self._path, error))
        except Exception as error:
            return fail(error)
        return self._let_out(result, area, operation, args, kwargs)

    def change(
        self, area: int, operation: Callable[Concatenate[sqlite3.Cursor, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Run an operation that may write.

        One that fails takes back what it had done, and with it the turn; the others of the turn are run again.
        """
        self.operations += 1
        try:
            if not self._begun:
                self._begin()
            db = self._connection()
        except StateUnavailable as error:
            return fail(error)
        before = db.total_changes
        try:
            result = operation(self._cursor, *args, **kwargs)
        except sqlite3.Error as error:
            reason = unavailable(self._path, error)
            if self._look_for_damage(error):
                # SQLite does not commit a transaction in which this happened, even if nothing was changed.
                self._take_back(db)
            else:
                self._report(reason)
                self._undo(db, before)
            return fail(reason)
        except Exception as error:
            self._undo(db, before)
            return fail(error)
        if db.total_changes != before:
            self._dirty |= area
        return self._let_out(result, area, operation, args, kwargs)

    def _let_out(
        self, result: T, area: int, operation: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Deferred[T]:
        if not self._dirty & area:
            return succeed(result)
        waiting: Deferred[T] = Deferred()
        self._waiting.append((waiting, result, area, operation, args, kwargs))
        return waiting

    def move_log(self) -> None:
        """Move the rest of the log into the file when the turn has ended, so that it is begun anew.

        A thread cannot reach its end while more is written; between two turns nothing is. To be called when little is
        left: it blocks.
        """
        self._moving_log = True
        if not self._begun:
            self._move_log()

    def _move_log(self) -> None:
        self._moving_log = False
        if self._db is None:
            return
        try:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # Nothing is lost: it stays in the log until the next checkpoint.
            self._look_for_damage(error)

    def _connection(self) -> sqlite3.Connection:
        if self.finished:
            raise StateUnavailable("The live state is closed.")
        if self._db is None:
            self._db = open_file(self._path)
            self._cursor = self._db.cursor()
        return self._db

    def _look_around(self, db: sqlite3.Connection) -> None:
        """Notice that another process has written. It cannot while a transaction of ours is open."""
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if version != self._version:
            self._version = version
            self._forget()

    def _begin(self) -> None:
        # One operation has waited for the lock until the timeout: the next ones need not.
        if self._refusal:
            raise StateUnavailable(self._refusal)
        try:
            db = self._connection()
            db.execute("BEGIN IMMEDIATE")
            self._look_around(db)
        except (sqlite3.Error, StateUnavailable) as error:
            reason = self._give_up(error) if isinstance(error, sqlite3.Error) else error
            self._report(reason)
            self._refusal = str(reason)
            self._reactor.callLater(_REFUSE, self._try_again)
            raise reason from error
        self._begun = True
        self._reactor.callLater(0, self._commit)

    def _try_again(self) -> None:
        self._refusal = ""

    def _commit(self) -> None:
        if not self._begun or self._db is None:
            return
        committed = self._timer("commit")
        try:
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            reason = self._give_up(error)
            self._report(reason)
            self._fail(self._end_turn(), str(reason))
            return
        committed(None)
        if self._dirty and self.problem:
            self.log.info("The live state in {path} can be used again.", path=self._path)
            self.problem = ""
        ended = self._end_turn()
        if self._moving_log:
            self._move_log()
        for waiting, result, *_ in ended:
            waiting.callback(result)

    def _end_turn(self) -> list[_Waiting]:
        ended, self._waiting = self._waiting, []
        self._begun = False
        self._dirty = 0
        return ended

    def _undo(self, db: sqlite3.Connection, before: int) -> None:
        """After a failed operation: nothing if it had changed nothing, else the whole turn is taken back."""
        if db.total_changes != before or not db.in_transaction:
            self._take_back(db)

    def _take_back(self, db: sqlite3.Connection) -> None:
        """Take the turn back, and run those again that wait for it."""
        self._roll_back(db)
        # Not at once: callbacks would run in the middle of another operation.
        self._reactor.callLater(0, self._run_again, self._end_turn())

    def _run_again(self, lost: list[_Waiting]) -> None:
        """Run what was taken back with another's failure."""
        for waiting, _, area, operation, args, kwargs in lost:
            self.change(area, operation, *args, **kwargs).chainDeferred(waiting)

    def _fail(self, lost: list[_Waiting], reason: str) -> None:
        for waiting, *_ in lost:
            waiting.errback(StateUnavailable(reason))

    def _look_for_damage(self, error: sqlite3.Error) -> bool:
        """Whether an error says that a part of the file cannot be read. The first time it is told."""
        number = error.sqlite_errorcode
        if number & 0xFF not in _DAMAGE and number not in _UNREADABLE:
            return False
        if not self.damage:
            self.damage = (
                f"The live state in {self._path} is damaged ({error}): questions that need the damaged part fail, all "
                "others are answered. Look at the disk; then stop the service and move the file away to begin anew, "
                "or mend it with the .recover of the sqlite3 command."
            )
            self.log.error("{damage}", damage=self.damage)
        return True

    def _report(self, reason: StateUnavailable) -> None:
        if not self.problem:
            self.log.error("{why}", why=str(reason))
        self.problem = str(reason)

    def _give_up(self, error: sqlite3.Error) -> StateUnavailable:
        self._look_for_damage(error)
        if self._db is not None:
            self._roll_back(self._db)
            if self._db is not None and error.sqlite_errorcode & 0xFF not in _PASSING:
                self._drop_connection(self._db)
        return unavailable(self._path, error)

    def _roll_back(self, db: sqlite3.Connection) -> None:
        self._forget()
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            self._drop_connection(db)

    def _drop_connection(self, db: sqlite3.Connection) -> None:
        self._db = None
        self._forget()
        try:
            db.close()
        except sqlite3.Error:
            # Its resources are released with the process; the next turn opens a new one.
            return
