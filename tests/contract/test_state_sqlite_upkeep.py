"""The size of the WAL of the state file, and the effect of damaged pages."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from chapps_tw.interfaces.state import Spent, StateUnavailable
from chapps_tw.state.sqlite import maintenance
from chapps_tw.state.sqlite import upkeep as sqlite_upkeep
from chapps_tw.state.sqlite.file import PAGE
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.charges import charge, whole, window_of
from tests.support.replies import deferred
from tests.support.sqlite_case import START, HandReactor, temporary

CLOCK: Any = reactor
USERS = 3000


@contextmanager
def logged() -> Iterator[list[str]]:
    """Return the lines that are logged from now on."""
    lines: list[str] = []

    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    observer = cast(ILogObserver, observe)
    globalLogPublisher.addObserver(observer)
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(observer)


class LogTests(TestCase):
    """The WAL while it grows faster than a thread can checkpoint it."""

    async def test_it_stays_short_and_is_truncated_if_it_was_long(self) -> None:
        self.patch(maintenance, "LONG_WAL", 2**20)
        self.patch(sqlite_upkeep, "LONG_WAL", 2**20)
        self.patch(maintenance, "_WAL_CHECK_INTERVAL", 0.01)
        path = temporary(self)
        state = SqliteState(path, CLOCK.seconds, CLOCK)
        state.start()
        self.addCleanup(state.stop)
        longest = 0
        for turn in range(300):
            await gatherResults(
                [_spend(state, f"user{turn * 7919 % USERS}-{number}", f"1.{turn}.{number}") for number in range(30)]
            )
            longest = max(longest, os.path.getsize(f"{path}-wal"))
            await deferLater(CLOCK, 0)
        written = os.path.getsize(path)
        # Each turn writes far more than its share of this.
        self.assertGreater(written, 2**18)
        self.assertLess(longest, 16 * 2**20)

    def test_it_is_truncated_when_it_is_restarted(self) -> None:
        path = temporary(self)
        with patch("chapps_tw.state.sqlite.file._WAL_SIZE_LIMIT", 2**16):
            clock = HandReactor()
            clock.advance(START)
            state = SqliteState(path, clock.seconds, clock)
            state.start()
        self.addCleanup(state.stop)
        for turn in range(300):
            _spend(state, f"user{turn}", "i")
            clock.advance(0)
        self.assertGreater(os.path.getsize(f"{path}-wal"), 2**19)
        # Until everything is in the accounts, and the log in the file.
        clock.pump([0.25] * 80)
        state.ping()
        clock.advance(0)
        self.assertEqual(os.path.getsize(f"{path}-wal"), 2**16)


class DamageTests(SynchronousTestCase):
    """A file with damaged pages."""

    def setUp(self) -> None:
        self.clock = HandReactor()
        self.clock.advance(START)
        self.path = temporary(self)
        state = self.open()
        for number in range(USERS):
            _spend(state, f"user{number}", "i")
        # Until everything is in the accounts.
        self.clock.pump([1.0] * 100)
        self.successResultOf(state.stop())
        self.spoil("chunk", 2)

    def used(self, state: SqliteState) -> list[int]:
        """Return what each account has that can be read."""
        windows = [state.usage([window_of(charge(f"user{number}"))]) for number in range(USERS)]
        results = self.successResultOf(DeferredList(windows, consumeErrors=True))
        return [result[0].used for done, result in results if done]

    def open(self) -> SqliteState:
        state = SqliteState(self.path, self.clock.seconds, self.clock)
        state.start()
        return state

    def spoil(self, table: str, count: int) -> None:
        """Overwrite some leaf pages of a table with garbage, as a failing disk does."""
        with sqlite3.connect(self.path) as db:
            query = "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno"
            pages = [row[0] for row in db.execute(query, (table,))]
        db.close()
        with open(self.path, "r+b") as file:
            for page in pages[3 : 3 + 5 * count : 5]:
                file.seek((page - 1) * PAGE)
                file.write(b"\xa5" * PAGE)

    def spend_all(self, state: SqliteState, instance: str) -> list[Failure | Spent]:
        """Count one message of each user, eight per turn."""
        found: list[Failure | Spent] = []
        for first in range(0, USERS, 8):
            asked = [_spend(state, f"user{number}", f"{instance}-{number}") for number in range(first, first + 8)]
            self.clock.pump([0, 0, 0])
            found += [result for _, result in self.successResultOf(DeferredList(asked, consumeErrors=True))]
        return found

    def test_only_requests_that_need_them_fail_and_this_is_logged_once_with_the_remedy(self) -> None:
        state = self.open()
        self.addCleanup(state.stop)
        with logged() as lines:
            answers = self.spend_all(state, "first") + self.spend_all(state, "second")
        failed = [answer for answer in answers if isinstance(answer, Failure)]
        for failure in failed:
            failure.trap(StateUnavailable)
        # Two leaves of some forty users each, asked twice; and some on the leaves beside, when one has to be split.
        self.assertGreater(len(failed), 0)
        self.assertLess(len(failed), 2 * 2 * 120)
        used = [answer.used[0] for answer in answers if not isinstance(answer, Failure)]
        self.assertEqual(sorted(set(used)), [2, 3])
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(f"The live state in {self.path} is damaged", lines[0])
        self.assertIn("move the file away", lines[0])
        self.assertEqual(state.problem, lines[0])
        error = self.failureResultOf(self.ready(state), StateUnavailable).value
        self.assertEqual(str(error), lines[0])

    def ready(self, state: SqliteState) -> Deferred[None]:
        ready = Deferred.fromCoroutine(state.ready())
        self.clock.pump([0, 0])
        return ready

    def test_all_other_accounts_are_folded_and_nothing_of_them_is_lost(self) -> None:
        state = self.open()
        self.spend_all(state, "first")
        self.clock.pump([1.0] * 200)
        self.successResultOf(state.stop())
        with sqlite3.connect(self.path) as db:
            ((rows, size),) = db.execute("SELECT COUNT(*), SUM(LENGTH(changes)) FROM journal").fetchall()
        db.close()
        # Of the turns before only what belongs to the damaged pages, or beside them.
        self.assertLess(rows, 20)
        self.assertLess(size, 20_000)
        state = self.open()
        self.addCleanup(state.stop)
        used = self.used(state)
        self.assertEqual(set(used), {2})
        self.assertGreater(len(used), USERS - 2 * 120)

    def test_a_damaged_page_of_the_journal_costs_only_what_it_has(self) -> None:
        os.unlink(self.path)
        state = self.open()
        for number in range(USERS):
            _spend(state, f"user{number}", "i")
            self.clock.advance(0)
        self.successResultOf(state.stop())
        self.spoil("journal", 2)
        with logged() as lines:
            state = self.open()
            found = self.used(state)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn("is damaged", state.problem)
        # A page has less than thirty turns.
        self.assertLess(USERS - sum(found), 2 * 30)
        self.assertLess(sum(found), USERS)
        self.spend_all(state, "more")
        self.clock.pump([1.0] * 200)
        self.successResultOf(state.stop())
        with logged() as lines:
            state = self.open()
            self.addCleanup(state.stop)
            self.assertEqual(sum(self.used(state)), sum(found) + USERS)
        self.assertEqual(lines, [])

    def test_the_other_tables_are_still_cleaned(self) -> None:
        state = self.open()
        self.addCleanup(state.stop)
        for number in range(1000):
            state.first_time("prepend", str(number), 10.0)
        self.clock.advance(1e7)
        self.clock.pump([1.0] * 60)
        with sqlite3.connect(self.path) as db:
            self.assertEqual(db.execute("SELECT COUNT(*) FROM once").fetchone()[0], 0)
        db.close()

    def test_an_intact_file_is_ready(self) -> None:
        os.unlink(self.path)
        state = self.open()
        self.addCleanup(state.stop)
        self.assertIsNone(self.successResultOf(self.ready(state)))


def _spend(state: SqliteState, name: str, instance: str) -> Deferred[Spent]:
    return deferred(state.spend(whole(instance), [charge(name, limit=10**6)]))
