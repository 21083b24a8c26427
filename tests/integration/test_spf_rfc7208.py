"""The test suite of RFC 7208 (see data/rfc7208-tests.LICENSE), asked over a real DNS server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from time import thread_time
from typing import Any

import dns.rdata
import yaml
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from chapps_tw.dns.resolver import Resolver
from chapps_tw.spf.checker import SpfChecker, identity_of
from tests.support.paths import DATA
from tests.support.servers.dns import NEVER, DnsServer, record, txt
from tests.support.spf_tools import RULES, TimeByHand, dns_server, resolver, runner, wait_until

SUITE = DATA / "rfc7208-tests.yml"
DEADLINE = 2.0

ASKABLE = ("TXT", "A", "AAAA", "MX", "PTR")


class Suite(TestCase):
    maxDiff = None

    async def test_every_case_has_the_result_of_the_suite(self) -> None:
        outcomes: dict[str, str] = {}
        for scenario in scenarios():
            server = dns_server(self, *zone(scenario["zonedata"]))
            time = TimeByHand()
            dns = resolver(self, server, timeout=DEADLINE, time=time)
            spf = SpfChecker(time, runner(self), thread_time, dns, DEADLINE, RULES)
            cases = scenario["tests"].items()
            runs = [run(spf, case) for _, case in cases]
            await wait_until(partial(only_silence_is_waited_for, runs, dns, server))
            time.advance(DEADLINE)
            found = await gatherResults(runs, consumeErrors=True)
            outcomes |= {name: verdict(case, result) for (name, case), result in zip(cases, found, strict=True)}
        self.assertEqual(len(outcomes), 203)
        wrong = {name: text for name, text in outcomes.items() if text}
        self.assertEqual("\n".join(f"{name}: {text}" for name, text in wrong.items()), "")


def waiting(runs: list[Deferred[Any]]) -> int:
    """How many have no result yet."""
    return sum(not run.called for run in runs)


def only_silence_is_waited_for(runs: list[Deferred[Any]], dns: Resolver, server: DnsServer) -> bool:
    """Whether all that have no result wait for an answer that the server never gives."""
    hung = [waiters for question, waiters in dns._pending.items() if server.moods.get(question) == NEVER]
    return waiting(runs) == sum(waiting(waiters) for waiters in hung)


def scenarios() -> Iterator[dict[str, Any]]:
    with SUITE.open("rb") as file:
        yield from yaml.safe_load_all(file)


def run(spf: SpfChecker, case: dict[str, Any]) -> Any:
    identity = identity_of(case["host"], case["helo"], case["mailfrom"])
    assert identity is not None
    return Deferred.fromCoroutine(spf.check_host(identity, DEADLINE))


def verdict(case: dict[str, Any], found: Any) -> str:
    wanted = case["result"] if isinstance(case["result"], list) else [case["result"]]
    if found.result not in wanted:
        return f"{found} is none of {wanted}"
    explanation = case.get("explanation")
    if explanation and explanation != (found.explanation or "DEFAULT"):
        return f"{found.explanation!r} is not {explanation!r}"
    return ""


def zone(data: dict[str, list[Any]]) -> tuple[dict[str, list[dns.rdata.Rdata]], dict[Any, str | float]]:
    zones: dict[str, list[dns.rdata.Rdata]] = {}
    moods: dict[Any, str | float] = {}
    for name, entries in data.items():
        pairs = [pair for entry in entries if isinstance(entry, dict) for pair in entry.items()]
        types = {rdtype for rdtype, _ in pairs}
        # A record of type SPF stands for one of type TXT where there is none; nobody asks for the type itself.
        wanted = [(t.replace("SPF", "TXT"), v) for t, v in pairs if (t != "SPF" or "TXT" not in types) and v != "NONE"]
        zones[name.lower()] = [rdata(*pair) for pair in wanted]
        if "TIMEOUT" in entries:
            there = {rdtype for rdtype, _ in wanted}
            moods |= {(name.lower(), rdtype): NEVER for rdtype in ASKABLE if rdtype not in there}
    return zones, moods


def rdata(rdtype: str, value: Any) -> dns.rdata.Rdata:
    if rdtype == "TXT":
        return txt(*([value] if isinstance(value, str) else value or [""]))
    if rdtype == "MX":
        return record("MX", f"{value[0]} {value[1] or '.'}")
    return record(rdtype, value)
