"""Writes decisions to the history, in batches and in a thread of its own."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Event, Thread
from time import sleep
from typing import Final, TypeVar

from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from twisted.logger import Logger

from chapps_tw.database.errors import clear_tracebacks, reason
from chapps_tw.history.rows import COLUMNS, Row, row_of
from chapps_tw.history.store import BATCH, Store
from chapps_tw.history.table import PROCESSES, Ids
from chapps_tw.mail.decision import stops
from chapps_tw.observe.decision_record import Entry, as_record

# The most decisions that wait to be written, some 1 KB each: as they come, and as many as rows.
MAX_WAITING: Final = 4000
# The thread begins when there are so many, or when so many seconds are over.
_MANY, _TICK = 500, 0.5
# After so many rows, a pause of so many seconds: meanwhile the reactor answers without waiting for the interpreter. It
# is left out while so many decisions wait.
_STRETCH, _PAUSE, _HURRY = 20, 0.001, 1000
# Seconds between two looks for what is to be removed, and between two complaints.
_MAINTENANCE, _SILENCE = 10.0, 60.0

_TIME: Final = COLUMNS.index("time")

T = TypeVar("T")


class Writer:
    """Keeps decisions. Those that wait too long because the store is unavailable are lost, and counted.

    :ivar written: number of decisions written.
    :param node: name of this node.
    :ivar refused_only: whether only mail that is refused, deferred or discarded is kept.
    :param now: returns epoch seconds.
    :param max_waiting: the most decisions that wait as they come, and the most that wait as rows.
    :param pause: waits for some seconds.
    """

    _log = Logger()

    def __init__(
        self,
        store: Store,
        node: str,
        refused_only: bool,
        now: Callable[[], float],
        max_waiting: int = MAX_WAITING,
        pause: Callable[[float], object] = sleep,
    ) -> None:
        self.written = 0
        self._store = store
        self._node = node
        self.refused_only = refused_only
        self._now = now
        self._max_waiting = max_waiting
        self._pause = pause
        self._waiting: deque[Entry] = deque()
        # The next rows. Another attempt has the same ids, so that none is written twice.
        self._rows: list[Row] = []
        # How many of them are written in a transaction.
        self._size = BATCH
        self._ids = _new_ids()
        # Counted by the reactor's thread, and by ours.
        self._dropped, self._failed = 0, 0
        self._problem = ""
        # Decisions lost when the problem began.
        self._reported = 0
        # Epoch seconds of the last complaint.
        self._complained = float("-inf")
        self._stopping = False
        self._wake = Event()
        self._thread = Thread(target=self._run, name="history", daemon=True)

    @property
    def lost(self) -> int:
        """The number of decisions that could not be kept."""
        return self._dropped + self._failed

    @property
    def waiting(self) -> int:
        """The number of decisions that are not written yet."""
        return len(self._waiting) + len(self._rows)

    def extend(self, entries: Sequence[Entry]) -> None:
        """Keep decisions. Never blocks, never raises."""
        waiting = len(self._waiting)
        room = self._max_waiting - waiting
        self._waiting += entries[:room]
        if waiting <= _MANY < waiting + len(entries):
            self._wake.set()
        if len(entries) > room:
            self._lose(len(entries) - room)

    def _lose(self, count: int) -> None:
        self._dropped += count
        if not 0 <= self._now() - self._complained < _SILENCE:
            self._complained = self._now()
            self._log.warn("The history is not written fast enough: decisions are lost")

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Let the thread write what waits, and end."""
        self._stopping = True
        self._wake.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread. Log how many decisions were not written in time."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self.waiting:
            self._log.warn("The last {count} decisions are missing in the history", count=self.waiting)

    def _run(self) -> None:
        due = self._now()
        more = False
        while not self._stopping:
            self._wake.wait(0 if more else _TICK)
            self._wake.clear()
            self._write_all()
            now, more = self._now(), False
            # The second comparison is for a clock that was set back.
            if not self._problem and not now < due <= now + _MAINTENANCE:
                more = self._maintain()
                due = now if more else now + _MAINTENANCE
        self._write_all()
        self._store.close()

    def _write_all(self) -> None:
        while self._rows or self._waiting:
            if not self._rows:
                self._rows += self._take(BATCH)
            if self._rows and not self._succeeds(self._write):
                # Rows need less memory, and the texts in them are limited.
                self._rows += self._take(self._max_waiting - len(self._rows))
                return

    def _maintain(self) -> bool:
        """Do a part of what is due; return whether there is more."""
        more: list[bool] = []
        return self._succeeds(lambda: more.append(self._store.maintain(self._now()))) and more[0]

    def _take(self, most: int) -> Iterator[Row]:
        """Yield the rows of the next decisions."""
        for _ in self._with_pauses(range(min(len(self._waiting), most))):
            record = as_record(self._waiting.popleft())
            if not self.refused_only or stops(record.action):
                yield row_of(self._ids.next(record.time), self._node, record)

    def _with_pauses(self, items: Iterable[T]) -> Iterator[T]:
        """Yield items as fast as the reactor can spare the time."""
        for number, item in enumerate(items, 1):
            yield item
            if not number % _STRETCH and len(self._waiting) < _HURRY and not self._stopping:
                self._pause(_PAUSE)

    def _write(self) -> None:
        rows = self._rows[: self._size]
        try:
            self._store.write(self._with_pauses(rows))
        except IntegrityError:
            self._resolve(rows)
            return
        self._size = min(2 * self._size, BATCH)
        self._advance(rows)

    def _resolve(self, rows: list[Row]) -> None:
        """Find out why ids are in use, and act accordingly."""
        if not self._store.has(rows[0]):
            # Another process has the same number, and decided in the same millisecond.
            self._ids = _new_ids()
            self._rows = [(self._ids.next(row[_TIME]), *row[1:]) for row in self._rows]
            rows = self._rows[: len(rows)]
            self._store.write(rows)
            self._advance(rows)
        elif self._store.has(rows[-1]):
            # The outcome of the attempt before was unknown, and it had succeeded.
            self._advance(rows)
        else:
            self._size = len(rows) // 2

    def _advance(self, rows: list[Row]) -> None:
        self.written += len(rows)
        del self._rows[: len(rows)]

    def _succeeds(self, work: Callable[[], object]) -> bool:
        """Return whether some work on the store succeeds. Failures are logged when they begin, and when they end."""
        problem = ""
        try:
            work()
        except (SQLAlchemyError, OSError) as error:
            clear_tracebacks(error)
            problem = reason(error)
            if isinstance(error, DataError) and self._size == 1:
                # Another attempt would fail, too.
                self._failed += 1
                del self._rows[:1]
            # Perhaps there was no time for all, or one cannot be stored.
            self._size = max(self._size // 2, 1)
        except Exception:
            self._log.failure("The history failed")
            self._failed += len(self._rows)
            self._rows = []
            return False
        self._report(problem)
        return not problem

    def _report(self, problem: str) -> None:
        if problem and not self._problem:
            self._reported = self.lost
            meanwhile = f"up to {2 * self._max_waiting} decisions wait, others are lost"
            self._log.warn("The history cannot be written: {why}; {meanwhile}", why=problem, meanwhile=meanwhile)
        elif self._problem and not problem:
            self._log.info("The history is written again; {lost} decisions were lost", lost=self.lost - self._reported)
        self._problem = problem


def _new_ids() -> Ids:
    return Ids(random.randrange(PROCESSES))
