"""Names over HTTP where letter case counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import TestCase

from chapps_tw.config import Chapps, SenderDomainAuthPolicy, Settings
from chapps_tw.interfaces import Fill, Outcome, Rules, Spend
from tests.support.rest_client import Answer, Node

RULES = Rules(86400, 0, 0.0, 0.0)


class CaseCountsTests(TestCase):
    """``fold_case = False``: as before, but for domains."""

    def setUp(self) -> None:
        sda = replace(SenderDomainAuthPolicy(), subaddress_separators="-")
        self.node = Node(Settings(chapps=replace(Chapps(), fold_case=False), sda=sda))
        self.node.start()
        self.addCleanup(self.node.stop)

    async def expect(self, status: int, method: str, path: str, body: Any = None) -> Answer:
        answer = await self.node.ask(method, path, body)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return answer

    async def test_two_users_may_differ_in_case_alone_and_are_counted_apart(self) -> None:
        quota = (await self.expect(201, "POST", "/quotas/", {"name": "ten", "quota": 10})).response["id"]
        for number, name in enumerate(("Alice@EXAMPLE.org", "alice@example.org"), 1):
            created = await self.expect(201, "POST", "/users/", {"name": name, "quota": quota})
            stored = f"{name.partition('@')[0]}@example.org"
            self.assertEqual(created.response["name"], stored)
            spent = await self.node.state.spend(Spend(stored, "i", "", number), RULES, Fill("", 10, 1000.0))
            self.assertIs(spent.outcome, Outcome.ACCEPTED)
            left = await self.expect(200, "GET", f"/live/quota/0?name={name.replace('org', 'ORG')}")
            self.assertEqual(left.response, 10 - number)
        await self.expect(409, "POST", "/users/", {"name": "Alice@Example.ORG"})
        await self.expect(404, "GET", "/live/quota/0?name=ALICE@example.org")

    async def test_verdicts_are_told_apart_by_case(self) -> None:
        [before] = await self.node.state.verdicts("sda", "Bob", ["Sales@example.com"])
        await self.node.state.keep_verdicts("sda", "Bob", [("Sales@example.com", True, before.token)], 1000.0)
        for source, user, status in (
            *(("Sales@EXAMPLE.com", "Bob", "AUTHORIZED"), ("Sales-x@example.com", "Bob", "AUTHORIZED")),
            *(("sales@example.com", "Bob", "NOT CACHED"), ("Sales@example.com", "bob", "NOT CACHED")),
            ("Sales+x@example.com", "Bob", "NOT CACHED"),
        ):
            found = await self.expect(200, "GET", f"/live/sda/{source}/for/{user}")
            self.assertEqual(found.response, status, (source, user))
        emails = [{"name": "Sales@Example.com"}, {"name": "sales@example.com"}]
        shown = [(await self.expect(201, "POST", "/emails/", each)).response["name"] for each in emails]
        self.assertEqual(shown, ["Sales@example.com", "sales@example.com"])
