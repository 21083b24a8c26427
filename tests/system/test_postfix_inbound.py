"""Inbound mail through a real Postfix: greylisting and SPF, recipient by recipient."""

from __future__ import annotations

import time
import unittest
from collections.abc import Mapping

import pytest

from tests.support.servers.common import wait_until
from tests.support.servers.dns import DnsServer, addresses, record, txt
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import Options, Service
from tests.support.smtp_client import Replies, SMTPClient

DEFERRAL = 2

# What our domains want: greylisting, nothing, SPF.
GREY, PLAIN, CHECKED = "bob@grey.example", "bob@plain.example", "bob@checked.example"

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


class InboundTestCase(unittest.TestCase):
    def run_both(self, options: Options | None = None) -> None:
        dns = DnsServer(ZONES)
        self.addCleanup(dns.stop)
        self.service = Service(
            {
                "GreylistingPolicy": {"minimum_deferral": DEFERRAL},
                "SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"},
            }
        )
        self.addCleanup(self.service.remove)
        self.service.write_config(options)
        self.service.start()
        self.service.add_domain("grey.example", greylist=True)
        self.service.add_domain("plain.example")
        self.service.add_domain("checked.example", check_spf=True)
        domains = [address.partition("@")[2] for address in (GREY, PLAIN, CHECKED)]
        self.postfix = Postfix({"RCPT": [self.service.endpoint("inbound")]}, domains)
        self.addCleanup(self.postfix.stop)

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

    def headers(self, count: int) -> list[list[str]]:
        """The Received-SPF headers of each delivered message."""
        return [message.get_all("Received-SPF", []) for message in self.postfix.delivered(count)]

    def told(self, replies: Replies) -> Mapping[int, str]:
        return dict(replies.recipients)


@pytest.mark.timed
class GreylistingTests(InboundTestCase):
    def test_the_first_attempt_is_deferred_and_the_next_after_the_deferral_passes(self) -> None:
        self.run_both()
        first = self.told(self.send(UNKNOWN, GREY))
        self.assertEqual(list(first), [450])
        self.assertRegex(first[450], r"Service temporarily unavailable - greylisted, retry in 2 seconds$")
        self.assertEqual(self.send(UNKNOWN, GREY).codes, [450])
        time.sleep(DEFERRAL)
        self.assertEqual(self.send(UNKNOWN, GREY).delivered, 1)
        another_of_the_network, another_network = "198.51.100.200", "203.0.113.7"
        self.assertEqual(self.send(UNKNOWN, GREY, address=another_of_the_network).delivered, 1)
        self.assertEqual(self.send(UNKNOWN, GREY, address=another_network).codes, [450])
        self.assertEqual(self.send("x" + UNKNOWN, GREY).codes, [450])

    def test_early_retries_do_not_start_the_wait_again(self) -> None:
        self.run_both()
        begin = time.monotonic()
        codes = self.send(UNKNOWN, GREY).codes
        while codes[-1] == 450:
            self.assertLess(time.monotonic(), begin + 20 * DEFERRAL)
            time.sleep(DEFERRAL / 3)
            codes += self.send(UNKNOWN, GREY).codes
        self.assertEqual(codes[:3], [450] * 3)
        self.assertEqual(codes[-1], 250)

    def test_a_sender_with_several_networks_waits_once_when_spf_passes(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, GREY, address="198.51.100.7").codes, [450])
        time.sleep(DEFERRAL)
        self.assertEqual(self.send(HONEST, GREY, address="203.0.113.7").delivered, 1)

    def test_each_network_waits_for_itself_where_the_option_is_off(self) -> None:
        self.run_both({"GreylistingPolicy": {"spf_identity": False}})
        self.assertEqual(self.send(HONEST, GREY, address="198.51.100.7").codes, [450])
        time.sleep(DEFERRAL)
        self.assertEqual(self.send(HONEST, GREY, address="203.0.113.7").codes, [450])
        self.assertEqual(self.send(HONEST, GREY, address="198.51.100.7").delivered, 1)

    def test_the_null_sender_is_greylisted_like_any_other(self) -> None:
        self.run_both()
        self.assertEqual(self.send("", GREY, text=BOUNCE).codes, [450])
        time.sleep(DEFERRAL)
        self.assertEqual(self.send("", GREY, text=BOUNCE).delivered, 1)
        [message] = self.postfix.delivered(1)
        self.assertEqual(message["Return-Path"], "<>")
        [header] = message.get_all("Received-SPF", [])
        self.assertRegex(header, r"(?i)^pass\b")
        self.assertIn("identity=helo", header)

    def test_the_null_sender_may_be_let_through(self) -> None:
        self.run_both({"GreylistingPolicy": {"null_sender_ok": True}})
        self.assertEqual(self.send("", GREY, text=BOUNCE).delivered, 1)


class RecipientTests(InboundTestCase):
    def test_each_recipient_is_judged_by_the_flags_of_its_own_domain(self) -> None:
        self.run_both()
        for recipients in [(GREY, PLAIN, CHECKED), (CHECKED, GREY, PLAIN)]:
            expected = {GREY: 450, PLAIN: 250, CHECKED: 550}
            told = self.send(FORGED, *recipients, address="198.51.100.9")
            self.assertEqual(told.codes, [expected[recipient] for recipient in recipients])
        self.assertIn("SPF check failed", self.told(told)[550])
        self.assertEqual(self.send(HONEST, GREY, PLAIN, CHECKED).codes, [450, 250, 250])

    @pytest.mark.timed
    def test_a_sender_that_spf_is_not_sure_of_is_greylisted_where_spf_is_checked(self) -> None:
        self.run_both()
        for sender in (UNKNOWN, LENIENT):
            replies = self.send(sender, PLAIN, CHECKED)
            self.assertEqual(replies.codes, [250, 450])
            self.assertIn("greylisted, retry in 2 seconds", self.told(replies)[450])
        time.sleep(DEFERRAL)
        for sender, result in ((UNKNOWN, "none"), (LENIENT, "softfail")):
            before = len(self.postfix.delivered(1))
            self.assertEqual(self.send(sender, CHECKED).delivered, 1)
            [header] = self.headers(before + 1)[-1]
            self.assertRegex(header, rf"(?i)^{result}\b")


class HeaderTests(InboundTestCase):
    def test_a_message_to_two_recipients_has_one_header(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, PLAIN, CHECKED).delivered, 2)
        for headers in self.headers(2):
            self.assertEqual(len(headers), 1)
            self.assertRegex(headers[0], r"(?i)^pass\b")
            self.assertIn("client-ip=198.51.100.7", headers[0])
            self.assertIn("honest.example", headers[0])

    def test_it_is_there_when_the_first_recipient_was_deferred(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, GREY, PLAIN).codes, [450, 250])
        [headers] = self.headers(1)
        self.assertEqual(len(headers), 1)

    def test_what_greylisting_said_of_mail_that_has_its_header_is_logged(self) -> None:
        self.run_both()
        self.assertEqual(self.send(HONEST, GREY).codes, [450])
        time.sleep(DEFERRAL)
        self.assertEqual(self.send(HONEST, GREY, PLAIN).delivered, 2)
        wait_until(lambda: self.service.decisions().count("\n") == 3, "the lines")
        told = [line.partition(" also=")[2] for line in self.service.decisions().splitlines()]
        # The third is of the second recipient, whose message has its header already.
        self.assertEqual(told, ["", "GreylistingPolicy:greylist_passed", "GreylistingPolicy:not_greylisted"])
        _, found = self.service.http("/live/decisions/?limit=1")
        self.assertEqual(found["response"][0]["also"], "GreylistingPolicy:not_greylisted")

    def test_two_messages_of_one_session_have_one_each(self) -> None:
        self.run_both()
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="198.51.100.7", HELO="mail.honest.example")
            for _ in range(2):
                self.assertEqual(client.message(FORGED, [PLAIN]).delivered, 1)
        for headers in self.headers(2):
            self.assertEqual(len(headers), 1)
            self.assertRegex(headers[0], r"(?i)^fail\b")


class WhitelistTests(InboundTestCase):
    def test_a_client_of_the_helo_whitelist_skips_both_policies_and_gets_no_header(self) -> None:
        self.run_both({"CHAPPS": {"helo_whitelist": "relay.trusted.example:192.0.2.99"}})
        name, address = "relay.trusted.example", "192.0.2.99"
        deadline = time.monotonic() + 60
        while self.send(FORGED, CHECKED, address=address, helo=name).codes == [550]:
            # DNS is asked when the service has started.
            self.assertLess(time.monotonic(), deadline)
        self.assertEqual(self.send(FORGED, GREY, PLAIN, CHECKED, address=address, helo=name).delivered, 3)
        self.assertEqual(self.headers(4), [[]] * 4)
        with self.subTest("another client that says this name"):
            self.assertEqual(self.send(FORGED, CHECKED, address="192.0.2.98", helo=name).codes, [550])
        with self.subTest("this client with another name"):
            self.assertEqual(self.send(FORGED, CHECKED, address=address).codes, [550])


class ExemptTests(InboundTestCase):
    def test_who_has_logged_in_skips_both_policies(self) -> None:
        self.run_both()
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="198.51.100.7", LOGIN="alice@grey.example")
            replies = client.message(FORGED, [GREY, CHECKED], "Subject: test\r\n\r\nHello\r\n")
        self.assertEqual(replies.codes, [250, 250])
        self.assertEqual(self.headers(2), [[], []])
        wait_until(lambda: self.service.decisions().count(" reason=logged_in ") == 2, "the lines")

    def test_a_container_s_gateway_may_be_trusted(self) -> None:
        self.run_both({"CHAPPS": {"trusted_networks": "172.17.0.1"}})
        self.assertEqual(self.send(FORGED, GREY, CHECKED, address="172.17.0.1").codes, [250, 250])
        self.assertEqual(self.send(FORGED, CHECKED, address="127.0.0.1").codes, [550])
