"""The running service and what clients do to its connections."""

from __future__ import annotations

import select
import socket
import unittest

from tests.support.paths import RECORDED, RECORDED_3_10
from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.service import PATIENT, Service

REQUESTS = sorted([*RECORDED.glob("*.req"), *RECORDED_3_10.glob("*.req")])
MEGABYTE = 1 << 20


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

    def test_a_line_that_is_no_attribute_gets_a_temporary_failure_and_the_connection_is_closed(self) -> None:
        client = self.connect()
        client.send(b"hello\n\n")
        self.assertRegex(client.answer(), "^DEFER")
        self.assertTrue(client.is_closed())

    def test_every_recorded_postfix_request_is_answered(self) -> None:
        client = self.connect()
        self.assertGreater(len(REQUESTS), 580)
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
