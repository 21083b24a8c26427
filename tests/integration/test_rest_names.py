"""Names over HTTP: where letter case counts, and where several users have one name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import insert
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Chapps, SenderDomainAuthPolicy, Settings
from chapps_tw.database.models import users
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit
from tests.support.cached_values import keep_verdict
from tests.support.rest_client import Answer, Node


class NamesTestCase(TestCase):
    settings = Settings()

    def setUp(self) -> None:
        self.node = Node(self.settings)
        self.node.start()
        self.addCleanup(self.node.stop)

    async def expect(self, status: int, method: str, path: str, body: Any = None) -> Answer:
        answer = await self.node.ask(method, path, body)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        return answer


class SeveralTests(NamesTestCase):
    """Users with the same normalized name, as the migration leaves them."""

    async def test_a_remark_says_that_a_user_is_not_used(self) -> None:
        with self.node.book._engine.begin() as connection:
            for id, name in ((1, "ALICE"), (2, "alice"), (3, "Bob"), (4, "carol")):
                connection.execute(insert(users), {"id": id, "name": name})
        sentence = "User ALICE is not used: a login by that name is user alice, id 2."
        for id, wanted in ((1, True), (2, False), (3, False), (4, False)):
            remarks = (await self.expect(200, "GET", f"/live/quota/{id}")).json["remarks"]
            self.assertEqual(sentence in remarks, wanted, remarks)
            self.assertEqual(any("not used" in each for each in remarks), wanted)
        await self.expect(200, "DELETE", "/users/", [2])
        self.assertNotIn(sentence, (await self.expect(200, "GET", "/live/quota/1")).json["remarks"])


class CaseCountsTests(NamesTestCase):
    """``fold_case = False``: only domains are case-insensitive."""

    settings = Settings(
        chapps=replace(Chapps(), fold_case=False),
        sda=replace(SenderDomainAuthPolicy(), subaddress_separators="-"),
    )

    async def test_users_that_differ_only_in_case_are_counted_separately(self) -> None:
        quota = (await self.expect(201, "POST", "/quotas/", {"name": "ten", "quota": 10})).response["id"]
        for number, name in enumerate(("Alice@EXAMPLE.org", "alice@example.org"), 1):
            created = await self.expect(201, "POST", "/users/", {"name": name, "quota": quota})
            stored = f"{name.partition('@')[0]}@example.org"
            self.assertEqual(created.response["name"], stored)
            charge = Charge(Account("oqp", stored), Unit.RECIPIENTS, number, 10, 86400.0)
            spent = await self.node.state.spend(Message("i", "", True), [charge])
            self.assertIs(spent.outcome, Outcome.ACCEPTED)
            left = await self.expect(200, "GET", f"/live/quota/0?name={name.replace('org', 'ORG')}")
            self.assertEqual(left.response, 10 - number)
        await self.expect(409, "POST", "/users/", {"name": "Alice@Example.ORG"})
        await self.expect(404, "GET", "/live/quota/0?name=ALICE@example.org")

    async def test_verdicts_are_distinguished_by_case(self) -> None:
        await keep_verdict(self.node.state, "Bob", "Sales@example.com", True)
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
