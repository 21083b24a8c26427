"""The running service and strangers that get to its policy ports: mail does not wait for them, nor does memory grow."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import unittest
from contextlib import suppress

from tests.support.policy_client import PolicyClient, encode, inbound, outbound
from tests.support.servers.service import Service

MEGABYTE = 1 << 20
NONSENSE = b"a=\n\n" * 16_000
LONG = 60_000

# Seconds that Postfix waits for an answer (timeout=5s in main.cf.example).
LONGEST = 5.0


class Flood:
    """A client that asks nonsense as fast as it is let, and throws the answers away."""

    def __init__(self, service: Service) -> None:
        self._client = service.client()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._ask, self._read)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with suppress(OSError):
            while True:
                self._client.send(NONSENSE)

    def _read(self) -> None:
        with suppress(OSError):
            while self._client.socket.recv(MEGABYTE):
                pass

    def stop(self) -> None:
        with suppress(OSError):
            self._client.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._client.close()


class StrangerTests(unittest.TestCase):
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = Service()
        cls.addClassCleanup(cls.service.remove)
        cls.service.start().wait_ready()
        cls.service.add_user("ann", 100_000, ["example.com"])

    def test_mail_does_not_wait_for_those_who_ask_as_fast_as_they_can(self) -> None:
        with self.service.client() as client:
            client.ask(outbound())
            for flood in [Flood(self.service) for _ in range(8)]:
                self.addCleanup(flood.stop)
            took = []
            for _ in range(50):
                begin = time.monotonic()
                self.assertEqual(client.ask(outbound()), "DUNNO")
                took.append(time.monotonic() - begin)
        self.assertLess(max(took), LONGEST)

    def test_a_client_that_never_reads_its_answers_is_not_read_from_any_more(self) -> None:
        with socket.socket() as stranger:
            # So that little of what is answered is on its way.
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stranger.connect(("127.0.0.1", self.service.ports["outbound"]))
            stranger.settimeout(2)
            before, sent = self.service.memory(), 0
            try:
                while sent < 64 * MEGABYTE:
                    sent += stranger.send(NONSENSE)
            except TimeoutError:
                pass
            self.assertLess(sent, 16 * MEGABYTE)
            # The decision ring, and the decisions that wait for the history, are limited, too.
            self.assertLess(self.service.memory() - before, 48 * MEGABYTE)
            with self.service.client() as client:
                self.assertEqual(client.ask(outbound()), "DUNNO")

    def test_a_page_in_a_browser_cannot_spend_the_quota_of_a_user(self) -> None:
        before = self.service.remaining("ann")
        question = encode(outbound())
        for target in ("/", "/?a=b"):
            for body in (question, b"\n\n" + question, b"\r\n" + question * 2):
                web = http.client.HTTPConnection("127.0.0.1", self.service.ports["outbound"], timeout=30)
                self.addCleanup(web.close)
                with self.assertRaisesRegex(http.client.BadStatusLine, "action=DEFER"):
                    web.request("POST", target, body, {"Content-Type": "text/plain"})
                    web.getresponse()
        self.assertEqual(self.service.remaining("ann"), before)

    def test_long_questions_are_answered_and_not_remembered(self) -> None:
        inbound_client = self.enterContext(self.service.client("inbound"))
        outbound_client = self.enterContext(self.service.client())
        self._ask_long(inbound_client, outbound_client, 0, 20)
        before = self.service.memory()
        self._ask_long(inbound_client, outbound_client, 20, 520)
        self.assertLess(self.service.memory() - before, 48 * MEGABYTE)

    def _ask_long(self, inbound_client: PolicyClient, outbound_client: PolicyClient, first: int, last: int) -> None:
        """Ask with every attribute that is looked at being long, and different each time."""
        for number in range(first, last):
            long = f"{number}" + "x" * LONG
            for name, value in (
                ("sender", f"{long}@example.com"),
                ("sender", f"a@{long}.example"),
                ("sasl_username", long),
                ("instance", long),
                ("recipient", f"{long}@example.net"),
            ):
                self.assertRegex(outbound_client.ask(outbound(**{name: value})), "^(DUNNO|REJECT)")
            for name, value in (
                ("client_address", long),
                ("recipient", f"a@{long}"),
                ("sender", f"{long}@example.net"),
            ):
                self.assertRegex(inbound_client.ask(inbound(**{"helo_name": "x", name: value})), "^(DUNNO|PREPEND)")
