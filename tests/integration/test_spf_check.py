"""SPF checks with a real DNS server: results, timeouts, and cleanup."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.dns.messages import FAILURE_TTL
from chapps_tw.dns.queue import Queue
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.spf import checker as spf_check
from chapps_tw.spf.checker import SpfChecker
from chapps_tw.spf.evaluation import Evaluation, Identity
from tests.support.examples import examples
from tests.support.servers.dns import (
    NEVER,
    SERVFAIL,
    DnsServer,
    addresses,
    record,
    txt,
)
from tests.support.spf_tools import RULES, TimeByHand, checker, dns_server, reactor, resolver, runner, wait_until

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
    "endless.example": [txt("v=spf1 ", *["ip4:198.51.100.1 " * 14] * 70, "ip4:192.0.2.1 -all")],
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

    async def test_other_results_of_helo_are_not_final(self) -> None:
        for helo in ("broken.example", "sick.example", "good.example"):
            found = await self.spf.check(CLIENT, helo, "alice@plain.example")
            self.assertEqual((found.result, found.domain), ("fail", "plain.example"), helo)

    async def test_helo_is_checked_for_the_null_sender(self) -> None:
        found = await self.spf.check(CLIENT, "helo.example", "")
        self.assertEqual(found, SpfResult("pass", "helo", "helo.example", mechanism="ip4:192.0.2.1"))
        self.assertEqual((await self.spf.check(CLIENT, "[192.0.2.1]", "")).result, "none")

    async def test_a_helo_name_that_is_not_a_domain_is_not_looked_up(self) -> None:
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
            ("dotted.example", "pass"),
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

    async def test_the_domain_is_the_part_after_the_last_at(self) -> None:
        self.assertEqual((await self.spf.check(CLIENT, "", "a@plain.example@good.example")).domain, "good.example")

    async def test_a_strangers_explanation_is_one_line_of_printable_ascii(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@bad.example")
        self.assertEqual(found.explanation, "192.0.2.1 is none of ours  X-Header: injected?")

    async def test_an_explanation_is_only_looked_up_for_a_fail(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@passing-hung-exp.example")
        self.assertEqual(found.result, "pass")
        self.assertEqual(self.server.asked("why.hung.example", "TXT"), 0)

    async def test_a_client_without_ptr_records_has_no_name(self) -> None:
        self.server.moods |= {"1.113.0.203.in-addr.arpa": SERVFAIL, "sick.ptr.example": SERVFAIL}
        for client, result in (("203.0.113.1", "fail"), ("203.0.113.2", "fail"), ("203.0.113.3", "pass")):
            self.assertEqual((await self.spf.check(client, "", "alice@ptr.example")).result, result, client)
        for client in ("203.0.113.1", "203.0.113.2"):
            self.assertEqual((await self.spf.check(client, "", "alice@p.example")).result, "pass", client)

    async def test_macros_expand_as_in_the_rfc(self) -> None:
        found = await self.spf.check("203.0.113.4", "a-b.c.example", "x-y.z@macros.example")
        self.assertEqual(found.mechanism, "-all", found)
        asked = [name for name, rdtype, _ in self.server.questions if rdtype == "A"]
        self.assertEqual(asked, [f"{value}.macros.m.example".lower() for value in MACROS.values()])

    async def test_a_long_name_is_shortened_by_whole_labels(self) -> None:
        await self.spf.check("203.0.113.4", "", f"{'a.' * 60}b@longest.example")
        [asked] = [name for name, rdtype, _ in self.server.questions if rdtype == "A"]
        self.assertEqual(asked, "a." * 60 + "b." + "a." * 60 + "b.l.example")

    async def test_a_long_explanation_is_truncated(self) -> None:
        found = await self.spf.check(CLIENT, "", "alice@wordy.example")
        self.assertEqual(found.explanation, ("Not ours. " * 20)[:200])

    async def test_an_invalid_macro_is_an_error(self) -> None:
        for macro in ("%{d0}", "%{d1x}", "%{a}", "%{}", "%{d", "%", "%x", "%{c}"):
            self.server.zones[f"m{len(macro)}.example"] = [txt(f"v=spf1 a:{macro}.example -all")]
            found = await self.spf.check(CLIENT, macro, f"alice@m{len(macro)}.example")
            self.assertEqual(found.result, "permerror", macro)

    async def test_clients_without_an_address_have_no_result(self) -> None:
        for client in ("unknown", "", "192.0.2", "\udcff", "list", "list6"):
            self.assertEqual((await self.spf.check(client, "plain.example", "a@plain.example")).result, "none")
        self.assertEqual(self.server.questions, [])

    async def test_zones_and_mapped_addresses_are_accepted(self) -> None:
        self.assertEqual((await self.spf.check("::ffff:192.0.2.1", "", "a@good.example")).result, "pass")
        self.assertEqual((await self.spf.check("fe80::1%eth0", "", "a@good.example")).result, "fail")

    async def test_no_input_of_a_client_causes_an_exception(self) -> None:
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
                assert found.problem != "the check was cancelled"

        await deferToThread(anything)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_identical_checks_in_flight_share_one_evaluation(self) -> None:
        server = dns_server(self, ZONES, {"good.example": 0.2})
        spf = checker(self, server)
        waiting = [spf.check(CLIENT, "", "alice@good.example") for _ in range(30)]
        self.assertEqual(spf.checks, 1)
        self.assertEqual({found.result for found in await gatherResults(waiting)}, {"pass"})
        self.assertEqual(server.asked("good.example", "TXT"), 1)


class Costs(TestCase):
    """Records crafted to take long."""

    async def test_exceeding_the_cpu_time_is_a_temperror(self) -> None:
        chain = [(f"c{n}.example", [txt(f"v=spf1 include:c{n + 1}.example -all")]) for n in range(5)]
        server, ticks = dns_server(self, dict(chain)), itertools.count()
        spf = SpfChecker(reactor, runner(self), lambda: next(ticks) / 50, resolver(self, server), 5.0, RULES)
        found = await spf.check(CLIENT, "", "alice@c0.example")
        self.assertEqual((found.result, found.problem), ("temperror", "the record takes too long to evaluate"))
        self.assertLess(len(server.questions), 5)

    def test_the_check_with_the_least_cpu_time_runs_first(self) -> None:
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
            many = [term.replace("#", str(number)) for number in range(4000) for term in terms]
            text = " ".join(["v=spf1", *many]).encode()[: RULES.record_size].rpartition(b" ")[0]
            identity = Identity("192.0.2.1", "mailfrom", "a." * 64, "b." * 120 + "example", "c." * 120 + "example")
            evaluation = Evaluation(identity, RULES, time.thread_time)
            outcome = evaluation.step((identity.domain, "TXT"), ((text,),))
            while not isinstance(outcome, SpfResult):
                outcome = evaluation.step(outcome)
            self.assertLess(evaluation.cpu_time, 0.25, terms)


class Deadlines(TestCase):
    """A timeout of ten seconds, on a clock that the test advances."""

    def setUp(self) -> None:
        self.server = dns_server(self, ZONES, {".hung.example": NEVER})
        self.time = TimeByHand()
        self.spf = checker(self, self.server, 10.0, self.time)

    async def asked(self, name: str) -> None:
        """Wait until the server has received a query for a name."""
        await wait_until(lambda: self.server.asked(name, "TXT"))

    async def test_dns_that_never_answers_gives_a_temperror_at_the_deadline(self) -> None:
        checking = self.spf.check(CLIENT, "b.hung.example", "alice@a.hung.example")
        await self.asked("b.hung.example")
        self.time.advance(5.0)
        await self.asked("a.hung.example")
        self.time.advance(4.9)
        self.assertFalse(checking.called)
        self.time.advance(0.1)
        found = await checking
        self.assertEqual((found.result, found.identity), ("temperror", "mailfrom"))

    async def test_a_helo_name_that_hangs_leaves_time_for_mail_from(self) -> None:
        checking = self.spf.check(CLIENT, "b.hung.example", "alice@good.example")
        await self.asked("b.hung.example")
        self.time.advance(5.0)
        self.assertEqual((await checking).result, "pass")

    async def test_a_temperror_is_cached_no_longer_than_the_dns_failure(self) -> None:
        self.server.moods["good.example"] = SERVFAIL
        for _ in range(2):
            self.assertEqual((await self.spf.check(CLIENT, "", "alice@good.example")).result, "temperror")
        self.assertEqual(self.server.asked("good.example", "TXT"), 1)
        self.server.moods.clear()
        self.time.advance(FAILURE_TTL)
        self.assertEqual((await self.spf.check(CLIENT, "", "alice@good.example")).result, "pass")

    async def test_a_late_answer_within_the_deadline_counts(self) -> None:
        self.server.moods["good.example"] = NEVER
        checking = self.spf.check(CLIENT, "", "alice@good.example")
        await self.asked("good.example")
        self.server.moods.clear()
        self.time.advance(9.0)
        self.assertEqual((await checking).result, "pass")

    async def test_a_fail_remains_a_fail_if_its_explanation_times_out(self) -> None:
        checking = self.spf.check(CLIENT, "", "alice@hung-exp.example")
        await self.asked("why.hung.example")
        self.time.advance(10.0)
        found = await checking
        self.assertEqual((found.result, found.explanation), ("fail", ""))

    async def test_blocked_threads_do_not_delay_the_answer(self) -> None:
        stuck: list[Deferred[Any]] = []

        def run(*_: object) -> Deferred[Any]:
            stuck.append(Deferred())
            return stuck[-1]

        dns = resolver(self, self.server, time=self.time)
        spf = SpfChecker(self.time, run, time.thread_time, dns, 10.0, RULES)
        checking = spf.check(CLIENT, "", "alice@good.example")
        await wait_until(lambda: stuck)
        self.time.advance(11.0)
        found = await checking
        self.assertEqual((found.result, found.problem), ("temperror", "the check timed out"))

    async def test_above_the_limit_of_checks_the_next_is_answered_at_once(self) -> None:
        self.patch(spf_check, "MAX_CHECKS", 2)
        hung = [self.spf.check(CLIENT, "", f"a@{n}.hung.example") for n in range(2)]
        found = self.successResultOf(self.spf.check(CLIENT, "", "alice@good.example"))
        self.assertEqual((found.result, found.problem), ("temperror", "too many SPF checks in flight"))
        self.time.advance(10.0)
        await gatherResults(hung)
        self.assertEqual((await self.spf.check(CLIENT, "", "alice@good.example")).result, "pass")

    async def test_closing_answers_all_checks_in_flight(self) -> None:
        waiting = self.spf.check(CLIENT, "", "a@a.hung.example")
        self.spf.close()
        self.assertEqual((await waiting).result, "temperror")
        self.assertEqual(self.spf.checks, 0)

    async def test_cancelling_does_not_cancel_the_check_for_others(self) -> None:
        self.server.moods["good.example"] = 0.2
        one, other = (self.spf.check(CLIENT, "", "alice@good.example") for _ in range(2))
        one.cancel()
        self.assertEqual((await other).result, "pass")
        await DeferredList([one], consumeErrors=True)


class Flood(TestCase):
    async def test_150_hanging_checks_delay_nothing_and_leave_nothing_behind(self) -> None:
        server, passing = dns_server(self, ZONES, {".hung.example": NEVER}), TimeByHand()
        dns = resolver(self, server, timeout=2.0, time=passing)
        spf = SpfChecker(passing, runner(self, 2), time.thread_time, dns, 2.0, RULES)
        await spf.check(CLIENT, "", "warm@good.example")
        files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for turn in range(3):
            hung = [spf.check(CLIENT, f"h{n}-{turn}.hung.example", f"a@m{n}-{turn}.hung.example") for n in range(150)]
            for n in range(20):
                found = await spf.check(CLIENT, f"{n}.{turn}.example", "alice@mx.example")
                self.assertEqual(found.result, "pass")
            self.assertFalse(any(each.called for each in hung))
            # Half of the time is for the HELO name.
            await self.asked(server, f"h149-{turn}.hung.example")
            passing.advance(1.0)
            await self.asked(server, f"m149-{turn}.hung.example")
            passing.advance(1.0)
            self.assertEqual({found.result for found in await gatherResults(hung)}, {"temperror"})
            self.assertEqual(spf.checks, 0)
            while dns.questions:
                passing.advance(1.0)
                await deferLater(reactor, 0.01)
        # Those of both pools, of which one each was there.
        self.assertLessEqual(threading.active_count(), threads + 1 + 3)
        await wait_until(lambda: len(os.listdir("/proc/self/fd")) <= files + 1)

    async def asked(self, server: DnsServer, name: str) -> None:
        await wait_until(lambda: server.asked(name, "TXT"))
