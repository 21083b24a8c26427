"""The running service and what clients do to its connections; how it starts and ends."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
import unittest
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.support.paths import RECORDED
from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import Options, Service

REQUESTS = sorted(RECORDED.glob("*.req"))
MEGABYTE = 1 << 20

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
        cls.service = Service({"SenderDomainAuthPolicy": {"rejection_message": "REJECT not as {sender}"}})
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
        client.socket.settimeout(0.5)
        with self.assertRaises(TimeoutError):
            client.answer()
        client.socket.settimeout(10)
        client.send(two[-1:])
        self.assertEqual(client.answer(), "REJECT not as ann@other.example")

    def test_bytes_that_are_not_utf8_are_answered_like_any_others(self) -> None:
        client = self.connect()
        latin = {"recipient": "jos\udce9@example.net", "helo_name": "\udcff\udcfe"}
        self.assertEqual(client.ask(outbound(**latin)), "DUNNO")
        self.assertRegex(client.ask(outbound(sender="jos\udce9@other.example")), "^REJECT not as jos.@other.example$")
        self.assertRegex(client.ask(outbound(sasl_username="\udcc3(")), "^REJECT ")
        self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_line_that_is_no_attribute_gets_a_temporary_failure_and_the_connection_is_closed(self) -> None:
        client = self.connect()
        client.send(b"hello\n\n")
        self.assertRegex(client.answer(), "^DEFER")
        self.assertTrue(client.is_closed())

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

    def test_idle_connections_stay_open(self) -> None:
        clients = [self.connect() for _ in range(100)]
        time.sleep(3)  # longer than the time that a request may take
        self.assertEqual({client.ask(outbound()) for client in clients}, {"DUNNO"})

    def test_a_client_that_goes_without_reading_its_answers_disturbs_nobody(self) -> None:
        for _ in range(20):
            with self.service.client() as client:
                client.send(encode(outbound()) * 50)
        self.assertEqual(self.connect().ask(outbound()), "DUNNO")
        self.assertNotIn("Traceback", self.service.log())


@pytest.mark.timed
class EndTests(unittest.TestCase):
    def test_sigterm_lets_a_question_in_flight_be_answered(self) -> None:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-")))).start()
        self.addCleanup(redis.stop)
        service = started(self, {"Redis": {"server": "127.0.0.1", "port": redis.port}})
        with service.client() as client, service.client() as idle:
            self.assertEqual(client.ask(outbound()), "DUNNO")
            self.assertEqual(idle.ask(outbound()), "DUNNO")
            redis.hang()
            client.send(encode(outbound()))
            time.sleep(0.2)
            begin = time.monotonic()
            service.signal(signal.SIGTERM)
            threading.Timer(0.5, redis.go_on).start()
            self.assertEqual(client.answer(), "DUNNO")
            self.assertTrue(idle.is_closed())
            wait_until(lambda: service.has_ended, "the end of the service")
        self.assertIn(service.stop(), CLEAN)
        self.assertLess(time.monotonic() - begin, 5)
        self.assertNotIn("Traceback", service.log())

    def test_signals_that_come_again_while_it_stops_change_nothing(self) -> None:
        for pause in (0.05, 0.0):
            for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)):
                self._stop_with(first, second, pause)

    def _stop_with(self, first: signal.Signals, second: signal.Signals, pause: float) -> None:
        """Stop it by two signals while a question waits for its answer."""
        with TemporaryDirectory(prefix="redis-") as folder:
            redis = RedisProcess(Path(folder)).start()
            self.addCleanup(redis.stop)
            service = started(self, {"Redis": {"server": "127.0.0.1", "port": redis.port}})
            with service.client() as client:
                client.ask(outbound())
                redis.hang()
                client.send(encode(outbound()))
                time.sleep(0.2)
                service.signal(first)
                time.sleep(pause)
                service.signal(second)
                threading.Timer(0.5, redis.go_on).start()
                self.assertEqual(client.answer(), "DUNNO")
                wait_until(lambda: service.has_ended, "the end of the service")
            redis.stop()
        self.assertIn(service.stop(), (0, -first, -second))
        self.assertNotIn("Traceback", service.log())

    def test_sigterm_ends_it_within_five_seconds_though_the_store_hangs(self) -> None:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-")))).start()
        self.addCleanup(redis.stop)
        service = started(self, {"Redis": {"server": "127.0.0.1", "port": redis.port}})
        with service.client() as client:
            client.ask(outbound())
            redis.hang()
            client.send(encode(outbound()))
            time.sleep(0.2)
            begin = time.monotonic()
            self.assertIn(service.stop(), CLEAN)
            self.assertLess(time.monotonic() - begin, 5)
            self.assertRegex(client.answer(), "^DEFER_IF_PERMIT 4.3.0 ")

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
        service = started(self)
        with service.client() as client:
            service.signal(signal.SIGHUP)
            wait_until(lambda: "a changed configuration wants a restart" in service.log(), "the line in the log")
            self.assertEqual(client.ask(outbound()), "DUNNO")
        self.assertIn(service.stop(), CLEAN)


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
        first = started(self)
        second = Service({"OutboundQuotaPolicy": {"listen_port": first.ports["outbound"]}})
        self.addCleanup(second.remove)
        second.launch()
        wait_until(lambda: second.has_ended, "the end of the second service")
        self.assertNotEqual(second.stop(), 0)
        port = first.ports["outbound"]
        self.assertRegex(second.log(), rf"cannot start: .*listen_port = {port}: port {port} is taken")
        self.assertNotIn("Traceback", second.log())
        with first.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")

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
