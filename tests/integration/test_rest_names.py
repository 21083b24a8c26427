"""Names over HTTP: where letter case counts, and where several users have one name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import quote

from sqlalchemy import insert
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Chapps, SenderDomainAuthPolicy, Settings
from chapps_tw.database.models import quotas, users
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


class ByNameTests(NamesTestCase):
    async def create(self, kind: str, **fields: Any) -> int:
        return int((await self.expect(201, "POST", f"/{kind}/", fields)).response["id"])

    async def by_name(self, kind: str, name: str, status: int = 200) -> Answer:
        return await self.expect(status, "GET", f"/{kind}/by-name/{quote(name, safe='')}")

    async def test_the_answer_is_the_one_by_id(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        await self.expect(201, "POST", f"/quotas/{quota}/limits/", {"name": "hour", "amount": 5, "window": "1h"})
        domain = await self.create("domains", name="example.com", greylist=True)
        email = await self.create("emails", name="a@example.org")
        user = await self.create("users", name="alice", quota=quota, domains=[domain], emails=[email])
        for kind, id, name in (
            ("users", user, "alice"),
            ("domains", domain, "example.com"),
            ("emails", email, "a@example.org"),
            ("quotas", quota, "basic"),
        ):
            for path in (f"/{kind}/by-name/{name}", f"/{kind}/by-name/{name}/"):
                by_id = (await self.expect(200, "GET", f"/{kind}/{id}")).json
                by_name = (await self.expect(200, "GET", path)).json
                for answer in (by_name, by_id):
                    del answer["timestamp"], answer["timestamp_iso"]
                self.assertEqual(by_name, by_id)

    async def test_any_spelling_is_found_except_of_quotas(self) -> None:
        await self.create("users", name="me@bücher.example")
        await self.create("domains", name="bücher.example")
        await self.create("emails", name='"a@b"@bücher.example')
        await self.create("quotas", name="Basic", quota=1)
        a_label = "xn--bcher-kva.example"
        for kind, name, stored in (
            ("users", "ME@BÜCHER.example.", f"me@{a_label}"),
            ("domains", "BÜCHER.Example.", a_label),
            ("emails", '"A@B"@Bücher.example', f"a@b@{a_label}"),
            ("emails", f"a@b@{a_label}", f"a@b@{a_label}"),
            ("quotas", "Basic", "Basic"),
        ):
            self.assertEqual((await self.by_name(kind, name)).response["name"], stored)
        await self.by_name("quotas", "basic", 404)

    async def test_odd_names_are_found(self) -> None:
        for name in ("a/b", "/", "a/", "domains", "by-name", "1", "quota", "%2f", "a b", "a+b", "ü?&=#", "..."):
            id = await self.create("users", name=name)
            self.assertEqual((await self.by_name("users", name)).response, {"id": id, "name": name})

    async def test_a_padded_name_that_is_stored_is_found(self) -> None:
        with self.node.book._engine.begin() as connection:
            connection.execute(insert(users), {"id": 5, "name": "robert "})
            connection.execute(insert(quotas), {"id": 6, "name": " old", "quota": 5})
        self.assertEqual((await self.by_name("users", "robert ")).response["id"], 5)
        self.assertEqual((await self.by_name("quotas", " old")).response["id"], 6)

    async def test_an_unknown_name_is_a_404_and_an_impossible_one_a_422(self) -> None:
        for kind, name, sentence in (
            ("users", "nobody", "There is no user named nobody."),
            ("domains", "example.net", "There is no domain named example.net."),
            ("emails", "a@example.net", "There is no email named a@example.net."),
            ("quotas", "gold", "There is no quota named gold."),
        ):
            self.assertEqual((await self.by_name(kind, name, 404)).detail, sentence)
        for kind, name in (("domains", "a b"), ("emails", "alice"), ("users", "x" * 129), ("quotas", "x" * 33)):
            [fault] = (await self.by_name(kind, name, 422)).detail
            self.assertEqual(fault["loc"], ["path", "name"])
        await self.expect(404, "GET", "/users/by-name/")
        await self.expect(405, "DELETE", "/users/by-name/alice")

    async def test_of_several_users_the_one_that_policies_use_is_shown(self) -> None:
        with self.node.book._engine.begin() as connection:
            for id, name in ((1, "ALICE"), (2, "alice")):
                connection.execute(insert(users), {"id": id, "name": name})
        self.assertEqual((await self.by_name("users", "Alice")).response["id"], 2)


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
