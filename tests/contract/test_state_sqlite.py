"""The live state in SQLite."""

from __future__ import annotations

import os
import resource
import sqlite3
import time
from threading import Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Fresh, Spent, StateUnavailable, ValueKey
from chapps_tw.state.sqlite import upkeep as sqlite_upkeep
from chapps_tw.state.sqlite.store import SqliteState
from tests.contract.state_contract import LiveStateContract
from tests.support.charges import charge, spend_one, whole, window_of
from tests.support.replies import deferred
from tests.support.sqlite_case import START, HandReactor, stored, temporary

CHARGES = [charge(limit=1000)]
KEY, NO_KEY = ValueKey("sda", "bob", "a"), ValueKey("sda", "bob", 5)  # type: ignore[arg-type]


class InMemory(LiveStateContract, TestCase):
    path = ":memory:"

    def setUp(self) -> None:
        self.now = START
        self.state: SqliteState = SqliteState(self.path, lambda: self.now, reactor)
        self.state.start()
        self.addCleanup(self.state.stop)

    def advance(self, seconds: float) -> None:
        self.now += seconds

    def another(self) -> SqliteState:
        return self.state

    async def restart(self) -> None:
        """What is in memory alone ends with its state."""


class InFile(InMemory):
    def setUp(self) -> None:
        self.path = temporary(self)
        super().setUp()

    def another(self) -> SqliteState:
        state = SqliteState(self.path, lambda: self.now, reactor)
        self.addCleanup(state.stop)
        return state

    async def restart(self) -> None:
        await self.state.stop()
        self.state = self.another()
        self.state.start()


class Turns(SynchronousTestCase):
    """What is written when, in a file whose reactor's turns go on by hand."""

    def setUp(self) -> None:
        self.clock = HandReactor()
        self.clock.advance(START)
        self.path = temporary(self)
        self.state = SqliteState(self.path, self.clock.seconds, self.clock)
        self.other = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        self.addCleanup(self.other.close)

    def tearDown(self) -> None:
        self.successResultOf(self.state.stop())

    def messages(self) -> int:
        return len(stored(self.other))

    def spend(self, instance: str) -> Deferred[Spent]:
        return deferred(self.state.spend(whole(instance), CHARGES))

    def value(self, state: SqliteState | None = None) -> str | None:
        return self.successResultOf((state or self.state).values([KEY]))[0].value

    def used(self, user: str = "bob") -> int:
        return self.successResultOf(self.state.usage([window_of(charge(user))]))[0].used

    def test_an_answer_comes_when_it_is_written(self) -> None:
        waiting = [self.spend(f"i{number}") for number in range(3)]
        for each in waiting:
            self.assertNoResult(each)
        self.assertEqual(self.messages(), 0)
        self.clock.advance(0)
        self.assertEqual(self.messages(), 3)
        self.assertEqual([self.successResultOf(each).used for each in waiting], [(1,), (2,), (3,)])

    def test_who_sees_what_is_not_written_waits_for_it(self) -> None:
        first = self.spend("i")
        repeated = self.spend("i")
        usage = self.state.usage([window_of(charge())])
        for each in (first, repeated, usage):
            self.assertNoResult(each)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(repeated).outcome, Outcome.REPEATED)
        self.assertEqual(self.successResultOf(usage)[0].used, 1)

    def test_who_sees_nothing_unwritten_need_not_wait(self) -> None:
        self.spend("i")
        self.assertIsNone(self.value())
        self.clock.advance(0)
        again = self.spend("i")
        self.assertEqual(self.successResultOf(again).outcome, Outcome.REPEATED)

    def test_a_commit_that_fails_fails_all_that_wait_and_the_next_works(self) -> None:
        self.spend("before")
        self.clock.advance(0)
        waiting = [self.spend(f"i{number}") for number in range(3)]
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(self.path + "-wal"), limits[1]))
        try:
            self.clock.advance(0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        for each in waiting:
            error = self.failureResultOf(each, StateUnavailable).value
            self.assertIn(f"The live state in {self.path} cannot be used", str(error))
        self.assertIn("cannot be used", self.state.problem)
        self.assertEqual(len(self.flushLoggedErrors()), 0)
        self.assertEqual(self.used(), 1)
        after = self.spend("i0")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(after).used, (2,))
        self.assertEqual(self.state.problem, "")

    def test_while_nobody_asks_it_is_noticed_that_the_file_can_be_written_again(self) -> None:
        self.state.start()
        self.other.execute("BEGIN IMMEDIATE")
        self.failureResultOf(self.state.ping(), StateUnavailable)
        self.clock.pump([1, 0])
        self.assertIn("locked", self.state.problem)
        self.other.execute("COMMIT")
        self.clock.pump([1, 0])
        self.assertEqual(self.state.problem, "")

    def test_a_file_that_another_process_keeps_is_waited_for_once_in_half_a_second(self) -> None:
        self.spend("before")
        self.clock.advance(0)
        self.other.execute("BEGIN IMMEDIATE")
        statements: list[str] = []
        self.state._commits._connection().set_trace_callback(statements.append)
        refused = []
        for number in range(64):
            refused.append(self.spend(f"i{number}"))
            self.clock.advance(0.007)
        self.assertEqual(statements.count("BEGIN IMMEDIATE"), 1)
        for each in refused:
            self.failureResultOf(each, StateUnavailable)
        self.assertEqual(self.used(), 1)
        self.other.execute("COMMIT")
        self.clock.advance(0.5)
        after = self.spend("i0")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(after).used, (2,))

    def test_what_another_process_has_written_is_seen(self) -> None:
        other = SqliteState(self.path, self.clock.seconds, self.clock)
        self.addCleanup(other.stop)
        self.met(self.state, Fill("0", 1, 1e6))
        self.state.keep_values([Fresh(KEY, "1", "0")], 1e6)
        self.clock.advance(60)
        for number in range(3):
            met = self.met(other, None, f"i{number}")
        self.assertEqual((met.outcome, met.tally), (Outcome.PASSED, 3))
        self.assertEqual(self.met(self.state).outcome, Outcome.KNOWN_CLIENT)
        other.drop_values([KEY])
        other.drop_flags(["our.example"])
        self.clock.advance(0)
        self.assertIsNone(self.value())
        self.assertEqual(self.met(self.state).outcome, Outcome.MISSING)

    def test_what_another_process_has_counted_is_seen(self) -> None:
        other = SqliteState(self.path, self.clock.seconds, self.clock)
        self.addCleanup(other.stop)
        for number in range(1, 8, 2):
            for state, used in ((self.state, number), (other, number + 1)):
                spent = deferred(state.spend(whole(f"i{used}"), CHARGES))
                self.clock.advance(0)
                self.assertEqual(self.successResultOf(spent).used, (used,))
        gone = other.reset([window_of(charge())])
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(gone), [8])
        self.assertEqual(self.used(), 0)
        again = self.spend("i1")
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(again).used, (1,))

    def met(self, state: SqliteState, fill: Fill | None = None, instance: str = "i") -> GreylistResult:
        """What becomes of a message that greylisting meets."""
        attempt = GreylistAttempt("c", "s", "r", "our.example", instance, False)
        waiting = deferred(state.check_greylist(attempt, GreylistRules(60.0, 1e6, 1e6, 1e6, threshold=3), fill))
        self.clock.advance(0)
        met: GreylistResult = self.successResultOf(waiting)
        return met

    def test_what_was_taken_back_is_not_remembered(self) -> None:
        self.met(self.state, Fill("0", 1, 1e6))
        self.clock.advance(60)
        attempt = GreylistAttempt("c", "s", "r", "our.example", "", False)
        rules = GreylistRules(60.0, 1e6, 1e6, 1e6, threshold=1)
        again: list[Any] = [
            self.state.keep_values([Fresh(KEY, "1", "0")], 1e6),
            self.state.values([KEY]),
            deferred(self.state.check_greylist(attempt._replace(instance="i"), rules)),
            deferred(self.state.check_greylist(attempt, rules)),
        ]
        self.failureResultOf(self.state.drop_values([KEY, NO_KEY]), AttributeError)
        # What was remembered of the drop and of the others went with the turn.
        self.assertIsNone(self.value())
        self.assertEqual(
            self.successResultOf(deferred(self.state.peek_greylist(attempt, rules))).outcome, Outcome.PASSED
        )
        self.clock.pump([0, 0])
        _, values, *met = (self.successResultOf(each) for each in again)
        self.assertEqual(values[0].value, "1")
        self.assertEqual([each.outcome for each in met], [Outcome.PASSED, Outcome.KNOWN_CLIENT])

    def test_a_question_that_makes_no_sense_harms_no_other(self) -> None:
        good = self.spend("i")
        bad: list[Charge] = [charge("alice"), charge(amount=None)]  # type: ignore[arg-type]
        self.failureResultOf(deferred(self.state.spend(whole("j"), bad)), TypeError)
        self.clock.pump([0, 0])
        self.assertEqual(self.successResultOf(good).used, (1,))
        self.assertEqual([self.used(), self.used("alice")], [1, 0])

    def test_a_change_that_fails_half_way_leaves_nothing_and_the_others_of_its_turn_are_done(self) -> None:
        others = [self.spend("i")]
        half = self.state.drop_values([KEY, NO_KEY])
        self.failureResultOf(half, AttributeError)
        others.append(self.spend("j"))
        self.clock.pump([0, 0])
        self.assertEqual({self.successResultOf(each).used for each in others}, {(1,), (2,)})
        self.assertEqual(self.used(), 2)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM value").fetchone()[0], 0)

    def test_what_has_expired_is_removed_and_the_rest_stays_right(self) -> None:
        self.state.start()
        for number in range(1000):
            spend_one(self.state, f"u{number % 7}", f"i{number}")
            self.state.first_time("prepend", str(number), 10.0)
            self.state.keep_values([Fresh(ValueKey("sda", str(number), "a"), "1", "0")], 10.0)
        self.clock.advance(600)
        spend_one(self.state, "u0", "late")
        self.clock.advance(400)
        self.clock.pump([0.02] * 20)
        self.assertEqual(self.messages(), 1)
        self.assertEqual([self.used("u0"), self.used("u1")], [1, 0])
        self.clock.advance(1e7)
        self.clock.pump([1.0] * 20)
        for table in ("chunk", "value", "once"):
            self.assertEqual(self.other.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], 0, table)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM journal").fetchone()[0], 1)

    def test_a_drop_is_remembered_when_its_row_is_gone(self) -> None:
        self.state.start()
        [found] = self.successResultOf(self.state.values([KEY]))
        self.state.drop_values([KEY])
        self.clock.advance(1e6)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM value").fetchone()[0], 0)
        self.state.keep_values([Fresh(KEY, "1", found.token)], 100.0)
        self.clock.advance(0)
        self.assertIsNone(self.value())

    def test_the_log_is_moved_into_the_file(self) -> None:
        self.state.start()
        for number in range(200):
            self.spend(f"i{number}")
        before = os.path.getsize(self.path)
        self.clock.pump([0] + [0.25] * 20)
        self.assertGreater(os.path.getsize(self.path), before)
        self.assertEqual(self.used(), 200)

    def test_a_reader_does_not_hold_up_what_is_written(self) -> None:
        self.spend("i")
        self.clock.advance(0)
        self.other.execute("BEGIN")
        self.assertEqual(self.messages(), 1)
        writer = sqlite3.connect(self.path, timeout=0.3, isolation_level=None)
        self.addCleanup(writer.close)
        writing = Thread(target=sqlite_upkeep.checkpoint, args=(self.path,))
        for number in range(20):
            self.spend(f"i{number}")
            self.clock.advance(0)
            if number == 3:
                writing.start()
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("COMMIT")
            # The other thread is to run in between.
            time.sleep(0.01)
        writing.join()
        self.other.execute("COMMIT")
        self.assertEqual(self.messages(), 21)

    def test_a_full_disk_is_noticed_while_nobody_sends(self) -> None:
        self.spend("i")
        self.clock.advance(0)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(self.path + "-wal"), limits[1]))
        try:
            pinged = self.state.ping()
            self.clock.advance(0)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.failureResultOf(pinged, StateUnavailable)
        self.assertIn("cannot be used", self.state.problem)
        self.clock.advance(1)
        self.state.ping()
        self.clock.advance(0)
        self.assertEqual(self.state.problem, "")

    def test_once_stopped_everything_is_refused(self) -> None:
        waiting = self.spend("i")
        self.successResultOf(self.state.stop())
        self.assertEqual(self.successResultOf(waiting).used, (1,))
        self.failureResultOf(self.spend("j"), StateUnavailable)
        self.failureResultOf(self.state.usage([window_of(charge())]), StateUnavailable)
