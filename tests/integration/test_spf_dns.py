"""The resolver, and real DNS servers that are slow, sick, forged or old."""

from __future__ import annotations

import socket

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from chapps_tw import spf_dns
from chapps_tw.network import parse_nameservers
from chapps_tw.spf_dns import FIRST_PATIENCE, Resolver, nameservers
from chapps_tw.spf_messages import FAILURE_TTL, DnsFailure
from tests.support.servers.dns import (
    BADVERS,
    FORGED,
    FORMERR,
    NEVER,
    NOTIMP,
    SERVFAIL,
    SHOUTED,
    SILENT_TCP,
    TRUNCATED,
    DnsServer,
    addresses,
    record,
    txt,
)
from tests.support.spf_tools import TimeByHand, checker, dns_server, reactor, resolver, runner, wait_until

ZONES = {
    "good.example": [txt("v=spf1 ip4:192.0.2.0/24 -all")],
    "mx.example": [record("MX", "10 a.mx.example."), record("MX", "20 B.mx.example."), record("MX", "30 .")],
}


def down() -> DnsServer:
    """A server that is no more."""
    server = DnsServer({})
    server.stop()
    return server


class Asking(TestCase):
    """What reaches the name server."""

    async def test_identical_questions_in_flight_are_one(self) -> None:
        server = dns_server(self, ZONES, {"good.example": 0.2})
        spf = checker(self, server)
        await gatherResults([spf.check(f"192.0.2.{n}", "", f"user{n}@good.example") for n in range(30)])
        self.assertEqual(server.asked("good.example", "TXT"), 1)

    async def test_answers_are_kept_for_their_ttl_negative_ones_too(self) -> None:
        server = dns_server(self, ZONES)
        time = TimeByHand()
        dns = resolver(self, server, time=time)
        for _ in range(3):
            await dns.ask("good.example", "TXT")
            self.assertEqual(await dns.ask("nowhere.example", "TXT"), ())
            self.assertEqual(await dns.ask("good.example", "A"), ())
            time.advance(server.ttl / 3 - 1)
        self.assertEqual(len(server.questions), 3)
        time.advance(3.1)
        await dns.ask("Good.Example.", "TXT")
        await dns.ask("nowhere.example", "TXT")
        self.assertEqual(len(server.questions), 5)

    async def test_a_failure_is_kept_for_a_moment(self) -> None:
        server = dns_server(self, ZONES, {"good.example": SERVFAIL})
        dns = resolver(self, server)
        for _ in range(3):
            await self.assertFailure(dns.ask("good.example", "TXT"), DnsFailure)
        self.assertEqual(server.asked("good.example", "TXT"), 1)

    async def test_a_truncated_answer_is_asked_for_over_tcp(self) -> None:
        server = dns_server(self, ZONES, {"good.example": TRUNCATED})
        dns = resolver(self, server)
        self.assertEqual(await dns.ask("good.example", "TXT"), ((b"v=spf1 ip4:192.0.2.0/24 -all",),))
        self.assertEqual([protocol for _, _, protocol in server.questions], ["udp", "tcp"])

    async def test_more_records_than_spf_needs_are_not_read(self) -> None:
        many = {"many.example": addresses(*[f"192.0.2.{n}" for n in range(256)], "198.51.100.1")}
        dns = resolver(self, dns_server(self, many))
        await self.assertFailure(dns.ask("many.example", "A"), DnsFailure)

    async def test_a_datagram_that_is_lost_is_sent_again(self) -> None:
        server = dns_server(self, ZONES, {"good.example": NEVER})
        time = TimeByHand()
        waiting = resolver(self, server, time=time).ask("good.example", "TXT")
        await wait_until(lambda: server.questions)
        server.moods.clear()
        time.advance(FIRST_PATIENCE)
        self.assertEqual(len(await waiting), 1)
        self.assertEqual(server.asked("good.example", "TXT"), 2)

    async def test_an_answer_to_another_question_is_not_taken(self) -> None:
        server = dns_server(self, ZONES, {"good.example": FORGED})
        answer = await resolver(self, server).ask("good.example", "TXT")
        self.assertEqual(answer, ((b"v=spf1 ip4:192.0.2.0/24 -all",),))

    async def test_a_server_without_edns_is_asked_without(self) -> None:
        for mood in (FORMERR, NOTIMP, BADVERS):
            server = dns_server(self, ZONES, {"good.example": mood})
            self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1, mood)
            self.assertEqual(server.asked("good.example", "TXT"), 2)

    async def test_a_server_is_asked_over_ipv6_as_well(self) -> None:
        server = DnsServer(ZONES, {"good.example": TRUNCATED}, host="::1")
        self.addCleanup(server.stop)
        self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1)
        self.assertEqual([protocol for _, _, protocol in server.questions], ["udp", "tcp"])

    async def test_a_name_that_is_written_back_in_other_letters_is_the_same(self) -> None:
        server = dns_server(self, ZONES, {"good.example": SHOUTED})
        self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1)

    async def test_aliases_in_a_circle_are_a_failure_for_a_moment(self) -> None:
        server = dns_server(self, {f"c{n}.example": [record("CNAME", f"c{1 - n}.example.")] for n in range(2)})
        time = TimeByHand()
        dns = resolver(self, server, time=time)
        for _ in range(2):
            await self.assertFailure(dns.ask("c0.example", "A"), DnsFailure)
        self.assertEqual(server.asked("c0.example", "A"), 1)
        time.advance(FAILURE_TTL)
        await self.assertFailure(dns.ask("c0.example", "A"), DnsFailure)
        self.assertEqual(server.asked("c0.example", "A"), 2)

    async def test_another_server_is_asked_where_one_cannot_be_reached_over_tcp(self) -> None:
        self.patch(spf_dns, "FIRST_PATIENCE", 0.2)
        good = dns_server(self, ZONES)
        refusing, full = (DnsServer(ZONES, {"good.example": TRUNCATED}, tcp=False) for _ in range(2))
        fill(self, full)
        silent = dns_server(self, ZONES, {"good.example": SILENT_TCP})
        for bad in (refusing, full, silent):
            self.addCleanup(bad.stop)
            dns = resolver(self, bad, good, timeout=30.0, time=reactor)
            self.assertEqual(len(await dns.ask("good.example", "TXT")), 1)
            alone = resolver(self, bad, timeout=0.5, time=reactor)
            await self.assertFailure(alone.ask("good.example", "TXT"), DnsFailure)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_another_server_is_asked_where_one_is_down_sick_or_silent(self) -> None:
        self.patch(spf_dns, "FIRST_PATIENCE", 0.2)
        good = dns_server(self, ZONES)
        sick = dns_server(self, ZONES, {"good.example": SERVFAIL})
        silent = dns_server(self, ZONES, {"good.example": NEVER})
        for bad in (down().address, sick.address, silent.address):
            dns = Resolver(reactor, runner(self), [bad, good.address], 30.0)
            self.addCleanup(dns.close)
            self.assertEqual(len(await dns.ask("good.example", "TXT")), 1)

    async def test_no_server_at_all_is_a_failure_at_once(self) -> None:
        dns = Resolver(reactor, runner(self), [down().address, ("::1", down().port)], 30.0)
        self.addCleanup(dns.close)
        await self.assertFailure(dns.ask("good.example", "TXT"), DnsFailure)

    async def test_names_that_cannot_be_asked_have_no_records(self) -> None:
        server = dns_server(self, ZONES)
        dns = resolver(self, server)
        for name in ("a" * 64 + ".example", ".".join(["a" * 60] * 5), "a..example", ""):
            self.assertEqual(await dns.ask(name, "A"), (), name)

    async def test_the_memory_is_bounded(self) -> None:
        self.patch(spf_dns, "MAX_CACHED", 3)
        server = dns_server(self, ZONES)
        dns = resolver(self, server)
        for name in ("a.example", "b.example", "c.example", "d.example", "a.example", "d.example"):
            await dns.ask(name, "A")
        self.assertEqual(len(server.questions), 5)

    async def test_long_answers_leave_room_for_fewer(self) -> None:
        self.patch(spf_dns, "MAX_CACHED_BYTES", 8_000)
        names = [f"n{number}.example" for number in range(3)]
        server = dns_server(self, {name: [txt("v=spf1 ", *["x" * 250] * 10)] for name in names})
        dns = resolver(self, server)
        for name in [*names, *names[1:], names[0]]:
            await dns.ask(name, "TXT")
        self.assertEqual([name for name, _, protocol in server.questions if protocol == "udp"], [*names, names[0]])


def fill(test: TestCase, server: DnsServer) -> None:
    """Let connections to a server without TCP be begun there, and never be made."""
    listening = socket.socket()
    test.addCleanup(listening.close)
    listening.bind(server.address)
    listening.listen(0)
    for _ in range(4):
        one = socket.socket()
        test.addCleanup(one.close)
        one.setblocking(False)
        one.connect_ex(server.address)


class Servers(TestCase):
    def test_name_servers_have_addresses_and_ports(self) -> None:
        read = parse_nameservers("192.0.2.53 192.0.2.53:5353, [2001:db8::53] [2001:db8::53]:5353 2001:db8::53")
        self.assertEqual(
            read,
            (
                ("192.0.2.53", 53),
                ("192.0.2.53", 5353),
                ("2001:db8::53", 53),
                ("2001:db8::53", 5353),
                ("2001:db8::53", 53),
            ),
        )
        self.assertEqual(parse_nameservers(" ".join(map(str, read))), read)
        self.assertEqual(nameservers(read), list(read))

    def test_anything_else_is_refused(self) -> None:
        for text in ("dns.example", "192.0.2.53:0", "192.0.2.53:70000", "[192.0.2.53", "192.0.2.53:x", "[]:53"):
            error = self.assertRaises(ValueError, parse_nameservers, text)
            self.assertIn(repr(text), str(error))

    def test_without_any_the_systems_are_asked(self) -> None:
        self.assertTrue(nameservers(()))
