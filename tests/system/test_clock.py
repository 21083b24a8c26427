"""The running service when the machine's clock is set."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.policy_client import outbound
from tests.support.servers.common import wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.wall_clock import WallClock

CLIENTS = 12
YEARS = 10 * 365 * 86400
# Ahead of the true time, in this order: a step of -15 s, of -1 h, of +2 h, of +10 years and back.
STEPS = (-15, -3615, 3585, 3585 + YEARS, 3585)

# An answer takes two seconds at most. What a timer of the wall clock holds up takes 15 s and more.
PROMISED = 10.0


class _Load:
    """Clients that ask one question after the other.

    :ivar answers: how many answers there were.
    :ivar worst: how many seconds the slowest took.
    :ivar other: answers that were not DUNNO.
    """

    def __init__(self, service: Service) -> None:
        self.answers = 0
        self.worst = 0.0
        self.other: set[str] = set()
        self._service = service
        self._over = threading.Event()

    def run(self) -> None:
        with self._service.client(timeout=60) as client:
            while not self._over.is_set():
                begin = time.monotonic()
                answer = client.ask(outbound())
                self.worst = max(self.worst, time.monotonic() - begin)
                self.answers += 1
                if answer != "DUNNO":
                    self.other.add(answer)
                self._over.wait(0.02)

    def stop(self) -> None:
        self._over.set()

    def more(self, number: int = 400) -> None:
        """Wait for so many more answers."""
        before = self.answers
        wait_until(lambda: self.answers >= before + number, "answers")


class ClockTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(TemporaryDirectory(prefix="clock-")))
        self.clock = WallClock(self.folder)

    def start_service(self, options: Options | None = None) -> Service:
        service = Service(options)
        self.addCleanup(service.remove)
        service.start(self.clock.environment).wait_ready()
        service.add_user("ann", 1_000_000, ["example.com"])
        return service

    def start_redis(self) -> tuple[RedisProcess, Options]:
        """A Redis by the same clock, as on the same machine, and the options to use it."""
        redis = RedisProcess(self.folder / "redis")
        self.addCleanup(redis.stop)
        before = dict(os.environ)
        os.environ.update(self.clock.environment)
        try:
            redis.start()
        finally:
            os.environ.clear()
            os.environ.update(before)
        return redis, {"Redis": {"server": "127.0.0.1", "port": redis.port}}

    @contextmanager
    def asked(self, service: Service) -> Iterator[_Load]:
        load = _Load(service)
        threads = [threading.Thread(target=load.run) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield load
        finally:
            load.stop()
            for thread in threads:
                thread.join()

    def check_permission_ends(self, service: Service) -> None:
        """What was permitted while the clock was ahead is looked up again when it is set back."""
        self.clock.set(YEARS)
        with service.client() as client:
            self.assertEqual([client.ask(outbound()) for _ in range(2)], ["DUNNO", "DUNNO"])
            with closing(sqlite3.connect(service.directory / "chapps.sqlite3")) as book:
                book.execute("DELETE FROM domain_user")
                book.commit()
            self.assertEqual(client.ask(outbound()), "DUNNO")
            self.clock.set(0)
            self.assertIn("REJECT ", client.ask(outbound()))

    def check_steps(self, service: Service) -> None:
        with self.asked(service) as load:
            load.more()
            for ahead in STEPS:
                with self.subTest(ahead=ahead):
                    self.clock.set(ahead)
                    load.more()
                    self.assertLess(load.worst, PROMISED)
                    answers = load.answers
                    wait_until(lambda least=answers: service.decisions().count("\n") >= least, "lines in the log")  # type: ignore[misc]
        # On a machine that has no time left the state or the database may be late: that is answered as well.
        self.assertEqual({answer for answer in load.other if " 4.3.0 " not in answer}, set())


class EmbeddedTests(ClockTestCase):
    def test_every_question_is_answered_in_time_whatever_the_clock_does(self) -> None:
        self.check_steps(self.start_service())

    def test_a_permission_of_a_clock_that_was_ahead_ends_when_it_is_set_back(self) -> None:
        self.check_permission_ends(self.start_service(PATIENT))

    def test_the_log_of_the_state_is_moved_into_its_file_after_the_clock_was_set_back(self) -> None:
        service = self.start_service()
        state = service.directory / "state.sqlite3"
        with service.client() as client:
            self.clock.set(-3600)
            client.ask(outbound())
            before = state.stat().st_mtime_ns

            def moved() -> bool:
                client.ask(outbound())
                return state.stat().st_mtime_ns != before

            wait_until(moved, "a checkpoint")


class RedisTests(ClockTestCase):
    def test_every_question_is_answered_in_time_whatever_the_clock_does(self) -> None:
        _, options = self.start_redis()
        self.check_steps(self.start_service(options))

    def test_a_permission_of_a_clock_that_was_ahead_ends_when_it_is_set_back(self) -> None:
        _, options = self.start_redis()
        self.check_permission_ends(self.start_service({**PATIENT, **options}))

    def test_a_redis_that_stands_still_is_answered_for_after_the_clock_was_set_back(self) -> None:
        redis, options = self.start_redis()
        service = self.start_service(options)
        with service.client() as client:
            # On a busy machine, the first one may take longer than mail is to wait.
            wait_until(lambda: client.ask(outbound()) == "DUNNO", "mail that passes")
            self.clock.set(-3600)
            redis.hang()
            self.addCleanup(redis.go_on)
            begin = time.monotonic()
            self.assertIn("4.3.0", client.ask(outbound()))
            self.assertLess(time.monotonic() - begin, PROMISED)
            redis.go_on()
            wait_until(lambda: client.ask(outbound()) == "DUNNO", "Redis in use again")
