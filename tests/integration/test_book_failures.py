"""The book while the database is slow, hung, gone, and back."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from chapps_tw.config import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.database.breaker import FAILURES, PROBE_SECONDS, Breaker
from chapps_tw.database.keeper import Keeper
from chapps_tw.database.threads import Threads
from chapps_tw.interfaces import BookUnavailable, ChangeUncertain, QuotaGrant
from tests.support.book_case import CLOCK, BookCase, Log, OnSqlite, engine_for
from tests.support.servers.common import free_port
from tests.support.servers.sql import MariaDB, PostgreSQL

SIZE = 4
DEADLINE = 0.5


@pytest.mark.timed
class ServerFailureTests(TestCase):
    """A server of one's own that is stopped and started. The mixin's ``kind`` says which."""

    __test__ = False
    kind: type[PostgreSQL] | type[MariaDB]
    unix = False
    server: PostgreSQL | MariaDB
    adapter: PolicyConfigAdapter

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.kind()
        cls.server.start()
        cls.adapter = cls.server.adapter(cls.server.new_database(), unix=cls.unix, pool_size=SIZE)
        engine = engine_for(cls.adapter)
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO users (name) VALUES ('alice')"))
        engine.dispose()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()

    def setUp(self) -> None:
        self.server.ensure()
        self.threads = Threads(CLOCK, SIZE)
        self.threads.start()
        self.engine = engine_for(self.adapter)
        self.book = Keeper(self.engine, CLOCK, self.threads.run, SIZE, DEADLINE, 1.0)
        self.addCleanup(self.threads.stop)
        self.addCleanup(self.book.stop)
        self.addCleanup(self.server.resume)
        self.log = Log()
        self.addCleanup(self.log.stop)

    async def ask(self, name: str = "alice") -> tuple[str, float]:
        """What became of a question, and how many seconds that took."""
        start = time.monotonic()
        try:
            await self.book.quota_of(name)
            answer = "answered"
        except BookUnavailable:
            answer = "unavailable"
        return answer, time.monotonic() - start

    async def ask_many(self, count: int) -> list[tuple[str, float]]:
        return await gatherResults([Deferred.fromCoroutine(self.ask(f"user{number}")) for number in range(count)])

    async def seconds_until_back(self) -> float:
        start = time.monotonic()
        while (await self.ask())[0] != "answered":
            await deferLater(CLOCK, 0.05)
            self.assertLess(time.monotonic() - start, 40)
        return time.monotonic() - start

    async def open(self) -> None:
        """Ask until the breaker is open."""
        while not self.book.problem:
            await self.ask_many(SIZE)

    async def test_a_server_that_hangs_keeps_nobody_waiting_and_is_back_at_once(self) -> None:
        # The libraries' own logging would show tracebacks.
        with self.assertNoLogs(level="WARNING"):
            await self.hang_twice()
        await self.assert_at_rest()
        self.assertEqual(self.log.lines[1::2], ["The database is back."] * 2)
        self.assertEqual(len(self.log.lines), 4)

    async def hang_twice(self) -> None:
        for _ in range(2):
            self.assertEqual((await self.ask())[0], "answered")
            self.server.pause()
            slow = await self.ask_many(30)
            self.assertEqual({answer for answer, _ in slow}, {"unavailable"})
            self.assertLess(max(seconds for _, seconds in slow), DEADLINE + 0.5)
            self.assertRegex(self.book.problem, "The database is away: it did not answer in 0.5 s")
            fast = await self.ask_many(200)
            self.assertEqual({answer for answer, _ in fast}, {"unavailable"})
            self.assertLess(max(seconds for _, seconds in fast), DEADLINE)
            await deferLater(CLOCK, 2)
            self.assertLessEqual(self.busy_threads(), 2 * SIZE)
            self.server.resume()
            self.assertLess(await self.seconds_until_back(), 2)
            self.assertEqual(self.book.problem, "")

    def busy_threads(self) -> int:
        return sum(thread.name.startswith("PoolThread-database") for thread in threading.enumerate())

    async def assert_at_rest(self) -> None:
        """All threads come back, all connections are free, and all of them work."""
        end = time.monotonic() + 40
        while self.threads._pool.working and time.monotonic() < end:
            await deferLater(CLOCK, 0.1)
        self.assertEqual(len(self.threads._pool.working), 0)
        answers = await self.ask_many(4 * SIZE)
        self.assertEqual({answer for answer, _ in answers}, {"answered"})

    async def test_a_server_that_is_killed_and_started_again(self) -> None:
        self.assertEqual((await self.ask())[0], "answered")
        self.server.kill()
        await self.open()
        self.assertRegex(self.book.problem, "^The database is away: .*[Cc]onnect")
        self.assertNotIn("secret", self.book.problem)
        refused = await self.ask_many(200)
        self.assertLess(max(seconds for _, seconds in refused), DEADLINE)
        with self.assertRaises(BookUnavailable):
            await self.book.ping()
        with self.assertRaises(BookUnavailable):
            await self.book.create("users", {"name": "bob"}, {})
        self.server.start()
        self.assertLess(await self.seconds_until_back(), 2)
        await self.book.ping()
        await self.assert_at_rest()
        self.assertEqual(len(self.log.lines), 2, self.log.lines)

    async def test_a_restart_between_two_questions_is_not_noticed(self) -> None:
        self.assertEqual((await self.ask())[0], "answered")
        self.server.kill()
        self.server.start()
        self.assertEqual((await self.ask())[0], "answered")
        self.assertEqual(self.log.lines, [])

    async def test_a_change_that_was_told_to_have_failed_is_not_in_force(self) -> None:
        self.server.pause()
        with self.assertRaises(BookUnavailable):
            await self.book.create("users", {"name": "late"}, {})
        self.server.resume()
        await self.seconds_until_back()
        await self.assert_at_rest()
        self.assertIsNone(await self.book.by_name("users", "late"))

    async def test_a_commit_whose_answer_is_lost_says_what_it_may_have_touched(self) -> None:
        event.listen(self.engine, "commit", self.pause)
        change = Deferred.fromCoroutine(self.book.create("users", {"name": f"uncertain{self.unix}".lower()}, {}))
        await deferLater(CLOCK, 1.5)
        self.assertFalse(change.called)
        with self.assertRaises(ChangeUncertain) as caught:
            await change
        self.assertEqual(caught.exception.touched.limits, {f"uncertain{self.unix}".lower()})
        # Its rows, should they come, must outlive a drop that is done now.
        self.assertEqual(caught.exception.touched.pending, ())

    async def test_one_entry_is_not_waited_for_as_long_as_a_list(self) -> None:
        self.book = Keeper(self.engine, CLOCK, self.threads.run, SIZE, DEADLINE, 20.0)
        self.addCleanup(self.book.stop)
        self.server.pause()
        for look_up in (self.book.by_ids("users", [1]), self.book.by_name("users", "alice")):
            start = time.monotonic()
            with self.assertRaises(BookUnavailable):
                await look_up
            self.assertLess(time.monotonic() - start, DEADLINE + 0.5)

    def pause(self, _connection: object) -> None:
        self.server.pause()
        # A signal takes a moment to reach a thread that is running.
        time.sleep(0.2)

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        self.book = Keeper(self.engine, CLOCK, self.threads.run, SIZE, DEADLINE, 20.0)
        self.addCleanup(self.book.stop)
        with engine_for(self.adapter).connect() as connection:
            connection.execute(text("SELECT version_num FROM alembic_version FOR UPDATE"))
            changes = [Deferred.fromCoroutine(self.book.create("users", {"name": f"n{n}"}, {})) for n in range(6)]
            await deferLater(CLOCK, 1)
            self.assertEqual((await self.ask())[0], "answered")
            self.assertFalse(any(change.called for change in changes))
        await gatherResults(changes)
        self.assertEqual(self.book.problem, "")


class PostgreSQLFailures(ServerFailureTests):
    __test__ = True
    kind = PostgreSQL


class PostgreSQLSocketFailures(ServerFailureTests):
    __test__ = True
    kind = PostgreSQL
    unix = True


class MariaDBFailures(ServerFailureTests):
    __test__ = True
    kind = MariaDB

    async def test_a_unix_socket_does_as_well(self) -> None:
        engine = engine_for(self.server.adapter(self.adapter.db_name, unix=True))
        self.addCleanup(engine.dispose)
        self.assertEqual(schema.current(engine), schema.head())


class SqliteFailures(OnSqlite, BookCase):
    async def test_readers_are_answered_while_somebody_writes(self) -> None:
        await self.user("alice")
        with self.engine.connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            self.assertEqual(await self.book.quota_of("alice"), QuotaGrant(True, None))

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        with self.engine.connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            changes = [Deferred.fromCoroutine(self.book.create("users", {"name": f"n{n}"}, {})) for n in range(4)]
            for change in changes:
                with self.assertRaisesRegex(BookUnavailable, "Somebody else is changing the database"):
                    await change
        self.assertEqual(self.book.problem, "")
        await self.user("alice")

    async def test_a_file_that_is_no_database_is_a_problem_with_a_sentence(self) -> None:
        with open(self.adapter.db_name, "r+b") as file:
            file.write(b"not a database at all")
        self.addCleanup(self.setUpClass)
        with self.assertRaisesRegex(BookUnavailable, "The database cannot be asked: file is not a database"):
            await self.book.quota_of("alice")


class BreakerTests(SynchronousTestCase):
    """The breaker by itself: threads are Deferreds that the test fires."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.running: list[Deferred[Any]] = []
        self.work: Callable[[], Any] = self.nothing
        self.trouble = ""
        self.discarded = 0
        self.breaker = Breaker(self.clock, self.run_later, self.nothing, self.discard, SIZE)

    def run_later(self, work: Callable[[], Any]) -> Deferred[Any]:
        self.work = work
        self.running.append(Deferred())
        return self.running[-1]

    def nothing(self) -> None:
        if self.trouble:
            raise OperationalError("", {}, Exception(1, self.trouble))

    def lose(self, trouble: str) -> None:
        """Let the work that was begun last fail."""
        self.trouble = trouble
        self.running.pop().callback(self.work())
        self.trouble = ""

    def discard(self) -> None:
        self.discarded += 1

    def ask(self, **options: Any) -> Deferred[Any]:
        return self.breaker.ask(self.nothing, 1.0, **options)

    def fail(self, count: int = FAILURES) -> None:  # type: ignore[override]
        for _ in range(count):
            answer = self.ask()
            self.lose("gone\naway")
            self.assertIn("gone", str(self.failureResultOf(answer, BookUnavailable).value))

    def test_an_answer_in_time_is_given(self) -> None:
        answer = self.ask()
        self.running[0].callback("yes")
        self.assertEqual(self.successResultOf(answer), "yes")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failures_in_a_row_open_it_and_one_success_between_does_not(self) -> None:
        self.fail(FAILURES - 1)
        self.ask()
        self.running.pop(0).callback(None)
        self.fail(FAILURES - 1)
        self.assertEqual(self.breaker.problem, "")
        self.fail(1)
        self.assertEqual(self.breaker.problem, "The database is away: gone")
        self.assertEqual(self.discarded, 1)

    def probe_fails(self, text: str) -> None:
        self.clock.advance(PROBE_SECONDS)
        self.lose(text)

    def test_what_keeps_it_away_is_shown_and_logged_once_more_when_it_waits_for_somebody(self) -> None:
        log = Log()
        self.addCleanup(log.stop)
        self.fail()
        self.probe_fails("is starting up")
        self.assertEqual(self.breaker.problem, "The database is away: is starting up")
        for _ in range(3):
            self.probe_fails("no such table: users")
        lacking = "The database is away: no such table: users: run 'chapps-cli admin db-setup'"
        self.assertEqual(log.lines, ["The database is away: gone", lacking])
        self.assertEqual(self.breaker.problem, lacking)

    def test_while_it_is_open_only_one_probe_at_a_time_runs(self) -> None:
        self.fail()
        for _ in range(100):
            self.failureResultOf(self.ask(), BookUnavailable)
        self.assertEqual(self.running, [])
        self.clock.advance(PROBE_SECONDS)
        self.clock.advance(PROBE_SECONDS)
        self.assertEqual(len(self.running), 1)
        self.running.pop().callback(None)
        self.assertEqual(self.breaker.problem, "")

    def test_threads_that_never_come_back_are_bounded(self) -> None:
        for _ in range(SIZE):
            self.ask().addErrback(lambda failure: failure.trap(BookUnavailable))
        self.clock.advance(1)
        self.assertTrue(self.breaker.problem)
        self.clock.pump([PROBE_SECONDS] * 200)
        self.assertEqual(len(self.running), 2 * SIZE)
        for thread in self.running[:]:
            thread.callback(None)
        self.clock.advance(PROBE_SECONDS)
        self.running[-1].callback(None)
        self.assertEqual(self.breaker.problem, "")

    def test_what_is_not_the_databases_fault_passes_through(self) -> None:
        for _ in range(2 * FAILURES):
            answer = self.ask()
            self.running.pop(0).errback(KeyError(("users", 1)))
            self.failureResultOf(answer, KeyError)
        self.assertEqual(self.breaker.problem, "")

    def test_one_who_may_not_give_up_gets_the_outcome(self) -> None:
        answer = self.ask(give_up=lambda: False)
        self.clock.advance(1)
        self.assertNoResult(answer)
        self.assertEqual(self.discarded, 0)
        self.clock.advance(1)
        self.assertNoResult(answer)
        self.assertEqual(self.discarded, 1)
        self.running[0].callback("done")
        self.assertEqual(self.successResultOf(answer), "done")

    def test_once_stopped_it_leaves_no_timer(self) -> None:
        self.fail()
        self.breaker.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class MemoryTests(TestCase):
    async def test_failures_leave_nothing_behind_for_the_collector(self) -> None:
        for kind in ("postgresql", "mariadb"):
            adapter = PolicyConfigAdapter(adapter=kind, db_host="127.0.0.1", db_port=free_port(), pool_size=SIZE)
            threads = Threads(CLOCK, SIZE)
            threads.start()
            self.addCleanup(threads.stop)
            breaker = Breaker(CLOCK, threads.run, lambda: None, lambda: None, SIZE)
            engine = engine_for(adapter)
            gc.collect()
            gc.disable()
            self.addCleanup(gc.enable)
            for _ in range(20):
                # One that never has three failures in a row.
                breaker.succeeded()
                with self.assertRaisesRegex(BookUnavailable, "cannot be asked"):
                    await breaker.ask(engine.connect, 30)
            left = [each for each in gc.get_objects() if type(each).__name__ == "OperationalError"]
            self.assertLess(len(left), 5)
            gc.enable()


class ThreadsTests(TestCase):
    async def test_stopping_does_not_wait_for_a_thread_that_hangs(self) -> None:
        threads, hanging = Threads(CLOCK, 1), threading.Event()
        self.addCleanup(hanging.set)
        threads.start()
        stuck = threads.run(lambda: hanging.wait(30))
        self.assertEqual(await threads.run(lambda: "another thread"), "another thread")
        start = time.monotonic()
        threads.stop()
        self.assertLess(time.monotonic() - start, 15)
        self.assertFalse(stuck.called)
        hanging.set()
        self.assertTrue(await stuck)
