"""Users near a limit over a real socket."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import OutboundQuotaPolicy, Settings
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.rest.routers import near
from tests.support.rest_client import Node, Outage

DAY = 86400.0


class NearTestCase(TestCase):
    def use(self, state: Any = None, **options: Any) -> None:
        """Start a node.

        :param options: of the quota policy.
        """
        self.node = Node(replace(Settings(), oqp=replace(OutboundQuotaPolicy(), **options)), state)
        self.node.start()
        self.addCleanup(self.node.stop)
        self.sent = 0

    async def create(self, kind: str, **fields: Any) -> int:
        answer = await self.node.ask("POST", f"/{kind}/", fields)
        self.assertEqual(answer.status, 201, answer.body)
        return int(answer.response["id"])

    async def near(self, query: str, status: int = 200) -> Any:
        answer = await self.node.ask("GET", f"/users/?near={query}")
        self.assertEqual(answer.status, status, answer.body)
        return answer.json

    async def names(self, query: str) -> list[str]:
        return [row["name"] for row in (await self.near(query))["response"]]

    async def send(self, account: Account, used: int, amount: int, ago: float = 0.0, window: float = DAY) -> None:
        """Count a message, and note an event near its limit, as the policies do."""
        self.sent += 1
        charge = Charge(account, Unit.RECIPIENTS, used, amount, DAY)
        spent = await self.node.state.spend(Message(f"i{self.sent}", "", True), [charge])
        self.assertIs(spent.outcome, Outcome.ACCEPTED)
        noted: Deferred[None] = Deferred()

        def start(claim: Any) -> None:
            Deferred.fromCoroutine(claim).chainDeferred(noted)

        events = Events(self.node.state, lambda: time.time() - ago, time.monotonic, start, lambda _: None)
        events.note(EventKind.NEAR_LIMIT, charge._replace(window=window), "basic", "user", used, amount)
        await noted

    async def fill(self) -> None:
        """Create users who have used 90, 80, 100 and 50 percent of 10."""
        quota = await self.create("quotas", name="basic", quota=10)
        self.domain = await self.create("domains", name="example.com", greylist=True)
        for name, used in (("ann", 9), ("bob", 8), ("carol", 10), ("dave", 5)):
            await self.create("users", name=name, quota=quota, domains=[self.domain] if name == "ann" else [])
            await self.send(Account("oqp", name), used, 10)


class NearTests(NearTestCase):
    def setUp(self) -> None:
        self.use()

    async def test_users_are_listed_with_what_is_used_their_limits_and_their_domains(self) -> None:
        await self.fill()
        found = await self.near("80")
        self.assertEqual([row["name"] for row in found["response"]], ["carol", "ann", "bob"])
        ann = found["response"][1]
        domain = {"id": self.domain, "name": "example.com", "greylist": True, "check_spf": False}
        self.assertEqual((ann["id"], ann["domains"]), (1, [domain]))
        [limit] = ann["limits"]
        wanted = {"level": "user", "quota": "basic", "unit": "recipients", "amount": 10, "used": 9, "left": 1}
        self.assertEqual({name: limit[name] for name in wanted}, wanted)
        looked = "Looked at: 4 logins that a message has brought to 80 % of a limit (warn_at)."
        self.assertEqual(found["remarks"], [looked])

    async def test_the_percentage_is_of_what_is_used_now(self) -> None:
        await self.fill()
        self.assertEqual(await self.names("91"), ["carol"])
        self.assertEqual((await self.node.ask("DELETE", "/live/limits/carol")).status, 200)
        self.assertEqual(await self.names("90"), ["ann"])
        below = await self.near("50")
        self.assertEqual([row["name"] for row in below["response"]], ["ann", "bob", "dave"])
        self.assertIn("Others who have used 50 % are not listed.", below["remarks"])

    async def test_the_list_is_paged_searched_and_nests_more(self) -> None:
        await self.fill()
        self.assertEqual(await self.names("80&limit=2"), ["carol", "ann"])
        self.assertEqual(await self.names("80&skip=2"), ["bob"])
        self.assertEqual(await self.names("80&q=AN"), ["ann"])
        [bob] = (await self.near("80&q=bob&with=quota,emails"))["response"]
        self.assertEqual(bob["quota"], {"id": 1, "name": "basic", "quota": 10})
        self.assertEqual((bob["emails"], bob["domains"]), ([], []))

    async def test_an_override_counts(self) -> None:
        await self.fill()
        for body in ({"user": "ann", "kind": "extra", "value": 10}, {"user": "bob", "kind": "unlimited"}):
            self.assertEqual((await self.node.ask("POST", "/overrides/", {**body, "until": "1d"})).status, 201)
        self.assertEqual(await self.names("80"), ["carol"])

    async def test_all_kinds_of_limits_count(self) -> None:
        quota = await self.create("quotas", name="basic", quota=1000)
        hour = {"name": "hour", "amount": 10, "window": "1h"}
        self.assertEqual((await self.node.ask("POST", f"/quotas/{quota}/limits/", hour)).status, 201)
        await self.create("domains", name="example.com", each_quota=quota, pool_quota=quota)
        await self.create("users", name="ann@example.com")
        await self.send(Account("oqp", "ann@example.com"), 9, 1000)
        await self.send(Account("pool", "example.com"), 990, 1000)
        found = await self.near("80")
        [ann] = found["response"]
        limits = [(each["level"], each["name"], each["used"]) for each in ann["limits"]]
        self.assertEqual(limits, [("domain", "hour", 9), ("domain pool", "", 990), ("domain pool", "hour", 990)])
        pools = "Pools of these domains were near a limit, too: example.com. See /live/pools/DOMAIN."
        self.assertIn(pools, found["remarks"])

    async def test_events_that_are_over_are_not_looked_at(self) -> None:
        await self.fill()
        quota = await self.create("quotas", name="big", quota=10)
        for name, ago in (("eve", 2.1), ("frank", 1.9)):
            await self.create("users", name=name, quota=quota)
            await self.send(Account("oqp", name), 10, 10, ago * DAY)
        self.assertEqual(await self.names("95"), ["carol", "frank"])

    async def test_accounts_of_other_limits_are_not_taken_for_users(self) -> None:
        await self.fill()
        await self.send(Account("limit.recipients", "flood:192.0.2.1"), 10, 10)
        found = await self.near("80")
        self.assertEqual((len(found["response"]), len(found["remarks"])), (3, 1))

    async def test_it_says_so_if_there_may_be_more(self) -> None:
        await self.fill()
        self.patch(near, "MAX_EVENTS", 2)
        found = await self.near("80")
        self.assertEqual([row["name"] for row in found["response"]], ["carol"])
        self.assertRegex(found["remarks"][1], r"^Only the last 2 events were looked at, since 20.*Z\.$")

    async def test_a_percentage_outside_1_to_100_is_a_422(self) -> None:
        for text in ("0", "101", "-1", "x", ""):
            [fault] = (await self.near(text, 422))["detail"]
            self.assertEqual(fault["loc"], ["query", "near"])
        self.assertEqual((await self.node.ask("GET", "/domains/?near=80")).status, 422)

    async def test_users_are_measured_in_batches_with_few_operations_on_the_state(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        for number in range(2 * near.BATCH):
            await self.create("users", name=f"user{number}", quota=quota)
            await self.send(Account("oqp", f"user{number}"), 8, 10)
        asked: list[str] = []
        for name in ("values", "usage", "confirm", "events"):
            method = getattr(self.node.state, name)

            def ask(*arguments: Any, name: str = name, method: Any = method) -> Any:
                asked.append(name)
                return method(*arguments)

            self.patch(self.node.state, name, ask)
        # Read from the book, then from the state, then from memory.
        first, _ = await self.names("80"), await self.names("80")
        asked.clear()
        self.assertEqual(await self.names("80"), first)
        self.assertEqual(len(first), 2 * near.BATCH)
        self.assertEqual(sorted(asked), ["confirm", "confirm", "events", "usage", "usage"])

        async def outdated(_: Any) -> bool:
            return False

        self.patch(self.node.state, "confirm", outdated)
        asked.clear()
        self.assertEqual(await self.names("80"), first)
        self.assertIn("values", asked)

    async def test_a_change_of_a_quota_counts_at_once(self) -> None:
        await self.fill()
        self.assertEqual(await self.names("95"), ["carol"])
        answer = await self.node.ask("PUT", "/quotas/", {"id": 1, "quota": 9})
        self.assertEqual(answer.status, 200)
        self.assertEqual(await self.names("95"), ["carol", "ann"])


class OtherSettingsTests(NearTestCase):
    async def test_logins_that_the_database_does_not_contain_are_counted(self) -> None:
        self.use(default_quota="basic")
        await self.fill()
        await self.send(Account("oqp", "nobody"), 9, 10)
        found = await self.near("80")
        self.assertEqual(len(found["response"]), 3)
        remark = "1 more are not in the database, or their names are too long: see /live/events/."
        self.assertIn(remark, found["remarks"])

    async def test_it_says_so_if_nobody_is_noticed(self) -> None:
        self.use(warn_at=0)
        found = await self.near("80")
        self.assertEqual(found["response"], [])
        self.assertEqual(found["remarks"], ["Nobody is noticed near a limit: [OutboundQuotaPolicy] warn_at is 0."])

    async def test_an_unavailable_state_is_a_503(self) -> None:
        state = Outage()
        self.use(state)
        state.away = True
        await self.near("80", 503)
