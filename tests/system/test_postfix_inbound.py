"""Inbound mail through a real Postfix: greylisting and SPF, recipient by recipient."""

from __future__ import annotations

import atexit
import re
import time
from collections.abc import Mapping
from functools import cache

from tests.support.postfix_case import PostfixTestCase
from tests.support.servers.common import wait_until
from tests.support.servers.dns import DnsServer, addresses, record, txt
from tests.support.servers.service import PATIENT, Options, Service, new_name
from tests.support.smtp_client import Replies, SMTPClient

DEFERRAL = 1

# What our domains want: greylisting, nothing, SPF.
DOMAINS = ("grey.example", "plain.example", "checked.example")

# The SPF record of the first names two networks, that of the second none. The third does not want to be taken too
# strictly, and the last says nothing.
HONEST, FORGED = "carl@honest.example", "carl@forged.example"
LENIENT, UNKNOWN = "carl@lenient.example", "carl@silent.example"

ZONES = {
    "honest.example": [txt("v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 -all")],
    "mail.honest.example": [txt("v=spf1 ip4:198.51.100.0/24 ip4:203.0.113.0/24 -all")],
    "forged.example": [txt("v=spf1 -all")],
    "lenient.example": [txt("v=spf1 ~all")],
    "silent.example": [],
    "relay.trusted.example": addresses("192.0.2.99"),
    "99.2.0.192.in-addr.arpa": [record("PTR", "relay.trusted.example.")],
}

BOUNCE = (
    "From: MAILER-DAEMON@honest.example\r\nSubject: Undelivered Mail Returned to Sender\r\n"
    'Content-Type: multipart/report; report-type=delivery-status; boundary="x"\r\n\r\n--x--\r\n'
)


@cache
def shared() -> Service:
    """The service that all tests here ask, save those with options of their own."""
    service = start({})
    atexit.register(service.remove)
    return service


def start(options: Options) -> Service:
    """A service with the three domains. It looks up SPF records in the zones above."""
    dns = DnsServer(ZONES)
    atexit.register(dns.stop)
    service = Service(
        {
            **PATIENT,
            # Off: what one test has sent does not let the client of the next one through.
            "GreylistingPolicy": {"minimum_deferral": DEFERRAL, "whitelist_threshold": 0},
            "SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"},
        }
    )
    service.write_config(options)
    service.start()
    service.add_domain("grey.example", greylist=True)
    service.add_domain("plain.example")
    service.add_domain("checked.example", check_spf=True)
    return service


class InboundTestCase(PostfixTestCase):
    """A Postfix of the test's own, and recipients that nobody else has written to.

    :ivar grey, plain, checked: in the domain that wants greylisting, nothing, SPF.
    """

    def setUp(self) -> None:
        self.grey, self.plain, self.checked = (new_name("bob") + f"@{domain}" for domain in DOMAINS)

    def run_both(self, options: Options | None = None) -> None:
        self.service = self.run_service(options) if options else shared()
        self.run_postfix({"RCPT": [self.service.endpoint("inbound")]}, DOMAINS)

    def run_service(self, options: Options) -> Service:
        service = start(options)
        self.addCleanup(service.remove)
        return service

    def send(
        self,
        sender: str,
        *recipients: str,
        address: str = "198.51.100.7",
        helo: str = "mail.honest.example",
        text: str = "",
    ) -> Replies:
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR=address, NAME="mail.honest.example", HELO=helo)
            return client.message(sender, recipients, text or "Subject: test\r\n\r\nHello\r\n")

    def wait(self, sender: str, recipient: str, **more: str) -> str:
        """Send a message for the first time, and again until it is let through. Returns what it was told first.

        No attempt passes before the deferral is over, and every one does that begins when it is.
        """
        begin = time.monotonic()
        first = self.send(sender, recipient, **more)
        told = time.monotonic()
        self.assertEqual(first.codes, [450])
        while True:
            tried = time.monotonic()
            codes = self.send(sender, recipient, **more).codes
            if codes == [250]:
                break
            self.assertEqual(codes, [450])
            self.assertLess(tried, told + DEFERRAL)
        self.assertGreater(time.monotonic(), begin + DEFERRAL)
        return first.recipients[0][1]

    def headers(self, count: int) -> list[list[str]]:
        """The Received-SPF headers of each delivered message."""
        return [message.get_all("Received-SPF", []) for message in self.postfix.delivered(count)]

    def told(self, replies: Replies) -> Mapping[int, str]:
        return dict(replies.recipients)


class GreylistingTests(InboundTestCase):
    def test_the_first_attempt_is_deferred_and_the_next_after_the_deferral_passes(self) -> None:
        self.run_both()
        told = self.wait(UNKNOWN, self.grey)
        self.assertRegex(told, r"Service temporarily unavailable - greylisted, retry in 1 second$")
        another_of_the_network, another_network = "198.51.100.200", "203.0.113.7"
        self.assertEqual(self.send(UNKNOWN, self.grey, address=another_of_the_network).delivered, 1)
        self.assertEqual(self.send(UNKNOWN, self.grey, address=another_network).codes, [450])
        self.assertEqual(self.send("x" + UNKNOWN, self.grey).codes, [450])

    def test_a_sender_with_several_networks_waits_once_when_spf_passes(self) -> None:
        self.run_both()
        self.wait(HONEST, self.grey, address="198.51.100.7")
        self.assertEqual(self.send(HONEST, self.grey, address="203.0.113.7").delivered, 1)

    def test_each_network_waits_for_itself_where_the_option_is_off(self) -> None:
        self.run_both({"GreylistingPolicy": {"spf_identity": False}})
        self.wait(HONEST, self.grey, address="198.51.100.7")
        self.assertEqual(self.send(HONEST, self.grey, address="203.0.113.7").codes, [450])

    def test_the_null_sender_is_greylisted_like_any_other(self) -> None:
        self.run_both()
        self.wait("", self.grey, text=BOUNCE)
        [message] = self.postfix.delivered(1)
        self.assertEqual(message["Return-Path"], "<>")
        [header] = message.get_all("Received-SPF", [])
        self.assertRegex(header, r"(?i)^pass\b")
        self.assertIn("identity=helo", header)

    def test_the_null_sender_may_be_let_through(self) -> None:
        self.run_both({"GreylistingPolicy": {"null_sender_ok": True}})
        self.assertEqual(self.send("", self.grey, text=BOUNCE).delivered, 1)


class RecipientTests(InboundTestCase):
    def test_each_recipient_is_judged_by_the_flags_of_its_own_domain(self) -> None:
        self.run_both()
        for recipients in [(self.grey, self.plain, self.checked), (self.checked, self.grey, self.plain)]:
            expected = {self.grey: 450, self.plain: 250, self.checked: 550}
            told = self.send(FORGED, *recipients, address="198.51.100.9")
            self.assertEqual(told.codes, [expected[recipient] for recipient in recipients])
        self.assertIn("SPF check failed", self.told(told)[550])
        self.assertEqual(self.send(HONEST, self.grey, self.plain, self.checked).codes, [450, 250, 250])

    def test_a_sender_that_spf_is_not_sure_of_is_greylisted_where_spf_is_checked(self) -> None:
        self.run_both()
        for number, (sender, result) in enumerate(((UNKNOWN, "none"), (LENIENT, "softfail")), 1):
            self.assertEqual(self.send(sender, self.plain, "x" + self.checked).codes, [250, 450])
            self.assertIn("greylisted, retry in 1 second", self.wait(sender, self.checked))
            [header] = self.headers(2 * number)[-1]
            self.assertRegex(header, rf"(?i)^{result}\b")


class HeaderTests(InboundTestCase):
    def test_a_message_to_two_recipients_has_one_header(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, self.plain, self.checked).delivered, 2)
        for headers in self.headers(2):
            self.assertEqual(len(headers), 1)
            self.assertRegex(headers[0], r"(?i)^pass\b")
            self.assertIn("client-ip=198.51.100.7", headers[0])
            self.assertIn("honest.example", headers[0])

    def test_it_is_there_when_the_first_recipient_was_deferred(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, self.grey, self.plain).codes, [450, 250])
        [headers] = self.headers(1)
        self.assertEqual(len(headers), 1)

    def test_what_greylisting_said_of_mail_that_has_its_header_is_logged(self) -> None:
        self.run_both()
        self.wait(HONEST, self.grey)
        self.assertEqual(self.send(HONEST, self.grey, self.plain).delivered, 2)
        wait_until(lambda: self.also(self.plain), "the last line")
        told = self.also(self.grey)
        self.assertEqual((told[0], set(told[-2:])), ("", {"GreylistingPolicy:greylist_passed"}))
        # Its message has its header already.
        self.assertEqual(self.also(self.plain), ["GreylistingPolicy:not_greylisted"])
        _, found = self.service.http("/live/decisions/?limit=1")
        self.assertEqual(found["response"][0]["also"], "GreylistingPolicy:not_greylisted")

    def also(self, recipient: str) -> list[str]:
        """What the log says besides the decision, of each question about a recipient."""
        lines = [line for line in self.service.decisions().splitlines() if recipient in line]
        return [line.partition(" also=")[2] for line in lines]

    def test_two_messages_of_one_session_have_one_each(self) -> None:
        self.run_both()
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="198.51.100.7", HELO="mail.honest.example")
            for _ in range(2):
                self.assertEqual(client.message(FORGED, [self.plain]).delivered, 1)
        for headers in self.headers(2):
            self.assertEqual(len(headers), 1)
            self.assertRegex(headers[0], r"(?i)^fail\b")


class WhitelistTests(InboundTestCase):
    def test_a_client_of_the_helo_whitelist_skips_both_policies_and_gets_no_header(self) -> None:
        self.run_both({"CHAPPS": {"helo_whitelist": "relay.trusted.example:192.0.2.99"}})
        name, address = "relay.trusted.example", "192.0.2.99"
        deadline = time.monotonic() + 60
        while self.send(FORGED, self.checked, address=address, helo=name).codes == [550]:
            # DNS is asked when the service has started.
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(
            self.send(FORGED, self.grey, self.plain, self.checked, address=address, helo=name).delivered, 3
        )
        self.assertEqual(self.headers(4), [[]] * 4)
        with self.subTest("another client that says this name"):
            self.assertEqual(self.send(FORGED, self.checked, address="192.0.2.98", helo=name).codes, [550])
        with self.subTest("this client with another name"):
            self.assertEqual(self.send(FORGED, self.checked, address=address).codes, [550])


class ExemptTests(InboundTestCase):
    def test_who_has_logged_in_skips_both_policies(self) -> None:
        self.run_both()
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="198.51.100.7", LOGIN="alice@grey.example")
            replies = client.message(FORGED, [self.grey, self.checked], "Subject: test\r\n\r\nHello\r\n")
        self.assertEqual(replies.codes, [250, 250])
        self.assertEqual(self.headers(2), [[], []])
        for recipient in (self.grey, self.checked):
            wanted = re.compile(f" reason=logged_in .* recipient={re.escape(recipient)} ")
            wait_until(lambda wanted=wanted: wanted.search(self.service.decisions()), "the line")  # type: ignore[misc]

    def test_a_container_s_gateway_may_be_trusted(self) -> None:
        self.run_both({"CHAPPS": {"trusted_networks": "172.17.0.1"}})
        self.assertEqual(self.send(FORGED, self.grey, self.checked, address="172.17.0.1").codes, [250, 250])
        self.assertEqual(self.send(FORGED, self.checked, address="127.0.0.1").codes, [550])
