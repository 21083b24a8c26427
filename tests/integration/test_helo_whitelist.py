"""The HELO whitelist: parsing, and verification in DNS."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from chapps_tw.dns.helo_whitelist import HeloWhitelist
from chapps_tw.mail.network import HeloEntry, parse_helo_whitelist
from chapps_tw.mail.request import PolicyRequest
from tests.support.servers.dns import NEVER, addresses, record
from tests.support.spf_tools import TimeByHand, dns_server, resolver, wait_until

ZONES = {
    "mx.example.org": addresses("192.0.2.1", "192.0.2.2", "2001:db8::1"),
    "1.2.0.192.in-addr.arpa": [record("PTR", "MX.example.org.")],
    "2.2.0.192.in-addr.arpa": [record("PTR", "other.example.org.")],
    ip_address("2001:db8::1").reverse_pointer: [record("PTR", "mx.example.org.")],
    "liar.example.net": addresses("192.0.2.1"),
}


def said(name: str, address: str) -> PolicyRequest:
    return PolicyRequest({"helo_name": name, "client_address": address})


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", ()),
        ("mx.example.org", (HeloEntry("mx.example.org", None),)),
        (
            " MX.example.org:192.0.2.1 ; b.example:[2001:db8::1]; ",
            (
                HeloEntry("mx.example.org", ip_address("192.0.2.1")),
                HeloEntry("b.example", ip_address("2001:db8::1")),
            ),
        ),
        ("localhost:127.0.0.1", (HeloEntry("localhost", ip_address("127.0.0.1")),)),
    ],
)
def test_entries_are_parsed(text: str, entries: tuple[HeloEntry, ...]) -> None:
    assert parse_helo_whitelist(text) == entries
    assert parse_helo_whitelist(";".join(map(str, entries))) == entries


@pytest.mark.parametrize(
    "text", ["a b", "mx.example.org:", "mx.example.org:192.0.2", "mx.example.org:2001:db8::1", ":192.0.2.1",
             "mx.example.org:[192.0.2.1]", "mx.example.org:[2001:db8::1", "[2001:db8::1]", "mx.example.org,b.example"]
)  # fmt: skip
def test_an_invalid_entry_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="IPv6 addresses in brackets") as caught:
        parse_helo_whitelist("ok.example;" + text)
    assert repr(text) in str(caught.value)


class Verification(TestCase):
    def whitelist(self, text: str, moods: dict[object, str | float] | None = None) -> HeloWhitelist:
        self.server = dns_server(self, ZONES, moods)
        self.warnings: list[str] = []
        self.time = TimeByHand()
        self.dns = resolver(self, self.server, timeout=5.0, time=self.time)
        return HeloWhitelist(parse_helo_whitelist(text), self.dns.ask, self.warnings.append)

    async def verify_in_vain(self, whitelist: HeloWhitelist) -> bool:
        """Verify while DNS does not answer, until the timeout."""
        before = len(self.server.questions)
        verified = Deferred.fromCoroutine(whitelist.verify())
        await wait_until(lambda: len(self.server.questions) > before)
        self.time.advance(5.0)
        return await verified

    async def test_before_verification_only_loopback_entries_apply(self) -> None:
        whitelist = self.whitelist("mx.example.org:192.0.2.1;localhost:127.0.0.1;v6:[::1]")
        self.assertFalse(whitelist.matches(said("mx.example.org", "192.0.2.1")))
        self.assertTrue(whitelist.matches(said("localhost", "127.0.0.1")))
        self.assertTrue(whitelist.matches(said("v6", "::1")))
        self.assertTrue(await whitelist.verify())
        self.assertTrue(whitelist.matches(said("mx.example.org", "192.0.2.1")))
        self.assertTrue(whitelist.matches(said("localhost", "127.0.0.1")))
        self.assertEqual(self.warnings, [])

    async def test_an_entry_without_address_applies_to_confirmed_addresses(self) -> None:
        whitelist = self.whitelist("mx.example.org")
        await whitelist.verify()
        self.assertTrue(whitelist.matches(said("mx.EXAMPLE.org", "192.0.2.1")))
        self.assertTrue(whitelist.matches(said("mx.example.org", "::ffff:192.0.2.1")))
        self.assertTrue(whitelist.matches(said("mx.example.org", "2001:db8::1")))
        self.assertFalse(whitelist.matches(said("mx.example.org", "192.0.2.2")))
        self.assertFalse(whitelist.matches(said("mx.example.org", "unknown")))
        self.assertFalse(whitelist.matches(said("", "192.0.2.1")))

    async def test_an_unconfirmed_entry_is_logged_and_ignored(self) -> None:
        whitelist = self.whitelist("liar.example.net:192.0.2.1;mx.example.org:192.0.2.2;nowhere.example")
        self.assertTrue(await whitelist.verify())
        self.assertFalse(whitelist.matches(said("liar.example.net", "192.0.2.1")))
        self.assertFalse(whitelist.matches(said("mx.example.org", "192.0.2.2")))
        self.assertEqual([warning.split()[1] for warning in self.warnings],
                         ["liar.example.net:192.0.2.1", "mx.example.org:192.0.2.2", "nowhere.example"])  # fmt: skip

    async def test_unavailable_dns_changes_nothing(self) -> None:
        whitelist = self.whitelist("mx.example.org:192.0.2.1")
        self.server.moods["mx.example.org"] = NEVER
        self.assertFalse(await self.verify_in_vain(whitelist))
        self.assertFalse(whitelist.matches(said("mx.example.org", "192.0.2.1")))
        self.assertIn("could not be verified", self.warnings[0])

        whitelist = self.whitelist("mx.example.org:192.0.2.1")
        self.server.ttl = 0
        await whitelist.verify()
        self.server.moods["mx.example.org"] = NEVER
        self.assertFalse(await self.verify_in_vain(whitelist))
        self.assertTrue(whitelist.matches(said("mx.example.org", "192.0.2.1")))

    async def test_an_entry_that_is_no_longer_confirmed_is_removed(self) -> None:
        whitelist = self.whitelist("mx.example.org:192.0.2.1")
        self.server.ttl = 0
        await whitelist.verify()
        self.server.zones["1.2.0.192.in-addr.arpa"] = [record("PTR", "gone.example.org.")]
        self.assertTrue(await whitelist.verify())
        self.assertFalse(whitelist.matches(said("mx.example.org", "192.0.2.1")))
