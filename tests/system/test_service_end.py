"""How the running service ends: whoever has asked is answered."""

from __future__ import annotations

import signal
import threading
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.rest_client import ask
from tests.support.servers.common import listening, wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import CLEAN, Options, Service, started

# For what no answer may be late in, however slow the machine is.
PATIENT_SECONDS = 30


class HungStoreTestCase(unittest.TestCase):
    """A service whose Redis can be stopped in the middle of a question."""

    redis: RedisProcess

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = RedisProcess(Path(cls.enterClassContext(TemporaryDirectory(prefix="redis-")))).start()
        cls.addClassCleanup(cls.redis.stop)

    def start(self, seconds: float) -> Service:
        """Start a service; a question to it takes so many seconds at most."""
        self.addCleanup(self.redis.go_on)
        where: Options = {"Redis": {"server": "127.0.0.1", "port": self.redis.port}}
        return started(self, {**where, "CHAPPS": {"request_timeout": seconds}})

    def hang(self, service: Service, client: PolicyClient) -> None:
        """Have a question wait for Redis, which hangs from now on."""
        self.assertEqual(client.ask(outbound()), "DUNNO")
        self.redis.hang()
        client.send(encode(outbound()))
        wait_until(lambda: " 1.0" in in_flight(service), "the question taken")


def in_flight(service: Service) -> str:
    """The line of the metrics that says how many questions wait for their answers."""
    text = ask(service.ports["api"], "GET", "/metrics", token=service.token).body.decode()
    [line] = [line for line in text.splitlines() if line.startswith('chapps_in_flight{listener="outbound"}')]
    return line


class EndTests(HungStoreTestCase):
    def test_sigterm_lets_a_question_in_flight_be_answered(self) -> None:
        service = self.start(PATIENT_SECONDS)
        with service.client() as client, service.client() as idle:
            self.assertEqual(idle.ask(outbound()), "DUNNO")
            self.hang(service, client)
            service.signal(signal.SIGTERM)
            wait_until(lambda: not listening(service.ports["outbound"]), "no more clients taken")
            self.redis.go_on()
            self.assertEqual(client.answer(), "DUNNO")
            self.assertTrue(idle.is_closed())
            wait_until(lambda: service.has_ended, "the end of the service")
        self.assertIn(service.stop(), CLEAN)
        self.assertNotIn("Traceback", service.log())

    def test_signals_that_come_again_while_it_stops_change_nothing(self) -> None:
        for first in (signal.SIGTERM, signal.SIGINT):
            for at_once in (True, False):
                with self.subTest(first=first, at_once=at_once):
                    self._stop_with(first, signal.SIGTERM, at_once)

    def _stop_with(self, first: signal.Signals, second: signal.Signals, at_once: bool) -> None:
        """Stop it by two signals while a question waits for its answer."""
        service = self.start(PATIENT_SECONDS)
        with service.client() as client:
            self.hang(service, client)
            service.signal(first)
            if not at_once:
                wait_until(lambda: not listening(service.ports["outbound"]), "the stop begun")
            service.signal(second)
            wait_until(lambda: not listening(service.ports["outbound"]), "the stop begun")
            self.redis.go_on()
            self.assertEqual(client.answer(), "DUNNO")
            wait_until(lambda: service.has_ended, "the end of the service")
        self.assertIn(service.stop(), (0, -first, -second))
        self.assertNotIn("Traceback", service.log())

    def test_sigterm_ends_it_within_five_seconds_though_the_store_hangs(self) -> None:
        service = self.start(2)
        with service.client() as client:
            self.hang(service, client)
            begin = time.monotonic()
            self.assertIn(service.stop(), CLEAN)
            self.assertLess(time.monotonic() - begin, 5)
            self.assertRegex(client.answer(), "^DEFER_IF_PERMIT 4.3.0 ")

    def test_idle_connections_stay_open_for_longer_than_a_request_may_take(self) -> None:
        service = self.start(2)
        clients = [self.enterContext(service.client()) for _ in range(100)]
        with service.client() as client:
            self.hang(service, client)
            self.assertRegex(client.answer(), "^DEFER_IF_PERMIT 4.3.0 ")
            self.redis.go_on()
            wait_until(lambda: client.ask(outbound()) == "DUNNO", "an answer with Redis")
        self.assertEqual({client.ask(outbound()) for client in clients}, {"DUNNO"})

    def test_sigterm_under_load_loses_no_question_that_was_taken(self) -> None:
        service = started(self)
        answers = [0] * 8

        def ask(number: int) -> None:
            with service.client() as client:
                try:
                    while client.ask(outbound()) == "DUNNO":
                        answers[number] += 1
                except ConnectionError:
                    pass

        threads = [threading.Thread(target=ask, args=[number]) for number in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(answers) > 10, "answers for all")
        self.assertIn(service.stop(), CLEAN)
        for thread in threads:
            thread.join()
        service.start()
        # One question of each client may have been taken and counted, and its answer lost with the connection.
        self.assertIn(100_000 - service.remaining("ann") - sum(answers), range(9))
