"""The running service when something fails under it, and when all come at once."""

from __future__ import annotations

import threading
import time
import unittest
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import NamedTuple

import pytest

from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Book, Options, Service
from tests.support.servers.sql import MariaDB, PostgreSQL, running

PLENTY = 1_000_000
TEMPORARY = "DEFER_IF_PERMIT 4.3.0 "


class Asked(NamedTuple):
    """One question. Moments are of ``time.monotonic``."""

    begin: float
    end: float
    answer: str


class Load:
    """Clients that ask one question after the other until told to stop.

    :param pause: seconds between an answer and the next question.
    """

    def __init__(self, services: Sequence[Service], connections: int, pause: float = 0.0, each: int = PLENTY) -> None:
        self.asked: list[Asked] = []
        self.broken: list[str] = []
        self._pause = pause
        self._each = each
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[services[number % len(services)]]) for number in range(connections)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.wait()

    def wait(self) -> None:
        """Wait until every client has asked all it had to ask."""
        for thread in self._threads:
            thread.join()

    def _run(self, service: Service) -> None:
        with service.client() as client:
            for _ in range(self._each):
                if self._over.is_set():
                    return
                begin = time.monotonic()
                try:
                    answer = client.ask(outbound())
                except OSError as error:
                    self.broken.append(repr(error))
                    return
                self.asked.append(Asked(begin, time.monotonic(), answer))
                time.sleep(self._pause)

    def between(self, first: float, last: float) -> list[str]:
        """Answers to questions that were asked between two moments."""
        return [asked.answer for asked in self.asked if first <= asked.begin < last]

    @property
    def passed(self) -> int:
        return sum(asked.answer == "DUNNO" for asked in self.asked)


class FailureTestCase(unittest.TestCase):
    def start_service(self, options: Options | None = None, quota: int = PLENTY, ready: bool = True) -> Service:
        service = Service(options)
        self.addCleanup(service.remove)
        service.start()
        if ready:
            service.wait_ready()
        service.add_user("ann", quota, ["example.com"])
        return service

    def start_redis(self, password: str = "") -> RedisProcess:
        folder = self.enterContext(TemporaryDirectory(prefix="redis-"))
        redis = RedisProcess(Path(folder), password)
        self.addCleanup(redis.stop)
        return redis.start()


class KilledServiceTests(FailureTestCase):
    def test_every_answered_transmission_is_counted_after_kill_9_under_load(self) -> None:
        service = self.start_service()
        answered, unanswered = 0, 0
        for _ in range(3):
            with Load([service], connections=8) as load:
                wait_until(lambda load=load: load.passed > 100, "answers")  # type: ignore[misc]
                service.kill()
            answered += load.passed
            unanswered += len(load.broken)
            service.start()
            counted = PLENTY - service.remaining("ann")
            self.assertGreaterEqual(counted, answered)
            self.assertLessEqual(counted, answered + unanswered)


@pytest.mark.timed
class RedisAwayTests(FailureTestCase):
    def run_through(self, service: Service, go: Callable[[], object], back: Callable[[], object]) -> None:
        """Take Redis away under load for three seconds, and look at every answer."""
        with Load([service], connections=16, pause=0.005) as load:
            time.sleep(0.5)
            gone = time.monotonic()
            go()
            time.sleep(3)
            back()
            returned = time.monotonic()
            time.sleep(3)
            end = time.monotonic()
        self.assertEqual(load.broken, [])
        self.assertLess(max(asked.end - asked.begin for asked in load.asked), 3)
        self.assertEqual({a for a in load.between(0, end) if a != "DUNNO" and not a.startswith(TEMPORARY)}, set())
        self.assertEqual(set(load.between(0, gone - 0.1)), {"DUNNO"})
        self.assertNotIn("DUNNO", load.between(gone + 0.1, returned - 2.1))
        self.assertEqual(set(load.between(returned + 2, end)), {"DUNNO"})

    def check_all(self, redis: RedisProcess, options: Options) -> None:
        service = self.start_service(options)
        self.run_through(service, redis.kill, redis.start)
        self.run_through(service, redis.hang, redis.go_on)
        self.assertNotIn("Traceback", service.log())
        # One line when it goes and one when it is back, and never one for each request.
        self.assertLess(len(service.log().splitlines()), 60, service.log())

    def test_without_redis_every_question_gets_a_temporary_failure_in_time(self) -> None:
        redis = self.start_redis()
        self.check_all(redis, {"Redis": {"server": "127.0.0.1", "port": redis.port}})

    def test_the_same_with_a_password_and_a_database_number(self) -> None:
        redis = self.start_redis(password="sesame")
        where = {"server": "127.0.0.1", "port": redis.port, "password": "sesame", "db": 5}
        self.check_all(redis, {"Redis": where})

    def test_a_service_that_starts_without_redis_serves_as_soon_as_it_is_there(self) -> None:
        redis = self.start_redis()
        redis.kill()
        service = self.start_service({"Redis": {"server": "127.0.0.1", "port": redis.port}}, ready=False)
        with service.client() as client:
            self.assertTrue(client.ask(outbound()).startswith(TEMPORARY))
            self.assertEqual(service.http("/ready")[0], 503)
            redis.start()
            wait_until(lambda: client.ask(outbound()) == "DUNNO", "an answer with Redis", 2)
            self.assertEqual(service.http("/ready")[0], 200)

    def test_the_first_question_after_a_start_waits_for_redis_to_be_connected(self) -> None:
        redis = self.start_redis()
        service = self.start_service({"Redis": {"server": "127.0.0.1", "port": redis.port}}, ready=False)
        for _ in range(3):
            with service.client() as client:
                self.assertEqual(client.ask(outbound()), "DUNNO")
            service.stop()
            service.start()


@pytest.mark.timed
class DatabaseAwayTests(FailureTestCase):
    """Ann has been asked about before the database goes; the others have not."""

    def test_with_postgresql_away_known_users_go_on(self) -> None:
        self.check(PostgreSQL, "postgresql+psycopg")

    def test_with_mariadb_away_known_users_go_on(self) -> None:
        # The test server writes its log once a second; here what was committed must outlive it.
        self.check(MariaDB, "mariadb+pymysql", "SET GLOBAL innodb_flush_log_at_trx_commit = 1")

    def test_a_database_that_hangs_is_told_from_a_request_that_takes_too_long(self) -> None:
        server = self.enterContext(running(PostgreSQL))
        where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": server.new_database(), "db_pass": "secret"}
        service = Service({"PolicyConfigAdapter": {"adapter": server.kind, **where}, "CHAPPS": {"request_timeout": 1}})
        self.addCleanup(service.remove)
        service.set_up_database().start().wait_ready()
        server.pause()
        with service.client() as client:
            self.assertTrue(client.ask(outbound()).startswith(TEMPORARY))
        wait_until(service.decisions, "the line in the log")
        self.assertIn("book_unavailable", service.decisions())

    def check(self, kind: type[PostgreSQL] | type[MariaDB], driver: str, first: str = "SELECT 1") -> None:
        server = self.enterContext(running(kind))
        server.execute(first)
        name = server.new_database()
        where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": name, "db_pass": "secret"}
        service = Service({"PolicyConfigAdapter": {"adapter": server.kind, **where}})
        self.addCleanup(service.remove)
        service.set_up_database().start().wait_ready()
        with Book(f"{driver}://chapps:secret@127.0.0.1:{server.port}/{name}") as book:
            for user in ("ann", "kim", "lee"):
                book.user(user, PLENTY, ["example.com"])
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        self.run_through(service, "kim", server.kill, server.start)
        self.run_through(service, "lee", server.pause, server.resume)
        self.assertNotIn("Traceback", service.log())
        self.assertLess(len(service.log().splitlines()), 60, service.log())

    def run_through(self, service: Service, unknown: str, go: Callable[[], object], back: Callable[[], object]) -> None:
        with Load([service], connections=8, pause=0.005) as known, service.client() as client:
            go()
            for _ in range(5):
                begin = time.monotonic()
                self.assertTrue(client.ask(outbound(sasl_username=unknown)).startswith(TEMPORARY))
                self.assertLess(time.monotonic() - begin, 3)
            self.assertEqual(service.http("/ready")[0], 503)
            back()
            time.sleep(2)
            self.assertEqual(client.ask(outbound(sasl_username=unknown)), "DUNNO")
        self.assertEqual(known.broken, [])
        self.assertEqual({asked.answer for asked in known.asked}, {"DUNNO"})
        self.assertLess(max(asked.end - asked.begin for asked in known.asked), 1)


class ManyAtOnceTests(FailureTestCase):
    def test_over_two_processes_exactly_the_quota_passes(self) -> None:
        redis = self.start_redis()
        options: Options = {
            "Redis": {"server": "127.0.0.1", "port": redis.port},
            "OutboundQuotaPolicy": {"margin": 0},
            **PATIENT,
        }
        first = self.start_service(options, quota=1000)
        book: Options = {"PolicyConfigAdapter": {"db_name": first.directory / "chapps.sqlite3"}}
        second = Service({**options, **book})
        self.addCleanup(second.remove)
        second.start().wait_ready()
        with Load([first, second], connections=30, each=60) as load:
            load.wait()
        self.assertEqual((len(load.asked), load.broken), (1800, []))
        self.assertEqual(load.passed, 1000)
        refused = {asked.answer for asked in load.asked if asked.answer != "DUNNO"}
        self.assertEqual({text.partition(":")[0] for text in refused}, {"REJECT Rejected - outbound quota fulfilled"})
        self.assertEqual((first.remaining("ann"), second.remaining("ann")), (0, 0))

    def test_64_connections_and_http_share_four_connections_to_redis(self) -> None:
        redis = self.start_redis()
        service = self.start_service({**PATIENT, "Redis": {"server": "127.0.0.1", "port": redis.port, "pool_size": 4}})
        most, least = 0, 1000
        with Load([service], connections=64) as load:
            end = time.monotonic() + 3
            while time.monotonic() < end or len(load.asked) < least:
                service.remaining("ann")
                most = max(most, len(redis.clients()))
        self.assertEqual(load.broken, [])
        self.assertEqual({asked.answer for asked in load.asked}, {"DUNNO"})
        self.assertIn(most, range(1, 5))
