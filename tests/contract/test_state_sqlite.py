"""The live state in SQLite."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from chapps_tw.interfaces.state import (
    Fill,
    GreylistAttempt,
    GreylistResult,
    GreylistRules,
    Outcome,
    Rules,
    Spend,
    StateUnavailable,
)
from chapps_tw.state.sqlite import upkeep as sqlite_upkeep
from chapps_tw.state.sqlite.file import StateTooNew
from chapps_tw.state.sqlite.store import SqliteState
from tests.contract.state_contract import LiveStateContract
from tests.support.paths import ROOT
from tests.support.servers.common import Process, wait_until

LIMIT = 4000
START = 1_700_000_000.0
RULES = Rules(interval=1000.0, margin_count=0, margin_ratio=0.0, min_delta=0.0)


def temporary(test: SynchronousTestCase) -> str:
    """A path in a directory that goes away with a test."""
    directory = TemporaryDirectory(prefix="chapps-state-")
    test.addCleanup(directory.cleanup)
    return str(Path(directory.name, "state.sqlite3"))


class InMemory(LiveStateContract, TestCase):
    path = ":memory:"

    def setUp(self) -> None:
        self.now = START
        self.state = SqliteState(self.path, lambda: self.now, reactor)
        self.state.start()
        self.addCleanup(self.state.stop)

    def advance(self, seconds: float) -> None:
        self.now += seconds


class InFile(InMemory):
    def setUp(self) -> None:
        self.path = temporary(self)
        super().setUp()


@implementer(IReactorThreads)
class HandReactor(Clock):
    """A reactor that is moved on by hand, and does a thread's work at once."""

    def getThreadPool(self) -> Any:
        return self

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], work: Callable[..., object], *args: object
    ) -> None:
        try:
            result = work(*args)
        except Exception:
            done(False, Failure())
        else:
            done(True, result)

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def callInThread(self, callable: Callable[..., Any], *args: object, **kwargs: object) -> None:
        callable(*args, **kwargs)

    def suggestThreadPoolSize(self, size: int) -> None:
        """There is none."""


class Turns(SynchronousTestCase):
    """What is written when, in a file whose reactor's turns go on by hand."""

    def setUp(self) -> None:
        self.clock = HandReactor()
        self.clock.advance(START)
        self.path = temporary(self)
        self.state = SqliteState(self.path, self.clock.seconds, self.clock)
        self.fill = Fill("0", 1000, 1e6)
        self.other = sqlite3.connect(self.path, timeout=0, isolation_level=None)
        self.addCleanup(self.other.close)

    def tearDown(self) -> None:
        self.successResultOf(self.state.stop())

    def messages(self) -> int:
        return int(self.other.execute("SELECT COUNT(*) FROM message").fetchone()[0])

    def spend(self, instance: str) -> object:
        return self.state.spend(Spend("bob", instance, "a", 0), RULES, self.fill)

    def used(self) -> int:
        return self.successResultOf(self.state.usage(["bob"], 1000.0))[0].used

    def test_an_answer_comes_when_it_is_written(self) -> None:
        waiting = [self.state.spend(Spend("bob", f"i{number}", "", 1), RULES, self.fill) for number in range(3)]
        for each in waiting:
            self.assertNoResult(each)
        self.assertEqual(self.messages(), 0)
        self.clock.advance(0)
        self.assertEqual(self.messages(), 3)
        self.assertEqual([self.successResultOf(each).used for each in waiting], [1, 2, 3])

    def test_who_sees_what_is_not_written_waits_for_it(self) -> None:
        first = self.state.spend(Spend("bob", "i", "", 1), RULES, self.fill)
        repeated = self.state.spend(Spend("bob", "i", "", 1), RULES)
        usage = self.state.usage(["bob"], 1000.0)
        for each in (first, repeated, usage):
            self.assertNoResult(each)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(repeated).outcome, Outcome.REPEATED)
        self.assertEqual(self.successResultOf(usage)[0].used, 1)

    def test_who_sees_nothing_unwritten_need_not_wait(self) -> None:
        self.spend("i")
        self.assertEqual(self.successResultOf(self.state.verdicts("sda", "bob", ["a"]))[0].allowed, None)
        self.clock.advance(0)
        again = self.state.spend(Spend("bob", "i", "a", 0), RULES)
        self.assertEqual(self.successResultOf(again).outcome, Outcome.REPEATED)

    def test_a_commit_that_fails_fails_all_that_wait_and_the_next_works(self) -> None:
        self.spend("before")
        self.clock.advance(0)
        waiting = [self.state.spend(Spend("bob", f"i{number}", "", 1), RULES) for number in range(3)]
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
        after = self.state.spend(Spend("bob", "i0", "", 1), RULES)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(after).used, 2)
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
            refused.append(self.state.spend(Spend("bob", f"i{number}", "", 1), RULES))
            self.clock.advance(0.007)
        self.assertEqual(statements.count("BEGIN IMMEDIATE"), 1)
        for each in refused:
            self.failureResultOf(each, StateUnavailable)
        self.assertEqual(self.used(), 1)
        self.other.execute("COMMIT")
        self.clock.advance(0.5)
        after = self.state.spend(Spend("bob", "i0", "", 1), RULES)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(after).used, 2)

    def test_what_another_process_has_written_is_seen(self) -> None:
        other = SqliteState(self.path, self.clock.seconds, self.clock)
        self.addCleanup(other.stop)
        self.met(self.state, Fill("0", 1, 1e6))
        self.state.keep_verdicts("sda", "bob", [("a", True, "0")], 1e6)
        self.clock.advance(60)
        for number in range(3):
            met = self.met(other, None, f"i{number}")
        self.assertEqual((met.outcome, met.tally), (Outcome.PASSED, 3))
        self.assertEqual(self.met(self.state).outcome, Outcome.KNOWN_CLIENT)
        other.drop_verdicts("sda", "bob", ["a"])
        other.drop_flags(["our.example"])
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(self.state.verdicts("sda", "bob", ["a"]))[0].allowed)
        self.assertEqual(self.met(self.state).outcome, Outcome.MISSING)

    def met(self, state: SqliteState, fill: Fill | None = None, instance: str = "i") -> GreylistResult:
        """What becomes of a message that greylisting meets."""
        attempt = GreylistAttempt("c", "s", "r", "our.example", instance, False)
        waiting = state.check_greylist(attempt, GreylistRules(60.0, 1e6, 1e6, 1e6, threshold=3), fill)
        self.clock.advance(0)
        met: GreylistResult = self.successResultOf(waiting)
        return met

    def test_what_was_taken_back_is_not_remembered(self) -> None:
        self.met(self.state, Fill("0", 1, 1e6))
        self.clock.advance(60)
        attempt = GreylistAttempt("c", "s", "r", "our.example", "", False)
        rules = GreylistRules(60.0, 1e6, 1e6, 1e6, threshold=1)
        again: list[Any] = [
            self.state.keep_verdicts("sda", "bob", [("a", True, "0")], 1e6),
            self.state.verdicts("sda", "bob", ["a"]),
            self.state.check_greylist(attempt._replace(instance="i"), rules),
            self.state.check_greylist(attempt, rules),
        ]
        self.failureResultOf(self.state.drop_verdicts("sda", "bob", ["a", 5]), AttributeError)  # type: ignore[list-item]
        # What was remembered of the drop and of the others went with the turn.
        self.assertIsNone(self.successResultOf(self.state.verdicts("sda", "bob", ["a"]))[0].allowed)
        self.assertEqual(self.successResultOf(self.state.peek_greylist(attempt, rules)).outcome, Outcome.PASSED)
        self.clock.pump([0, 0])
        _, verdicts, *met = (self.successResultOf(each) for each in again)
        self.assertTrue(verdicts[0].allowed)
        self.assertEqual([each.outcome for each in met], [Outcome.PASSED, Outcome.KNOWN_CLIENT])

    def test_a_question_that_makes_no_sense_harms_no_other(self) -> None:
        good = self.state.spend(Spend("bob", "i", "", 1), RULES, self.fill)
        self.failureResultOf(self.state.spend(Spend("bob", "j", "", None), RULES), TypeError)  # type: ignore[arg-type]
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(good).used, 1)

    def test_a_change_that_fails_half_way_leaves_nothing_and_the_others_of_its_turn_are_done(self) -> None:
        others = [self.state.spend(Spend("bob", "i", "", 1), RULES, self.fill)]
        half = self.state.drop_verdicts("sda", "bob", ["a", 5])  # type: ignore[list-item]
        self.failureResultOf(half, AttributeError)
        others.append(self.state.spend(Spend("bob", "j", "", 1), RULES, self.fill))
        self.clock.pump([0, 0])
        self.assertEqual({self.successResultOf(each).used for each in others}, {1, 2})
        self.assertEqual(self.used(), 2)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM verdict").fetchone()[0], 0)

    def test_what_has_expired_is_removed_and_the_rest_stays_right(self) -> None:
        self.state.start()
        for number in range(1000):
            self.state.spend(Spend(f"u{number % 7}", f"i{number}", "a", 0), RULES, self.fill)
            self.state.first_time("prepend", str(number), 10.0)
            self.state.keep_verdicts("sda", str(number), [("a", True, "0")], 10.0)
        self.clock.advance(600)
        self.state.spend(Spend("u0", "late", "a", 0), RULES)
        self.clock.advance(400)
        self.clock.pump([0.02] * 20)
        self.assertEqual(self.messages(), 1)
        self.assertEqual(self.successResultOf(self.state.usage(["u0", "u1"], 1000.0))[0].used, 1)
        self.clock.advance(1e7)
        self.clock.pump([1.0] * 20)
        for table in ("message", "account", "verdict", "once"):
            self.assertEqual(self.other.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0], 0, table)

    def test_a_drop_is_remembered_when_its_row_is_gone(self) -> None:
        self.state.start()
        token = self.successResultOf(self.state.spend(Spend("bob", "i", "a", 0), RULES)).token
        verdict = self.successResultOf(self.state.verdicts("sda", "bob", ["a"]))[0]
        self.state.drop_limits(["bob"])
        self.state.drop_verdicts("sda", "bob", ["a"])
        self.clock.advance(1e6)
        self.clock.pump([1.0] * 5)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM account").fetchone()[0], 0)
        self.assertEqual(self.other.execute("SELECT COUNT(*) FROM verdict").fetchone()[0], 0)
        self.state.spend(Spend("bob", "i", "a", 0), RULES, Fill(token, 5, 100.0))
        self.state.keep_verdicts("sda", "bob", [("a", True, verdict.token)], 100.0)
        self.clock.advance(0)
        self.assertIsNone(self.successResultOf(self.state.usage(["bob"], 1000.0))[0].limit)
        self.assertIsNone(self.successResultOf(self.state.verdicts("sda", "bob", ["a"]))[0].allowed)

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
        waiting = self.state.spend(Spend("bob", "i", "a", 0), RULES, self.fill)
        self.successResultOf(self.state.stop())
        self.assertEqual(self.successResultOf(waiting).used, 1)
        self.failureResultOf(self.state.spend(Spend("bob", "j", "a", 0), RULES), StateUnavailable)
        self.failureResultOf(self.state.usage(["bob"], 1000.0), StateUnavailable)


class Files(TestCase):
    """The file itself."""

    def open(self, path: str) -> SqliteState:
        state = SqliteState(path, lambda: START, reactor)
        state.start()
        return state

    def assertRefused(self, path: str, why: str) -> StateUnavailable:
        error: StateUnavailable = self.assertRaises(StateUnavailable, self.open, path)
        self.assertIn(why, str(error))
        self.assertIn(path, str(error))
        return error

    async def test_nobody_else_can_read_it(self) -> None:
        directory = Path(temporary(self), "a", "b")
        state = self.open(str(directory / "state"))
        await state.ping()
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        self.assertEqual(modes, {"state": 0o600, "state-wal": 0o600, "state-shm": 0o600})
        await state.stop()

    async def test_what_was_counted_is_there_after_a_restart_and_the_log_is_gone(self) -> None:
        path = temporary(self)
        state = self.open(path)
        await state.spend(Spend("bob", "i", "a", 0), RULES, Fill("0", 5, 1e6))
        await state.stop()
        self.assertFalse(os.path.exists(path + "-wal"))
        state = self.open(path)
        self.assertEqual((await state.spend(Spend("bob", "i", "a", 0), RULES)).outcome, Outcome.REPEATED)
        await state.stop()

    async def test_stopping_in_the_middle_of_a_turn_loses_nothing(self) -> None:
        state = self.open(temporary(self))
        waiting = state.spend(Spend("bob", "i", "a", 0), RULES, Fill("0", 5, 1e6))
        await state.stop()
        self.assertEqual((await waiting).used, 1)

    async def test_stopping_what_never_was_asked_does_nothing(self) -> None:
        path = temporary(self)
        await SqliteState(path, lambda: START, reactor).stop()
        self.assertFalse(os.path.exists(path))

    async def test_a_file_that_another_process_writes_to_can_be_opened(self) -> None:
        path = temporary(self)
        await self.open(path).stop()
        other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        state = self.open(path)
        self.assertEqual((await state.usage(["bob"], 1000.0))[0].used, 0)
        other.execute("COMMIT")
        await state.stop()

    async def test_a_file_of_a_later_version_is_left_alone(self) -> None:
        path = temporary(self)
        await self.open(path).stop()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        self.assertIsInstance(self.assertRefused(path, "version 99"), StateTooNew)

    async def test_a_file_of_the_first_version_keeps_what_was_counted(self) -> None:
        path = temporary(self)
        state = self.open(path)
        await state.spend(Spend("bob", "i", "a", 0), RULES, Fill("0", 5, 1e6))
        await state.stop()
        with sqlite3.connect(path) as db:
            db.execute("ALTER TABLE meta DROP COLUMN pings")
            for table, column in (("account", "oldest"), ("account", "kept"), ("verdict", "kept")):
                db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
            db.execute("DROP TABLE meeting")
            db.execute("CREATE TABLE meeting (tuple BLOB PRIMARY KEY, first REAL, last REAL, until REAL) WITHOUT ROWID")
            db.execute("INSERT INTO meeting VALUES (x'00112233445566778899aabbccddeeff', 1.0, 1.0, 1e12)")
            db.execute("PRAGMA user_version = 1")
        db.close()
        for _ in range(2):
            state = self.open(path)
            self.assertEqual((await state.usage(["bob"], 1000.0))[0].used, 1)
            met = await state.check_greylist(
                GreylistAttempt("c", "s", "r", "", "", True), GreylistRules(0.0, 1000.0, 1000.0, 1000.0, 0)
            )
            self.assertEqual(met.outcome, Outcome.PASSED)
            await state.stop()

    def test_a_database_of_something_else_is_left_alone(self) -> None:
        path = temporary(self)
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE users (name TEXT)")
        before = Path(path).read_bytes()
        self.assertRefused(path, "another program")
        self.assertEqual(Path(path).read_bytes(), before)

    def test_a_file_that_is_no_database_is_refused(self) -> None:
        path = temporary(self)
        Path(path).write_text("not a database, but long enough to be looked at as if it were one" * 20)
        self.assertRefused(path, "not a database")

    def test_a_place_where_no_file_can_be_is_refused(self) -> None:
        path = temporary(self)
        os.mkdir(path)
        self.assertRefused(path, "directory")
        self.assertRefused("/proc/none/state", "/proc/none/state")


class Processes(TestCase):
    """Real processes with a real reactor on one file."""

    def spender(self, path: str, name: str, limit: int) -> Process:
        root = ROOT
        environment = os.environ | {"PYTHONPATH": str(root)}
        command = [sys.executable, "-m", "tests.support.state_spender", os.path.abspath(path), name, str(limit)]
        process = Process(command, Path(temporary(self)), env=environment)
        self.addCleanup(process.stop)
        return process

    def told(self, process: Process) -> list[list[str]]:
        # The last line may be cut off.
        return [line.split() for line in process.output().split("\n")[:-1]]

    async def test_a_process_killed_at_any_moment_loses_nothing_that_it_has_answered(self) -> None:
        path = temporary(self)
        answered: list[str] = []
        for name, enough in (("first", 300), ("second", 500), ("third", 100)):
            process = self.spender(path, name, 10**6)
            wait_until(lambda process=process, enough=enough: len(self.told(process)) > enough, "spending")  # type: ignore[misc]
            process.signal(signal.SIGKILL)
            process.stop()
            answered += [instance for instance, outcome in self.told(process) if outcome == "ACCEPTED"]
        state = SqliteState(path, time.time, reactor)
        self.addCleanup(state.stop)
        rules = RULES._replace(interval=86400.0)
        for instance in answered:
            spent = await state.spend(Spend("bob", instance, "r@example.net", 0), rules)
            self.assertEqual(spent.outcome, Outcome.REPEATED)
        used = (await state.usage(["bob"], 86400.0))[0].used
        # Of each process, one at most was counted and not answered.
        self.assertIn(used - len(answered), range(4))

    async def test_two_processes_on_one_file_let_exactly_the_limit_through(self) -> None:
        path = temporary(self)
        both = [self.spender(path, "one", LIMIT), self.spender(path, "two", LIMIT)]
        for process in both:
            wait_until(lambda process=process: process.popen.poll() is not None, "ending", 90.0)  # type: ignore[misc]
        self.assertEqual([process.stop() for process in both], [0, 0], [process.output()[-2000:] for process in both])
        accepted = [sum(outcome == "ACCEPTED" for _, outcome in self.told(process)) for process in both]
        self.assertEqual(sum(accepted), LIMIT, [process.output()[-500:] for process in both])
        with sqlite3.connect(path) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual(db.execute("SELECT used FROM account").fetchall(), [(LIMIT,)])
            self.assertEqual(db.execute("SELECT SUM(cost) FROM message").fetchall(), [(LIMIT,)])
