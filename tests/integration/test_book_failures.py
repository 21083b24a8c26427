"""The book while the database is slow, hangs, is unavailable, and recovers."""

from __future__ import annotations

import atexit
import gc
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import engine as engine_module
from chapps_tw.database import schema
from chapps_tw.database.breaker import FAILURES, PROBE_SECONDS, Breaker
from chapps_tw.database.threads import Threads
from chapps_tw.interfaces.book import BookUnavailable, ChangeUncertain, Create, UserPlan
from tests.support.book_case import CLOCK, BookCase, Log, OnSqlite, RecordingCache, book_on, engine_for, working
from tests.support.servers.common import free_port
from tests.support.servers.sql import MariaDB, PostgreSQL

SIZE = 4
DEADLINE, KEEPING = 0.5, 2.0


_servers: dict[str, PostgreSQL | MariaDB] = {}


def stoppable(kind: type[PostgreSQL] | type[MariaDB]) -> PostgreSQL | MariaDB:
    """Return a server that no other tests use; created once, and not started."""
    if kind.kind not in _servers:
        _servers[kind.kind] = kind()
        atexit.register(_servers[kind.kind].stop)
    return _servers[kind.kind]


class ServerFailureTests(TestCase):
    """A private server that is stopped and started; ``kind`` of the subclass says which.

    The book's deadlines go by :attr:`clock`: an answer that is not to be missed has all the time that it takes.
    """

    __test__ = False
    kind: type[PostgreSQL] | type[MariaDB]
    unix = False
    server: PostgreSQL | MariaDB
    adapter: PolicyConfigAdapter

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = stoppable(cls.kind)
        cls.server.ensure()
        cls.adapter = cls.server.adapter(cls.server.new_database(), unix=cls.unix, pool_size=SIZE)
        engine = engine_for(cls.adapter)
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO users (name) VALUES ('alice')"))
        engine.dispose()

    def setUp(self) -> None:
        self.server.ensure()
        self.threads = Threads(CLOCK, SIZE)
        self.threads.start()
        self.clock = Clock()
        self.addCleanup(self.threads.stop)
        self.make_book()
        self.addCleanup(self.server.resume)
        self.log = Log()
        self.addCleanup(self.log.stop)

    def make_book(self) -> None:
        self.engine = engine_for(self.adapter)
        self.cache = RecordingCache()
        self.book = book_on(
            self.engine, self.threads, DEADLINE, KEEPING, size=SIZE, reactor=self.clock, cache=self.cache
        )
        self.addCleanup(self.book.stop)

    def ask(self, name: str = "alice") -> Deferred[str]:
        """Send a lookup; return its outcome."""
        asked = Deferred.fromCoroutine(self.book.user_plan(name))
        # Lookups start in the next turn.
        self.clock.advance(0)
        return asked.addCallbacks(lambda _: "answered", _unavailable)

    def ask_many(self, count: int) -> list[Deferred[str]]:
        return [self.ask(f"user{number}") for number in range(count)]

    def ping(self) -> Deferred[None]:
        asked = Deferred.fromCoroutine(self.book.ping())
        self.clock.advance(0)
        return asked

    def assert_refused(self, asked: list[Deferred[str]]) -> None:
        """They have failed already, without any action."""
        self.assertEqual([self.successResultOf(each) for each in asked], ["unavailable"] * len(asked))

    async def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not true():
            self.assertLess(time.monotonic(), end)
            await deferLater(CLOCK, 0.01)

    async def until_back(self) -> None:
        """Wait until a probe of the database succeeds."""
        end = time.monotonic() + 60
        while self.book.problem:
            self.assertLess(time.monotonic(), end, self.book.problem)
            self.clock.advance(PROBE_SECONDS)
            await self.until(lambda: not working(self.threads))
            await deferLater(CLOCK, 0.01)

    async def open(self) -> None:
        """Send lookups until the breaker is open."""
        while not self.book.problem:
            await gatherResults(self.ask_many(SIZE))

    async def test_a_hanging_server_delays_no_lookup_and_recovers_at_once(self) -> None:
        # The libraries' own logging would show tracebacks.
        with self.assertNoLogs(level="WARNING"):
            await self.hang_twice()
        await self.assert_at_rest()
        self.assertEqual(self.log.lines[1::2], ["The database is available again."] * 2)
        self.assertEqual(len(self.log.lines), 4)

    async def hang_twice(self) -> None:
        for _ in range(2):
            self.assertEqual(await self.ask(), "answered")
            self.server.pause()
            slow = self.ask_many(30)
            await self.until(lambda: working(self.threads) >= SIZE)
            self.clock.advance(DEADLINE)
            self.assert_refused(slow)
            self.assertRegex(self.book.problem, "The database is unavailable: it did not answer in 0.5 s")
            self.assert_refused(self.ask_many(200))
            self.clock.pump([PROBE_SECONDS] * 4)
            self.assertLessEqual(self.busy_threads(), 2 * SIZE)
            self.server.resume()
            await self.until_back()

    def busy_threads(self) -> int:
        return sum(thread.name.startswith("PoolThread-database") for thread in threading.enumerate())

    async def assert_at_rest(self) -> None:
        """Check that all threads return, and that all connections are free and work."""
        await self.until(lambda: not working(self.threads))
        answers = await gatherResults(self.ask_many(4 * SIZE))
        self.assertEqual(set(answers), {"answered"})

    async def test_a_server_that_is_killed_and_started_again(self) -> None:
        self.assertEqual(await self.ask(), "answered")
        self.server.kill()
        await self.open()
        self.assertRegex(self.book.problem, "^The database is unavailable: .*[Cc]onnect")
        self.assertNotIn("secret", self.book.problem)
        self.assert_refused(self.ask_many(200))
        with self.assertRaises(BookUnavailable):
            await self.ping()
        with self.assertRaises(BookUnavailable):
            await self.book.change(Create("users", {"name": "bob"}))
        self.server.start()
        await self.until_back()
        await self.ping()
        await self.assert_at_rest()
        self.assertEqual(len(self.log.lines), 2, self.log.lines)

    async def test_a_restart_between_two_lookups_is_not_noticed(self) -> None:
        self.assertEqual(await self.ask(), "answered")
        self.server.kill()
        self.server.start()
        self.assertEqual(await self.ask(), "answered")
        self.assertEqual(self.log.lines, [])

    async def test_a_change_that_was_reported_as_failed_is_not_stored(self) -> None:
        self.server.pause()
        change = Deferred.fromCoroutine(self.book.change(Create("users", {"name": "late"})))
        await self.until(lambda: working(self.threads))
        self.clock.advance(KEEPING)
        self.failureResultOf(change, BookUnavailable)
        self.server.resume()
        await self.until_back()
        await self.assert_at_rest()
        self.assertIsNone(await self.book.by_name("users", "late"))

    async def test_a_commit_whose_answer_is_lost_invalidates_what_it_may_have_made_stale(self) -> None:
        paused = threading.Event()

        def pause(_: object) -> None:
            self.server.pause()
            paused.set()

        # PyMySQL does not notice earlier that its server hangs.
        self.patch(engine_module, "STATEMENT_SECONDS", 2)
        self.make_book()
        event.listen(self.engine, "commit", pause)
        change = Deferred.fromCoroutine(self.book.change(Create("users", {"name": f"uncertain{self.unix}".lower()})))
        await self.until(paused.is_set)
        self.clock.advance(KEEPING)
        self.assertFalse(change.called)
        self.clock.advance(KEEPING)
        with self.assertRaises(ChangeUncertain):
            await change
        self.assertEqual(self.cache.take().users, {f"uncertain{self.unix}".lower()})
        # Again when its rows are found, in case it is committed after this.
        self.assertEqual(self.book.pending_invalidations, 1)

    async def test_a_single_entry_has_a_shorter_deadline_than_a_list(self) -> None:
        self.server.pause()
        several = Deferred.fromCoroutine(self.book.by_ids("users", [1, 2]))
        for look_up in (self.book.by_ids("users", [1]), self.book.by_name("users", "alice")):
            one = Deferred.fromCoroutine(look_up)
            self.clock.advance(DEADLINE)
            self.failureResultOf(one, BookUnavailable)
        self.assertNoResult(several)
        self.server.resume()
        self.assertEqual([entry.name for entry in await several], ["alice"])

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        with engine_for(self.adapter).connect() as connection:
            connection.execute(text("SELECT version_num FROM alembic_version FOR UPDATE"))
            changes = [Deferred.fromCoroutine(self.book.change(Create("users", {"name": f"n{n}"}))) for n in range(6)]
            await self.until(lambda: working(self.threads) == SIZE // 2)
            self.assertEqual(await self.ask(), "answered")
            self.assertFalse(any(change.called for change in changes))
        await gatherResults(changes)
        self.assertEqual(self.book.problem, "")


def _unavailable(failure: Failure) -> str:
    failure.trap(BookUnavailable)
    return "unavailable"


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

    async def test_a_unix_socket_works_too(self) -> None:
        engine = engine_for(self.server.adapter(self.adapter.db_name, unix=True))
        self.addCleanup(engine.dispose)
        self.assertEqual(schema.current(engine), schema.HEAD)


class SqliteFailures(OnSqlite, BookCase):
    def setUp(self) -> None:
        super().setUp()
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 200"))

    async def test_readers_are_answered_while_somebody_writes(self) -> None:
        await self.user("alice")
        with self.engine.connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, None))

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        with self.engine.connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            changes = [Deferred.fromCoroutine(self.book.change(Create("users", {"name": f"n{n}"}))) for n in range(4)]
            for change in changes:
                with self.assertRaisesRegex(BookUnavailable, "Another client is changing the database"):
                    await change
        self.assertEqual(self.book.problem, "")
        await self.user("alice")

    async def test_a_file_that_is_no_database_is_a_problem_with_a_sentence(self) -> None:
        with open(self.adapter.db_name, "r+b") as file:
            file.write(b"not a database at all")
        self.addCleanup(self.setUpClass)
        with self.assertRaisesRegex(BookUnavailable, "The database query failed: file is not a database"):
            await self.book.user_plan("alice")


class BreakerTests(SynchronousTestCase):
    """The breaker alone: threads are Deferreds that the test fires."""

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
        """Fail the work that was started last."""
        self.trouble = trouble
        self.running.pop().callback(self.work())
        self.trouble = ""

    def discard(self) -> None:
        self.discarded += 1

    def ask(self, **options: Any) -> Deferred[Any]:
        return self.breaker.call(self.nothing, 1.0, **options)

    def fail(self, count: int = FAILURES) -> None:  # type: ignore[override]
        for _ in range(count):
            answer = self.ask()
            self.lose("gone\naway")
            self.assertIn("gone", str(self.failureResultOf(answer, BookUnavailable).value))

    def test_a_result_in_time_is_returned(self) -> None:
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
        self.assertEqual(self.breaker.problem, "The database is unavailable: gone")
        self.assertEqual(self.discarded, 1)

    def probe_fails(self, text: str) -> None:
        self.clock.advance(PROBE_SECONDS)
        self.lose(text)

    def test_a_cause_that_needs_an_administrator_is_shown_and_logged_again(self) -> None:
        log = Log()
        self.addCleanup(log.stop)
        self.fail()
        self.probe_fails("is starting up")
        self.assertEqual(self.breaker.problem, "The database is unavailable: is starting up")
        for _ in range(3):
            self.probe_fails("no such table: users")
        lacking = "The database is unavailable: no such table: users: run 'chapps-cli admin db-setup'"
        self.assertEqual(log.lines, ["The database is unavailable: gone", lacking])
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

    def test_other_errors_pass_through(self) -> None:
        for _ in range(2 * FAILURES):
            answer = self.ask()
            self.running.pop(0).errback(KeyError(("users", 1)))
            self.failureResultOf(answer, KeyError)
        self.assertEqual(self.breaker.problem, "")

    def test_a_caller_that_cannot_give_up_gets_the_outcome(self) -> None:
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
            before = len(self.errors())
            gc.disable()
            self.addCleanup(gc.enable)
            for _ in range(20):
                # A breaker that never sees three failures in a row.
                breaker.succeeded()
                with self.assertRaisesRegex(BookUnavailable, "query failed"):
                    await breaker.call(engine.connect, 30)
            self.assertLess(len(self.errors()) - before, 5)
            gc.enable()

    def errors(self) -> list[object]:
        return [each for each in gc.get_objects() if type(each).__name__ == "OperationalError"]


class ThreadsTests(TestCase):
    async def test_stopping_does_not_wait_for_a_thread_that_hangs(self) -> None:
        threads, hanging = Threads(CLOCK, 1), threading.Event()
        self.addCleanup(hanging.set)
        threads.start()
        ended: list[bool] = []
        stuck = threads.run(lambda: ended.append(hanging.wait(60)))
        self.assertEqual(await threads.run(lambda: "another thread"), "another thread")
        threads.stop()
        self.assertEqual(ended, [])
        hanging.set()
        await stuck
        self.assertEqual(ended, [True])
