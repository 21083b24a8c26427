"""Cached results of SPF evaluations: which messages share one, and for how long."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from chapps_tw.spf.checker import RESULT_TTL
from tests.support.servers.dns import SERVFAIL, addresses, txt
from tests.support.spf_tools import TimeByHand, checker, dns_server

CLIENT, OTHER = "192.0.2.1", "198.51.100.7"

ZONES = {
    "good.example": [txt("v=spf1 ip4:192.0.2.0/24 -all")],
    "norecord.example": addresses("192.0.2.1"),
    "includes.example": [txt("v=spf1 include:users.example -all")],
    "users.example": [txt("v=spf1 exists:%{l}.ok.example -all")],
    "alice.ok.example": addresses("127.0.0.2"),
    "hosts.example": [txt("v=spf1 exists:%{h}.ok.example -all")],
    "mx1.example.ok.example": addresses("127.0.0.2"),
    "explains.example": [txt("v=spf1 -all exp=why.explains.example")],
    "why.explains.example": [txt("%{S} is not ours")],
}


class SharedResults(TestCase):
    def setUp(self) -> None:
        self.time = TimeByHand()
        self.server = dns_server(self, ZONES)
        self.spf = checker(self, self.server, time=self.time)

    async def results(self, *messages: tuple[str, str, str]) -> list[str]:
        return [(await self.spf.check(*message)).result for message in messages]

    async def test_all_senders_of_a_domain_share_an_evaluation(self) -> None:
        for domain, result in (("good.example", "pass"), ("norecord.example", "none"), ("missing.example", "none")):
            before = self.spf.misses
            messages = [(CLIENT, "mx.good.example", f"bounce+{number}@{domain}") for number in range(20)]
            self.assertEqual(await self.results(*messages), [result] * 20)
            self.assertEqual(self.spf.misses - before, 1)

    async def test_clients_do_not_share_an_evaluation(self) -> None:
        found = await self.results((CLIENT, "", "a@good.example"), (OTHER, "", "a@good.example"))
        self.assertEqual(found, ["pass", "fail"])

    async def test_results_that_depend_on_the_local_part_are_not_shared(self) -> None:
        for domain in ("users.example", "includes.example"):
            senders = [f"{local}@{domain}" for local in ("alice", "bob", "alice", "carl")]
            found = await self.results(*[(CLIENT, "", sender) for sender in senders])
            self.assertEqual(found, ["pass", "fail", "pass", "fail"])

    async def test_results_that_depend_on_the_helo_name_are_not_shared(self) -> None:
        helos = ("mx1.example", "mx2.example", "mx1.example")
        found = await self.results(*[(CLIENT, helo, f"{helo}@hosts.example") for helo in helos])
        self.assertEqual(found, ["pass", "fail", "pass"])

    async def test_an_explanation_that_names_the_sender_is_not_shared(self) -> None:
        for local in ("alice", "bob"):
            found = await self.spf.check(OTHER, "", f"{local}@explains.example")
            self.assertEqual(found.explanation, f"{local}%40explains.example is not ours")

    async def test_a_fail_of_the_helo_name_is_shared_by_all_senders(self) -> None:
        messages = [(OTHER, "good.example", f"{number}@norecord.example") for number in range(5)]
        self.assertEqual(await self.results(*messages), ["fail"] * 5)
        self.assertEqual(self.spf.misses, 1)

    async def test_a_temperror_is_not_shared(self) -> None:
        self.server.moods["good.example"] = SERVFAIL
        found = await self.results((CLIENT, "", "a@good.example"), (CLIENT, "", "b@good.example"))
        self.assertEqual((found, self.spf.misses), (["temperror"] * 2, 2))

    async def test_a_result_expires_with_the_older_of_its_parts(self) -> None:
        await self.results((CLIENT, "good.example", ""))
        self.time.advance(RESULT_TTL - 1)
        message = (CLIENT, "good.example", "a@norecord.example")
        await self.results(message, message)
        misses = self.spf.misses
        self.time.advance(2)
        await self.results(message)
        self.assertEqual(self.spf.misses, misses + 1)
