"""The running service and what clients do to its connections; how it starts and ends."""

from __future__ import annotations

import select
import signal
import socket
import sys
import threading
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.support.paths import RECORDED
from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.rest_client import ask
from tests.support.servers.common import listening, wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service, shared_service

REQUESTS = sorted(RECORDED.glob("*.req"))
MEGABYTE = 1 << 20

# For what no answer may be late in, however slow the machine is.
PATIENT_SECONDS = 30

# twistd ends by the signal that it was told to stop with.
CLEAN = (0, -signal.SIGTERM)


def started(test: unittest.TestCase, options: Options | None = None) -> Service:
    """A running service; ann has a large quota there, and may send as example.com."""
    service = Service(options)
    test.addCleanup(service.remove)
    service.start().wait_ready()
    service.add_user("ann", 100_000, ["example.com"])
    return service


class ConnectionTests(unittest.TestCase):
    """One service for all: no test here depends on what another one has sent."""

    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service({"SenderDomainAuthPolicy": {"rejection_message": "REJECT not as {sender}"}, **PATIENT})
        cls.addClassCleanup(cls.service.remove)
        cls.service.start()
        cls.service.add_user("ann", 100_000, ["example.com"])

    def connect(self) -> PolicyClient:
        client = self.service.client()
        self.addCleanup(client.close)
        return client

    def test_64_megabytes_without_an_empty_line_close_that_connection_alone(self) -> None:
        neighbour, flood = self.connect(), self.connect()
        neighbour.ask(outbound())
        before = self.service.memory()
        answers, sent = 0, 0
        try:
            for _ in range(64):
                flood.send(b"a=" + b"x" * (MEGABYTE - 3) + b"\n")
                sent += 1
                answers += neighbour.ask(outbound()) == "DUNNO"
        except ConnectionError:
            pass
        self.assertLess(sent, 64)
        self.assertEqual(answers, sent)
        self.assertTrue(flood.is_closed())
        self.assertEqual(neighbour.ask(outbound()), "DUNNO")
        self.assertLess(self.service.memory() - before, 16 * MEGABYTE)

    def test_many_lines_without_an_empty_line_close_the_connection(self) -> None:
        flood = self.connect()
        with self.assertRaises(ConnectionError):
            for _ in range(64):
                flood.send(b"name=value\n" * (MEGABYTE // 11))

    def test_bytes_may_come_one_at_a_time(self) -> None:
        client = self.connect()
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for sender, expected in [
            ("ann@example.com", "DUNNO"),
            ("ann@other.example", "REJECT not as ann@other.example"),
        ]:
            for byte in encode(outbound(sender=sender)):
                client.send(bytes([byte]))
            self.assertEqual(client.answer(), expected)

    def test_eight_requests_in_one_write_are_answered_in_their_order(self) -> None:
        client = self.connect()
        senders = [f"s{number}@{'example.com' if number % 3 == 0 else 'other.example'}" for number in range(8)]
        client.send(b"".join(encode(outbound(sender=sender)) for sender in senders))
        expected = ["DUNNO" if sender.endswith("@example.com") else f"REJECT not as {sender}" for sender in senders]
        self.assertEqual([client.answer() for _ in senders], expected)

    def test_a_request_and_a_half_are_answered_when_the_rest_has_come(self) -> None:
        client = self.connect()
        two = encode(outbound()) + encode(outbound(sender="ann@other.example"))
        client.send(two[:-1])
        self.assertEqual(client.answer(), "DUNNO")
        # Who has asked the whole of a question later is answered, and this client is not.
        self.assertEqual(self.connect().ask(outbound()), "DUNNO")
        self.assertEqual(select.select([client.socket], [], [], 0)[0], [])
        client.send(two[-1:])
        self.assertEqual(client.answer(), "REJECT not as ann@other.example")

    def test_bytes_that_are_not_utf8_are_answered_like_any_others(self) -> None:
        client = self.connect()
        latin = {"recipient": "jos\udce9@example.net", "helo_name": "\udcff\udcfe"}
        self.assertEqual(client.ask(outbound(**latin)), "DUNNO")
        self.assertRegex(client.ask(outbound(sender="jos\udce9@other.example")), "^REJECT not as jos.@other.example$")
        self.assertRegex(client.ask(outbound(sasl_username="\udcc3(")), "^REJECT ")
        self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_line_that_is_no_attribute_gets_a_temporary_failure_and_the_connection_goes_on(self) -> None:
        client = self.connect()
        client.send(b"hello\n\n")
        self.assertRegex(client.answer(), "^DEFER")
        self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_every_recorded_postfix_request_is_answered(self) -> None:
        client = self.connect()
        self.assertGreater(len(REQUESTS), 250)
        for path in REQUESTS:
            with self.subTest(path.name):
                client.send(path.read_bytes())
                self.assertRegex(client.answer(), "^(DUNNO$|REJECT )")

    def test_who_has_asked_all_may_close_his_half_and_read_the_answers(self) -> None:
        client = self.connect()
        client.send(encode(outbound()) + encode(outbound()))
        client.finish()
        self.assertEqual([client.answer(), client.answer()], ["DUNNO", "DUNNO"])
        self.assertTrue(client.is_closed())

    def test_a_client_that_goes_without_reading_its_answers_disturbs_nobody(self) -> None:
        for _ in range(20):
            with self.service.client() as client:
                client.send(encode(outbound()) * 50)
        self.assertEqual(self.connect().ask(outbound()), "DUNNO")
        self.assertNotIn("Traceback", self.service.log())


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
        service = self.start(1)
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

    def test_a_hangup_ends_nothing_and_says_what_would_help(self) -> None:
        service = shared_service()
        with service.client() as client:
            service.signal(signal.SIGHUP)
            wait_until(lambda: "a changed configuration wants a restart" in service.log(), "the line in the log")
            self.assertRegex(client.ask(outbound(sasl_username="nobody")), "^REJECT ")


_ACTIVATE = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="policy")
os.execv(sys.argv[2], sys.argv[2:])
"""


class StartTests(unittest.TestCase):
    def test_systemd_may_hand_over_the_listening_socket(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listener.close)
        service = Service({"OutboundQuotaPolicy": {"listen": "systemd:domain=INET:index=0"}})
        self.addCleanup(service.remove)
        number = listener.fileno()
        prefix = [sys.executable, "-c", _ACTIVATE, str(number)]
        client = PolicyClient(listener.getsockname())
        self.addCleanup(client.close)
        client.send(encode(outbound()))
        service.start(prefix=prefix, pass_fds=[number])
        self.assertRegex(client.answer(), "^REJECT ")

    def test_a_unix_socket_that_systemd_hands_over_is_there_for_the_next_start(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        listener = self.enterContext(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen()
        service = Service({"OutboundQuotaPolicy": {"listen": "systemd:domain=UNIX:index=0"}})
        self.addCleanup(service.remove)
        number = listener.fileno()
        for _ in range(2):
            client = self.enterContext(PolicyClient(str(path)))
            client.send(encode(outbound()))
            service.start(prefix=[sys.executable, "-c", _ACTIVATE, str(number)], pass_fds=[number])
            self.assertRegex(client.answer(), "^REJECT ")
            self.assertIn(service.stop(), CLEAN)

    def test_it_tells_systemd_when_it_is_ready_and_when_it_stops(self) -> None:
        service = Service()
        self.addCleanup(service.remove)
        path = service.directory / "notify"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(str(path))
            notify.settimeout(60)
            service.launch({"NOTIFY_SOCKET": str(path)})
            self.assertIn(b"READY=1", notify.recv(4096).splitlines())
            with service.client() as client:
                self.assertRegex(client.ask(outbound()), "^REJECT ")
            service.signal(signal.SIGTERM)
            self.assertIn(b"STOPPING=1", notify.recv(4096).splitlines())
            wait_until(lambda: service.has_ended, "the end of the service")
        self.assertIn(service.stop(), CLEAN)

    def test_a_busy_port_is_refused_with_a_sentence(self) -> None:
        first = shared_service()
        second = Service({"OutboundQuotaPolicy": {"listen_port": first.ports["outbound"]}})
        self.addCleanup(second.remove)
        second.launch()
        wait_until(lambda: second.has_ended, "the end of the second service")
        self.assertNotEqual(second.stop(), 0)
        port = first.ports["outbound"]
        self.assertRegex(second.log(), rf"cannot start: .*listen_port = {port}: port {port} is taken")
        self.assertNotIn("Traceback", second.log())
        with first.client() as client:
            self.assertRegex(client.ask(outbound(sasl_username="nobody")), "^REJECT ")

    def test_a_unix_socket_is_listened_on(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        service = started(self, {"OutboundQuotaPolicy": {"listen": f"unix:{path}"}})
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        self.assertIn(service.stop(), CLEAN)
        self.assertFalse(path.exists())
        service.start()
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
            service.kill()
        service.start()
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_unix_socket_that_was_removed_does_not_spoil_the_stop(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory())) / "policy"
        service = started(self, {"OutboundQuotaPolicy": {"listen": f"unix:{path}"}})
        with PolicyClient(str(path)) as client:
            self.assertEqual(client.ask(outbound(instance="last")), "DUNNO")
            path.unlink()
            self.assertIn(service.stop(), CLEAN)
        self.assertIn(" instance=last ", service.decisions())
        self.assertIn(f"was not closed: [Errno 2] No such file or directory: b'{path}'", service.log())
        self.assertNotIn("Traceback", service.log())
