"""SPF checks over a real DNS server: what they say, how long they take, what they leave behind."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import LoopingCall
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw import spf_check, spf_dns, spf_messages
from chapps_tw.received_spf import SpfResult
from chapps_tw.spf_check import SpfChecker
from chapps_tw.spf_messages import MAX_RECORD
from chapps_tw.spf_query import Check, Identity, evaluate
from chapps_tw.spf_turns import Queue
from tests.support.examples import examples
from tests.support.servers.dns import (
    NEVER,
    SERVFAIL,
    addresses,
    record,
    txt,
)
from tests.support.spf_tools import checker, dns_server, reactor, resolver, runner, wait_until

CLIENT = "192.0.2.1"
RESULTS = {"pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"}

# Each with what it stands for, of x-y.z@macros.example, HELO a-b.c.example and 203.0.113.4.
MACROS = {
    "%{l1r-}": "x",
    "%{l4444-}": "x.y.z",
    "%{lr-}": "y.z.x",
    "%{h-}": "a.b.c.example",
    "%{S}": "x-y.z%40macros.example",
}

ZONES = {
    "good.example": [txt("v=spf1 ip4:192.0.2.0/24 -all")],
    "bad.example": [txt("v=spf1 -all exp=why.bad.example")],
    "why.bad.example": [txt("%{i} is none of ours\r\nX-Header: injected\x00")],
    "plain.example": [txt("v=spf1 -all")],
    "hung-exp.example": [txt("v=spf1 -all exp=why.hung.example")],
    "passing-hung-exp.example": [txt("v=spf1 +all exp=why.hung.example")],
    "broken.example": [txt("v=spf1 ip4:nonsense -all")],
    "norecord.example": addresses("192.0.2.1"),
    "mx.example": [txt("v=spf1 mx -all"), record("MX", "10 a.mx.example."), record("MX", "20 b.mx.example.")],
    "a.mx.example": addresses("198.51.100.1"),
    "b.mx.example": addresses("192.0.2.1"),
    "xn--bcher-kva.example": [txt("v=spf1 ip4:192.0.2.1 -all")],
    "long.example": [txt("v=spf1 ", *["ip4:198.51.100.1 " * 14] * 10, "ip4:192.0.2.1 -all")],
    "endless.example": [txt("v=spf1 ", *["ip4:198.51.100.1 " * 14] * 20, "ip4:192.0.2.1 -all")],
    "dotted.example": [txt("v=spf1 x=%{d}" + "." * 128 + " ip4:192.0.2.1 -all")],
    "eleven.example": [txt("v=spf1 " + " ".join(f"a:h{n}.eleven.example" for n in range(11)) + " -all")],
    **{f"h{n}.eleven.example": addresses("198.51.100.1") for n in range(11)},
    "voids.example": [txt("v=spf1 a:v1.example a:v2.example a:v3.example ip4:192.0.2.1 -all")],
    "mxes.example": [txt("v=spf1 mx -all"), *[record("MX", f"10 m{n}.mxes.example.") for n in range(11)]],
    "helo.example": [txt("v=spf1 ip4:192.0.2.1 -all")],
    "ptr.example": [txt("v=spf1 ptr -all")],
    "p.example": [txt("v=spf1 a:%{p}.p.example -all")],
    "unknown.p.example": addresses("203.0.113.1", "203.0.113.2", "203.0.113.3"),
    "mail.ptr.example": addresses("203.0.113.3"),
    "1.113.0.203.in-addr.arpa": [record("PTR", "mail.ptr.example.")],
    "2.113.0.203.in-addr.arpa": [record("PTR", "sick.ptr.example.")],
    "3.113.0.203.in-addr.arpa": [record("PTR", "sick.ptr.example."), record("PTR", "mail.ptr.example.")],
    "macros.example": [txt("v=spf1 ", *[f"a:{text}.%{{d1r}}.m.example " for text in MACROS], "-all")],
    **{f"{value}.macros.m.example".lower(): addresses("198.51.100.1") for value in MACROS.values()},
    "longest.example": [txt("v=spf1 a:%{l}.%{l}.%{l}.l.example -all")],
    "wordy.example": [txt("v=spf1 -all exp=why.wordy.example")],
    "why.wordy.example": [txt("Not ours. " * 25, "Not ours. " * 10)],
}


class Results(TestCase):
    def setUp(self) -> None:
        self.server = dns_server(self, ZONES, {".hung.example": NEVER, "sick.example": SERVFAIL})
        self.spf = checker(self, self.server)

    async def test_mail_from_is_checked_after_helo(self) -> None:
        found = await self.spf.check(CLIENT, "norecord.example", "alice@good.example")
        self.assertEqual(found, SpfResult("pass", "mailfrom", "good.example", mechanism="ip4:192.0.2.0/24"))
        asked = [name for name, _, _ in self.server.questions]
        self.assertEqual(asked, ["norecord.example", "good.example"])

    async def test_a_fail_of_helo_is_final(self) -> None:
        found = await self.spf.check(CLIENT, "plain.example", "alice@good.example")
        self.assertEqual(found, SpfResult("fail", "helo", "plain.example", mechanism="-all"))
        self.assertEqual(self.server.asked("good.example", "TXT"), 0)

    async def test_anything_else_of_helo_is_not(self) -> None:
        for helo in ("broken.example", "sick.example", "good.example"):
            found = await self.spf.check(CLIENT, helo, "alice@plain.example")
            self.assertEqual((found.result, found.domain), ("fail", "plain.example"), helo)

    async def test_helo_stands_in_for_the_null_sender(self) -> None:
        found = await self.spf.check(CLIENT, "helo.example", "")
        self.assertEqual(found, SpfResult("pass", "helo", "helo.example", mechanism="ip4:192.0.2.1"))
        self.assertEqual((await self.spf.check(CLIENT, "[192.0.2.1]", "")).result, "none")

    async def test_helo_that_is_no_domain_name_is_not_looked_up(self) -> None:
        for helo in ("", "localhost", "[192.0.2.1]", "192.0.2.1", "a..example", "x" * 1000, "\udcff.example", "a b.c"):
            found = await self.spf.check(CLIENT, helo, "alice@good.example")
            self.assertEqual(found.result, "pass", helo)
        self.assertEqual({name for name, _, _ in self.server.questions}, {"good.example"})

    async def test_every_result_of_the_rfc(self) -> None:
        for domain, result in [
            ("norecord.example", "none"),
            ("nowhere.example", "none"),
            ("sick.example", "temperror"),
            ("broken.example", "permerror"),
            ("mx.example", "pass"),
            ("bücher.example", "pass"),
            ("long.example", "pass"),
            ("endless.example", "permerror"),
            ("dotted.example", "permerror"),
        ]:
            found = await self.spf.check(CLIENT, "", f"alice@{domain}")
            self.assertEqual(found.result, result, found)

    async def test_the_limits_of_the_rfc_hold(self) -> None:
        for domain, problem in [
            ("eleven.example", "Too many DNS lookups"),
            ("voids.example", "Void lookup limit of 2 exceeded"),
            ("mxes.example", "More than 10 MX records returned"),
        ]:
            found = await self.spf.check(CLIENT, "", f"alice@{domain}")
            self.assertEqual((found.result, found.problem), ("permerror", problem))

    async def test_the_domain_is_what_follows_the_last_at(self) -> None:
        self.assertEqual((await self.spf.check(CLIENT, "", "a@plain.example@good.example")).domain, "good.example")

    async def test_a_strangers_explanation_is_one_line_of_printable_ascii(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@bad.example")
        self.assertEqual(found.explanation, "192.0.2.1 is none of ours  X-Header: injected?")

    async def test_an_explanation_is_only_waited_for_when_it_is_needed(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@passing-hung-exp.example")
        self.assertEqual(found.result, "pass")
        self.assertEqual(self.server.asked("why.hung.example", "TXT"), 0)

    async def test_names_of_the_client_that_dns_does_not_know_are_none(self) -> None:
        self.server.moods |= {"1.113.0.203.in-addr.arpa": SERVFAIL, "sick.ptr.example": SERVFAIL}
        for client, result in (("203.0.113.1", "fail"), ("203.0.113.2", "fail"), ("203.0.113.3", "pass")):
            self.assertEqual((await self.spf.check(client, "", "alice@ptr.example")).result, result, client)
        for client in ("203.0.113.1", "203.0.113.2"):
            self.assertEqual((await self.spf.check(client, "", "alice@p.example")).result, "pass", client)

    async def test_macros_stand_for_what_the_rfc_says(self) -> None:
        found = await self.spf.check("203.0.113.4", "a-b.c.example", "x-y.z@macros.example")
        self.assertEqual(found.mechanism, "-all", found)
        asked = [name for name, rdtype, _ in self.server.questions if rdtype == "A"]
        self.assertEqual(asked, [f"{value}.macros.m.example".lower() for value in MACROS.values()])

    async def test_a_name_that_is_too_long_loses_as_many_labels_as_it_takes(self) -> None:
        await self.spf.check("203.0.113.4", "", f"{'a.' * 60}b@longest.example")
        [asked] = [name for name, rdtype, _ in self.server.questions if rdtype == "A"]
        self.assertEqual(asked, "a." * 60 + "b." + "a." * 60 + "b.l.example")

    async def test_a_long_explanation_keeps_its_beginning(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@wordy.example")
        self.assertEqual(found.explanation, ("Not ours. " * 20)[:200])

    async def test_what_is_no_macro_is_an_error(self) -> None:
        for macro in ("%{d0}", "%{d1x}", "%{a}", "%{}", "%{d", "%", "%x", "%{c}"):
            self.server.zones[f"m{len(macro)}.example"] = [txt(f"v=spf1 a:{macro}.example -all")]
            found = await self.spf.check(CLIENT, macro, f"alice@m{len(macro)}.example")
            self.assertEqual(found.result, "permerror", macro)

    async def test_clients_without_an_address_have_no_result(self) -> None:
        for client in ("unknown", "", "192.0.2", "\udcff", "list", "list6"):
            self.assertEqual((await self.spf.check(client, "plain.example", "a@plain.example")).result, "none")
        self.assertEqual(self.server.questions, [])

    async def test_addresses_with_zone_or_mapped_are_read(self) -> None:
        self.assertEqual((await self.spf.check("::ffff:192.0.2.1", "", "a@good.example")).result, "pass")
        self.assertEqual((await self.spf.check("fe80::1%eth0", "", "a@good.example")).result, "fail")

    async def test_nothing_that_a_client_says_is_an_error(self) -> None:
        text = st.one_of(
            st.text(max_size=80),
            st.sampled_from(["x" * 1000, "a..b@good.example", "@", "@good.example", "a@", "\udce4@g\udce4.example"]),
            st.builds(lambda local: local + "@good.example", st.text(max_size=300)),
        )

        check: Any = self.spf.check

        @profile(max_examples=examples(60), deadline=None)
        @given(text, text, text)
        def anything(client: str, helo: str, sender: str) -> None:
            for address in (client, CLIENT):
                found: SpfResult = blockingCallFromThread(reactor, check, address, helo, sender)
                assert found.result in RESULTS
                assert "ended unexpectedly" not in found.problem and "while the record" not in found.problem

        await deferToThread(anything)
        self.assertEqual(self.flushLoggedErrors(), [])

    @pytest.mark.timed
    async def test_identical_checks_in_flight_are_one(self) -> None:
        server = dns_server(self, ZONES, {"good.example": 0.2})
        spf = checker(self, server)
        waiting = [spf.check(CLIENT, "", "alice@good.example") for _ in range(30)]
        self.assertEqual(spf.checks, 1)
        self.assertEqual({found.result for found in await gatherResults(waiting)}, {"pass"})
        self.assertEqual(server.asked("good.example", "TXT"), 1)


class Costs(TestCase):
    """Records that are made to take long."""

    async def test_a_check_that_computes_for_too_long_is_a_temperror(self) -> None:
        chain = [(f"c{n}.example", [txt(f"v=spf1 include:c{n + 1}.example -all")]) for n in range(5)]
        server, ticks = dns_server(self, dict(chain)), itertools.count()
        spf = SpfChecker(reactor, runner(self), lambda: next(ticks) / 50, resolver(self, server), 5.0)
        found = await spf.check(CLIENT, "", "alice@c0.example")
        self.assertEqual((found.result, found.problem), ("temperror", "the record takes too long to be read"))
        self.assertLess(len(server.questions), 5)

    def test_a_check_that_has_computed_much_waits_for_the_others(self) -> None:
        begun: list[tuple[str, Deferred[Any]]] = []

        def run(work: Callable[[], None], name: str) -> Deferred[Any]:
            begun.append((name, Deferred()))
            return begun[-1][1]

        def work(name: str) -> None:
            """Not called."""

        runs = Queue(run)
        turns = [(0.2, "first"), (0.2, "dear"), (0.1, "cheap"), (0.1, "given up"), (0.0, "new")]
        waiting = [Deferred.fromCoroutine(runs.run(spent, work, name)) for spent, name in turns]
        waiting[3].addErrback(lambda _: None).cancel()
        for number in range(4):
            self.assertEqual(len(begun), number + 1)
            begun[-1][1].callback(None)
        self.assertEqual([name for name, _ in begun], ["first", "new", "cheap", "dear"])

    def test_no_record_takes_long(self) -> None:
        for terms in (
            ["ip4:192.0.2.#"],
            ["x#=" + "%{sr}" * 70 + "." * 127],
            ["x#=" + "%{S}" * 120],
            ["exp=" + "%{sr-}" * 80, "redirect=" + "%{l9r+}" * 70],
            ["a:" + "%{h2r-}" * 60 + ".example/32//128"],
            ["?a:%{p}.e#"],
        ):
            many = [term.replace("#", str(number)) for number in range(400) for term in terms]
            text = " ".join(["v=spf1", *many]).encode()[:MAX_RECORD].rpartition(b" ")[0]
            identity = Identity("192.0.2.1", "mailfrom", "a." * 64, "b." * 120 + "example", "c." * 120 + "example")
            check = Check(identity, {(identity.domain, "TXT"): ((text,),)}, {})
            run = evaluate(check, time.thread_time, 10.0)
            self.assertLess(run.seconds, 0.25, terms)


@pytest.mark.timed
class Deadlines(TestCase):
    def setUp(self) -> None:
        self.server = dns_server(self, ZONES, {".hung.example": NEVER, "late.example": 0.6})
        self.server.zones["late.example"] = [txt("v=spf1 +all")]

    async def test_dns_that_never_answers_is_a_temperror_at_the_deadline(self) -> None:
        found, seconds = await timed(checker(self, self.server, 0.5), "b.hung.example", "alice@a.hung.example")
        self.assertEqual((found.result, found.identity), ("temperror", "mailfrom"))
        self.assertTrue(0.4 < seconds < 1.5, seconds)

    async def test_a_helo_name_that_hangs_leaves_time_for_mail_from(self) -> None:
        found, seconds = await timed(checker(self, self.server, 1.0), "b.hung.example", "alice@good.example")
        self.assertEqual(found.result, "pass")
        self.assertTrue(0.4 < seconds < 1.0, seconds)

    async def test_an_error_of_dns_is_kept_no_longer_than_dns_is(self) -> None:
        for module in (spf_check, spf_messages, spf_dns):
            self.patch(module, "FAILURE_TTL", 0.2)
        self.server.moods["good.example"] = SERVFAIL
        spf = checker(self, self.server)
        for _ in range(2):
            self.assertEqual((await spf.check(CLIENT, "", "alice@good.example")).result, "temperror")
        self.server.moods.clear()
        end = reactor.seconds() + 0.25
        await wait_until(lambda: reactor.seconds() > end)
        self.assertEqual((await spf.check(CLIENT, "", "alice@good.example")).result, "pass")

    async def test_a_late_answer_within_the_deadline_counts(self) -> None:
        found, _ = await timed(checker(self, self.server, 3.0), "", "alice@late.example")
        self.assertEqual(found.result, "pass")

    async def test_a_fail_stays_one_when_its_explanation_hangs(self) -> None:
        found, seconds = await timed(checker(self, self.server, 0.5), "", "alice@hung-exp.example")
        self.assertEqual((found.result, found.explanation), ("fail", ""))
        self.assertLess(seconds, 1.5)

    async def test_threads_that_are_stuck_do_not_hold_the_answer(self) -> None:
        dns = resolver(self, self.server)
        never: Deferred[Any] = Deferred()
        spf = SpfChecker(reactor, lambda *_: never, time.thread_time, dns, 0.3)
        found, seconds = await timed(spf, "", "alice@good.example")
        self.assertEqual((found.result, found.problem), ("temperror", "the check took too long"))
        self.assertLess(seconds, 1.3)

    async def test_when_too_many_are_checked_the_next_is_answered_at_once(self) -> None:
        self.patch(spf_check, "MAX_CHECKS", 2)
        spf = checker(self, self.server, 1.0)
        hung = [spf.check(CLIENT, "", f"a@{n}.hung.example") for n in range(2)]
        found, seconds = await timed(spf, "", "alice@good.example")
        self.assertEqual((found.result, found.problem), ("temperror", "too many SPF checks at once"))
        self.assertLess(seconds, 0.1)
        await gatherResults(hung)
        self.assertEqual((await spf.check(CLIENT, "", "alice@good.example")).result, "pass")

    async def test_closing_answers_whoever_waits(self) -> None:
        spf = checker(self, self.server, 30.0)
        waiting = spf.check(CLIENT, "", "a@a.hung.example")
        spf.close()
        self.assertEqual((await waiting).result, "temperror")
        self.assertEqual(spf.checks, 0)

    async def test_who_stops_waiting_does_not_stop_the_check_for_others(self) -> None:
        spf = checker(self, self.server)
        one, other = (spf.check(CLIENT, "", "alice@late.example") for _ in range(2))
        one.cancel()
        self.assertEqual((await other).result, "pass")
        await DeferredList([one], consumeErrors=True)


@pytest.mark.alone
@pytest.mark.timed
class Flood(TestCase):
    async def test_150_that_hang_hold_up_nothing_and_leave_nothing_behind(self) -> None:
        server = dns_server(self, ZONES, {".hung.example": NEVER})
        dns = resolver(self, server, timeout=2.0)
        spf = SpfChecker(reactor, runner(self, 2), time.thread_time, dns, 2.0)
        await spf.check(CLIENT, "", "warm@good.example")
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for turn in range(3):
            lags = Lags()
            hung = [timed(spf, f"h{n}-{turn}.hung.example", f"a@m{n}-{turn}.hung.example") for n in range(150)]
            for n in range(20):
                found, seconds = await timed(spf, f"{n}.{turn}.example", "alice@mx.example")
                self.assertEqual(found.result, "pass")
                self.assertLess(seconds, 0.5)
            outcomes = await gatherResults(hung)
            self.assertEqual({found.result for found, _ in outcomes}, {"temperror"})
            self.assertLess(max(seconds for _, seconds in outcomes), 3.0)
            self.assertLess(lags.p99(), 0.05)
            self.assertEqual(spf.checks, 0)
            await wait_until(lambda: dns.questions == 0)
        self.assertLessEqual(threading.active_count(), threads + 1)
        await wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files + 1)


def timed(spf: SpfChecker, helo: str, sender: str) -> Deferred[tuple[SpfResult, float]]:
    start = time.monotonic()
    return spf.check(CLIENT, helo, sender).addCallback(lambda found: (found, time.monotonic() - start))


class Lags:
    """How late the reactor runs what is due every 5 ms."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._due = reactor.seconds() + 0.005
        self._loop = LoopingCall(self._tick)
        self._loop.start(0.005, now=False)

    def _tick(self) -> None:
        now = reactor.seconds()
        self.late.append(max(0.0, now - self._due))
        self._due = now + 0.005

    def p99(self) -> float:
        self._loop.stop()
        return sorted(self.late)[int(len(self.late) * 0.99)]
