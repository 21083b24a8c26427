"""Lookups and limits of the terms of an SPF record, in their order, with a real DNS server."""

from __future__ import annotations

from typing import Any

import dns.rdata
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from chapps_tw.mail.received_spf import SpfResult
from tests.support.servers.dns import NEVER, SERVFAIL, addresses, record, txt
from tests.support.spf_tools import checker, dns_server

IPV4, IPV6 = "192.0.2.1", "2001:db8::1"
REVERSE = "1.2.0.192.in-addr.arpa"


def hosts(*names: str) -> list[dns.rdata.Rdata]:
    """MX records."""
    return [record("MX", f"{number} {name}.") for number, name in enumerate(names)]


class Terms(TestCase):
    def setUp(self) -> None:
        self.server = dns_server(self, {})
        self.rules: dict[str, Any] = {}

    def check(self, text: str, client: str = IPV4, local: str = "alice", helo: str = "") -> Deferred[SpfResult]:
        """Check mail from a domain with this record."""
        self.server.zones["a.example"] = [*self.server.zones.get("a.example", ()), txt("v=spf1 " + text)]
        return checker(self, self.server, **self.rules).check(client, helo, f"{local}@a.example")

    def asked(self, rdtype: str) -> list[str]:
        return [name for name, asked, _ in self.server.questions if asked == rdtype]


class VoidLookups(Terms):
    def setUp(self) -> None:
        super().setUp()
        for name in ("h1", "h2", "h3"):
            self.server.zones[f"{name}.example"] = addresses("192.0.2.200")
        self.server.zones["both.example"] = addresses("192.0.2.200", IPV6)
        self.server.zones["esp.example"] = [txt(f"v=spf1 ip6:{IPV6} -all")]

    async def test_a_term_is_one_void_lookup_however_many_hosts_have_no_address(self) -> None:
        self.server.zones["a.example"] = addresses(IPV4) + hosts("h1.example", "h2.example", "h3.example")
        self.assertEqual((await self.check("a mx include:esp.example ~all", IPV6)).result, "pass")

    async def test_a_matching_host_is_found_among_hosts_without_an_address(self) -> None:
        self.server.zones["a.example"] = hosts("h1.example", "h2.example", "h3.example", "both.example")
        self.assertEqual((await self.check("mx -all", IPV6)).result, "pass")

    async def test_ptr_names_do_not_count_as_void_lookups(self) -> None:
        names = [record("PTR", f"v{number}.esp.example.") for number in range(3)]
        self.server.zones[REVERSE] = names
        found = await self.check("ptr:esp.example exists:%{p}.esp.example ip4:192.0.2.0/24 -all")
        self.assertEqual((found.result, found.mechanism), ("pass", "ip4:192.0.2.0/24"))

    async def test_terms_of_included_records_count_too(self) -> None:
        self.server.zones["more.example"] = [txt("v=spf1 a:v1.example a:v2.example ?all")]
        found = await self.check("include:more.example a:v3.example +all")
        self.assertEqual((found.result, found.problem), ("permerror", "Void lookup limit of 2 exceeded"))

    async def test_the_limit_is_an_option(self) -> None:
        for limit, result in ((3, "pass"), (2, "permerror")):
            self.server.zones["a.example"] = []
            self.rules["void_lookups"] = limit
            self.assertEqual((await self.check("a:v1.example mx exists:v2.example +all")).result, result, limit)


class Modifiers(Terms):
    async def test_names_of_modifiers_are_case_insensitive(self) -> None:
        self.server.zones["b.example"] = [txt("v=spf1 -all EXP=why.example")]
        self.server.zones["why.example"] = [txt("%{i} is none of ours")]
        self.assertEqual((await self.check("Redirect=b.example")).explanation, "192.0.2.1 is none of ours")

    async def test_a_duplicate_modifier_is_an_error(self) -> None:
        for text in ("redirect=b.example REDIRECT=c.example", "Exp=b.example exp=b.example -all"):
            self.server.zones = {"b.example": [txt("v=spf1 +all")], "c.example": [txt("v=spf1 +all")]}
            self.assertEqual((await self.check(text)).result, "permerror", text)

    async def test_a_duplicate_unknown_modifier_is_ignored(self) -> None:
        self.assertEqual((await self.check("op=a OP=b op=%{c} ip4:192.0.2.1 -all")).result, "pass")

    async def test_a_syntax_error_invalidates_the_whole_record(self) -> None:
        for text in ("+all ip4:nonsense", "+all redirect=%{x}", "+all exp=", "+all unknown=%{d", "+all a:b.example\n"):
            self.server.zones.clear()
            self.assertEqual((await self.check(text)).result, "permerror", text)


class Order(Terms):
    TEN = " ".join(f"a:h{number}.example" for number in range(10))

    def setUp(self) -> None:
        super().setUp()
        self.server.zones |= {f"h{number}.example": addresses("198.51.100.1") for number in range(10)}
        self.server.zones["ok.example"] = [txt("v=spf1 ip4:192.0.2.1 -all")]

    async def test_a_redirect_after_a_match_is_not_counted(self) -> None:
        for match in ("?all", "?ip4:192.0.2.1"):
            self.server.zones["a.example"] = []
            found = await self.check(f"{self.TEN} {match} redirect=ok.example")
            self.assertEqual((found.result, found.mechanism), ("neutral", match))
        self.assertEqual(self.asked("TXT"), ["a.example"] * 2)

    async def test_a_redirect_that_is_followed_counts_as_a_lookup(self) -> None:
        found = await self.check(f"{self.TEN} redirect=ok.example")
        self.assertEqual((found.result, found.problem), ("permerror", "Too many DNS lookups"))

    async def test_a_term_after_a_match_is_not_looked_up(self) -> None:
        self.server.moods[REVERSE] = NEVER
        found = await self.check("include:ok.example exists:%{p}._spf.x -all exp=%{p}.why.example")
        self.assertEqual((found.result, found.mechanism), ("pass", "include:ok.example"))
        self.assertEqual(self.asked("PTR"), [])

    async def test_hosts_after_a_match_are_not_looked_up(self) -> None:
        self.server.moods["h2.example"] = SERVFAIL
        self.server.zones["h1.example"] = addresses(IPV4)
        self.server.zones["a.example"] = hosts("h0.example", "h1.example", "h2.example")
        self.assertEqual((await self.check("mx -all")).result, "pass")
        self.assertEqual(self.asked("A"), ["h0.example", "h1.example"])

    async def test_the_explanation_is_that_of_the_failing_domain(self) -> None:
        for name in ("a", "b", "c"):
            self.server.zones[f"why.{name}.example"] = [txt(f"says {name}")]
        self.server.zones["b.example"] = [txt("v=spf1 -all exp=why.b.example")]
        self.server.zones["c.example"] = [txt("v=spf1 include:b.example -all exp=why.%{d}")]
        self.assertEqual((await self.check("include:b.example redirect=c.example exp=why.%{d}")).explanation, "says c")


class Names(Terms):
    async def test_a_non_ascii_local_part_does_not_match(self) -> None:
        names = ("xn--mller-kva", "m?ller", "m%c3%bcller", "müller", "müller@a.example")
        self.server.zones |= {f"{name}.m.example": addresses(IPV4) for name in names}
        self.server.zones["m.example"] = [txt("v=spf1 +all")]
        terms = "exists:%{l}.m.example exists:%{L}.m.example a:%{s}.m.example include:%{l1r}.m.example"
        found = await self.check(f"{terms} ip4:192.0.2.1 -all", local="müller")
        self.assertEqual((found.result, found.mechanism), ("pass", "ip4:192.0.2.1"))
        self.assertEqual(self.asked("A"), [])
        self.server.zones["a.example"] = []
        self.assertEqual((await self.check("redirect=%{l}.m.example", local="müller")).result, "neutral")

    async def test_a_local_part_is_used_unchanged(self) -> None:
        for local in ("a b", "a=b@c", "x" * 63 + "." + "y" * 63 + "." + "z" * 63, '"', "a\tb"):
            self.server.zones["a.example"] = []
            self.server.zones[f"{local}.m.example"] = addresses("127.0.0.2")
            self.assertEqual((await self.check("exists:%{l}.m.example -all", local=local)).result, "pass", local)

    async def test_a_local_part_too_long_for_a_name_does_not_match(self) -> None:
        for local in ("a..b", ".a", "x" * 64, "x" * 600):
            self.server.zones["a.example"] = []
            found = await self.check("-exists:%{l}.m.example -a:%{l}.m.example ?all", local=local)
            self.assertEqual((found.result, self.asked("A")), ("neutral", []), local)

    async def test_an_explanation_may_quote_a_non_ascii_local_part(self) -> None:
        self.server.zones["why.example"] = [txt("%{L} and %{l} and %{h}")]
        found = await self.check("-all exp=why.example", local="m\udcfcü", helo="bücher.example")
        self.assertEqual(found.explanation, "m%FC%C3%BC and m?? and xn--bcher-kva.example")

    async def test_valid_dns_names_are_looked_up(self) -> None:
        for domain in (
            "-a.example",
            "a-.example",
            "_a.example",
            "a+b.example",
            "xn--a.example",
            "a." * 120 + "example",
        ):
            self.server.zones[domain] = [txt("v=spf1 +all")]
            found = await checker(self, self.server).check(IPV4, "", f"alice@{domain}")
            self.assertEqual((found.result, found.domain), ("pass", domain))

    async def test_hosts_with_valid_dns_names_are_looked_up(self) -> None:
        for name, host in ((r"a\032b.m", "a b.m"), ("-a_.m", "-a_.m"), (r"a\"b.m", 'a"b.m')):
            self.server.zones["a.example"] = hosts(name)
            self.server.zones[host] = addresses(IPV4)
            self.assertEqual((await self.check("mx -all")).result, "pass", name)

    async def test_invalid_dns_names_are_not_looked_up(self) -> None:
        for domain in ("a" * 64 + ".example", "a..example", "a." * 130 + "example", "[192.0.2.1]", "192.0.2.1", "a"):
            found = await checker(self, self.server).check(IPV4, domain, f"alice@{domain}")
            self.assertEqual(found.result, "none", domain)
        self.assertEqual(self.server.questions, [])

    async def test_the_receiver_macro_is_expanded(self) -> None:
        self.rules |= {"receiver": "mx.example.org", "now": lambda: 1234567890.5}
        self.server.zones["why.example"] = [txt("%{r} at %{t}")]
        self.assertEqual((await self.check("-all exp=why.example")).explanation, "mx.example.org at 1234567890")
