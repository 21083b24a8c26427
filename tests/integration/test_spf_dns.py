"""The resolver, with real DNS servers that are slow, failing, forging or old."""

from __future__ import annotations

import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from chapps_tw.dns import resolver as spf_dns
from chapps_tw.dns.messages import FAILURE_TTL, DnsFailure
from chapps_tw.dns.resolver import INITIAL_TIMEOUT, Resolver, SystemServers, nameservers
from chapps_tw.mail.network import Server, parse_nameservers
from tests.support.servers.dns import (
    BADVERS,
    CUT,
    EMPTY,
    FORGED,
    FORMERR,
    LONG,
    MISLED,
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
    """A server that has stopped."""
    server = DnsServer({})
    server.stop()
    return server


class Lookups(TestCase):
    """What reaches the name server."""

    async def test_identical_lookups_in_flight_share_one_query(self) -> None:
        server = dns_server(self, ZONES, {"good.example": 0.2})
        spf = checker(self, server)
        await gatherResults([spf.check(f"192.0.2.{n}", "", f"user{n}@good.example") for n in range(30)])
        self.assertEqual(server.asked("good.example", "TXT"), 1)

    async def test_answers_are_cached_for_their_ttl_negative_ones_too(self) -> None:
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

    async def test_a_failure_is_cached_briefly(self) -> None:
        server = dns_server(self, ZONES, {"good.example": SERVFAIL})
        dns = resolver(self, server)
        for _ in range(3):
            await self.assertFailure(dns.ask("good.example", "TXT"), DnsFailure)
        self.assertEqual(server.asked("good.example", "TXT"), 1)

    async def test_a_truncated_response_is_retried_over_tcp(self) -> None:
        server = dns_server(self, ZONES, {"good.example": TRUNCATED})
        dns = resolver(self, server)
        self.assertEqual(await dns.ask("good.example", "TXT"), ((b"v=spf1 ip4:192.0.2.0/24 -all",),))
        self.assertEqual([protocol for _, _, protocol in server.questions], ["udp", "tcp"])

    async def test_a_response_over_the_limits_is_rejected(self) -> None:
        server = dns_server(self, {"many.example": addresses(*[f"192.0.2.{n}" for n in range(20)])})
        self.assertEqual(len(await resolver(self, server, records=21).ask("many.example", "A")), 20)
        for limits, why in (
            ({"records": 20}, "21 records, the limit is 20"),
            ({"size": 4096}, "octets, the limit is 4096"),
        ):
            server.moods["many.example"] = LONG if "size" in limits else ""
            dns = resolver(self, server, **limits)
            failure: Any = await self.assertFailure(dns.ask("many.example", "A"), DnsFailure)
            self.assertIn(why, failure.asked)

    async def test_a_lost_datagram_is_sent_again(self) -> None:
        server = dns_server(self, ZONES, {"good.example": NEVER})
        time = TimeByHand()
        waiting = resolver(self, server, time=time).ask("good.example", "TXT")
        await wait_until(lambda: server.questions)
        server.moods.clear()
        time.advance(INITIAL_TIMEOUT)
        self.assertEqual(len(await waiting), 1)
        self.assertEqual(server.asked("good.example", "TXT"), 2)

    async def test_a_response_to_another_question_is_ignored(self) -> None:
        server = dns_server(self, ZONES, {"good.example": FORGED})
        answer = await resolver(self, server).ask("good.example", "TXT")
        self.assertEqual(answer, ((b"v=spf1 ip4:192.0.2.0/24 -all",),))

    async def test_a_server_without_edns_is_queried_without_it(self) -> None:
        for mood in (FORMERR, NOTIMP, BADVERS):
            server = dns_server(self, ZONES, {"good.example": mood})
            self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1, mood)
            self.assertEqual(server.asked("good.example", "TXT"), 2)

    async def test_a_server_can_have_an_ipv6_address(self) -> None:
        server = DnsServer(ZONES, {"good.example": TRUNCATED}, host="::1")
        self.addCleanup(server.stop)
        self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1)
        self.assertEqual([protocol for _, _, protocol in server.questions], ["udp", "tcp"])

    async def test_the_name_in_a_response_is_compared_without_case(self) -> None:
        server = dns_server(self, ZONES, {"good.example": SHOUTED})
        self.assertEqual(len(await resolver(self, server).ask("good.example", "TXT")), 1)

    async def test_a_circular_cname_chain_is_a_failure_cached_briefly(self) -> None:
        server = dns_server(self, {f"c{n}.example": [record("CNAME", f"c{1 - n}.example.")] for n in range(2)})
        time = TimeByHand()
        dns = resolver(self, server, time=time)
        for _ in range(2):
            await self.assertFailure(dns.ask("c0.example", "A"), DnsFailure)
        self.assertEqual(server.asked("c0.example", "A"), 1)
        time.advance(FAILURE_TTL)
        await self.assertFailure(dns.ask("c0.example", "A"), DnsFailure)
        self.assertEqual(server.asked("c0.example", "A"), 2)

    async def test_the_next_server_is_queried_if_one_is_unreachable_over_tcp(self) -> None:
        self.patch(spf_dns, "INITIAL_TIMEOUT", 0.2)
        good = dns_server(self, ZONES)
        refusing, full = (DnsServer(ZONES, {"good.example": TRUNCATED}, tcp=False) for _ in range(2))
        fill(self, full)
        silent, misled = (dns_server(self, ZONES, {"good.example": mood}) for mood in (SILENT_TCP, MISLED))
        for bad in (refusing, full, silent, misled):
            self.addCleanup(bad.stop)
            dns = resolver(self, bad, good, timeout=30.0, time=reactor)
            self.assertEqual(len(await dns.ask("good.example", "TXT")), 1)
            alone = resolver(self, bad, timeout=0.5, time=reactor)
            await self.assertFailure(alone.ask("good.example", "TXT"), DnsFailure)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_the_next_server_is_queried_if_one_is_down_failing_or_silent(self) -> None:
        self.patch(spf_dns, "INITIAL_TIMEOUT", 0.2)
        good = dns_server(self, ZONES)
        sick = dns_server(self, ZONES, {"good.example": SERVFAIL})
        silent = dns_server(self, ZONES, {"good.example": NEVER})
        for bad in (down().address, sick.address, silent.address):
            dns = resolver(self, bad, good, timeout=30.0, time=reactor)
            self.assertEqual(len(await dns.ask("good.example", "TXT")), 1)

    async def test_the_next_server_is_queried_at_once_after_a_malformed_response(self) -> None:
        cut = dns_server(self, ZONES, {"good.example": CUT})
        empty = dns_server(self, {"good.example": [EMPTY]})
        good = dns_server(self, ZONES)
        self.patch(spf_dns, "INITIAL_TIMEOUT", 60.0)
        dns = resolver(self, cut, empty, good, timeout=60.0)
        self.assertEqual(await dns.ask("good.example", "TXT"), ((b"v=spf1 ip4:192.0.2.0/24 -all",),))
        self.assertEqual([len(server.questions) for server in (cut, empty, good)], [1, 1, 1])

    async def test_a_malformed_record_does_not_hide_the_others(self) -> None:
        for records in ([EMPTY, *ZONES["good.example"]], [*ZONES["good.example"], EMPTY, txt("other")]):
            server = dns_server(self, {"good.example": records})
            self.assertEqual((await checker(self, server).check("192.0.2.1", "", "a@good.example")).result, "pass")

    async def test_a_failure_names_the_servers_and_what_each_did(self) -> None:
        sick = dns_server(self, ZONES, {"good.example": SERVFAIL})
        silent = dns_server(self, ZONES, {"good.example": NEVER})
        cut = dns_server(self, ZONES, {"good.example": CUT})
        gone = down()
        self.patch(spf_dns, "INITIAL_TIMEOUT", 60.0)
        failure: Any = await self.assertFailure(
            resolver(self, sick, cut, gone, silent, timeout=4.0, time=reactor).ask("good.example", "TXT"), DnsFailure
        )
        self.assertEqual(failure.problem, "DNS lookup timed out")
        self.assertEqual(
            failure.asked,
            f"127.0.0.1:{sick.port} answered SERVFAIL, 127.0.0.1:{cut.port} sent an incomplete message, "
            f"127.0.0.1:{gone.port} is unreachable, 127.0.0.1:{silent.port} did not answer",
        )
        failure = await self.assertFailure(resolver(self, sick).ask("good.example", "TXT"), DnsFailure)
        wanted = f"no usable response from any DNS server (127.0.0.1:{sick.port} answered SERVFAIL)"
        self.assertEqual((str(failure), str(failure.copy())), (wanted, wanted))

    async def test_a_failed_check_names_the_servers_apart_from_the_problem(self) -> None:
        server = dns_server(self, ZONES, {"good.example": NEVER, "sick.example": SERVFAIL})
        for domain, timeout, problem, what in (
            ("good.example", 2.0, "DNS lookup timed out", "did not answer"),
            ("sick.example", 30.0, "no usable response from any DNS server", "answered SERVFAIL"),
        ):
            found = await checker(self, server, timeout, reactor).check("192.0.2.1", "", f"a@{domain}")
            self.assertEqual(found.problem, f"TXT of {domain}: {problem}")
            self.assertEqual(found.asked, f"127.0.0.1:{server.port} {what}")

    async def test_without_any_server_a_lookup_fails_at_once(self) -> None:
        dns = resolver(self, down().address, ("::1", down().port), timeout=30.0)
        await self.assertFailure(dns.ask("good.example", "TXT"), DnsFailure)

    async def test_invalid_names_have_no_records(self) -> None:
        server = dns_server(self, ZONES)
        dns = resolver(self, server)
        for name in ("a" * 64 + ".example", ".".join(["a" * 60] * 5), "a..example", ""):
            self.assertEqual(await dns.ask(name, "A"), (), name)

    async def test_the_cache_is_bounded(self) -> None:
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
        self.assertEqual(nameservers(read)(), read)

    def test_anything_else_is_refused(self) -> None:
        for text in ("dns.example", "192.0.2.53:0", "192.0.2.53:70000", "[192.0.2.53", "192.0.2.53:x", "[]:53"):
            error = self.assertRaises(ValueError, parse_nameservers, text)
            self.assertIn(repr(text), str(error))

    def test_the_system_servers_follow_resolv_conf(self) -> None:
        path = Path(self.enterContext(TemporaryDirectory()), "resolv.conf")
        servers = SystemServers(str(path))
        self.assertEqual(servers(), [("127.0.0.1", 53)])
        for text, wanted in (
            ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", [("192.0.2.53", 53), ("2001:db8::53", 53)]),
            ("nameserver 198.51.100.53\n", [("198.51.100.53", 53)]),
            ("# in the middle of a change\n", [("198.51.100.53", 53)]),
            ("nameserver 203.0.113.53\n", [("203.0.113.53", 53)]),
        ):
            path.write_text(text)
            self.assertEqual(servers(), wanted)
        path.unlink()
        self.assertEqual(servers(), [("203.0.113.53", 53)])

    async def test_a_change_of_servers_applies_to_the_next_lookup(self) -> None:
        one, other = (dns_server(self, ZONES) for _ in range(2))
        asked = [Server(*one.address)]
        dns = Resolver(reactor, runner(self), lambda: asked, 5.0)
        self.addCleanup(dns.close)
        await dns.ask("good.example", "TXT")
        asked[:] = [Server(*other.address)]
        await dns.ask("good.example", "A")
        self.assertEqual([len(server.questions) for server in (one, other)], [1, 1])

    def test_the_system_servers_are_the_default(self) -> None:
        self.assertTrue(nameservers(())())
