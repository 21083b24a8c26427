"""Verdicts in the memory of a process, which a charge confirms in Redis."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.state import Assumption, Fill, Outcome, Spend, Spent
from chapps_tw.state.redis.store import RedisState
from chapps_tw.state.redis.verdicts import SECONDS, Memory
from tests.support.redis_case import RULES, RedisStateTestCase

DOMAIN = "a.example"


class AssumptionTests(RedisStateTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        # Another process on the same Redis.
        self.other = RedisState(self.pool, self.prefix, lambda: self.now)

    async def allow(self, *names: str, allowed: bool = True, ttl: float = 60) -> None:
        """Cache verdicts, and read them into the memory."""
        verdicts = await self.state.verdicts("sda", "user", names)
        entries = [(name, allowed, each.token) for name, each in zip(names, verdicts, strict=True)]
        await self.state.keep_verdicts("sda", "user", entries, ttl)
        await self.state.verdicts("sda", "user", names)

    def assumed(self, *names: str) -> list[Assumption]:
        found = [self.state.assume_allowed("sda", "user", name) for name in names]
        return [each for each in found if each is not None]

    async def spend(self, instance: str, *assumptions: Assumption, fill: Fill | None = None) -> Spent:
        return await self.state.spend(Spend("user", instance, "", 1), RULES, fill, assumptions)

    async def used(self) -> int:
        return (await self.state.usage(["user"], 3600.0))[0].used

    async def test_a_charge_confirms_what_was_read(self) -> None:
        self.assertEqual(self.assumed(DOMAIN), [])
        await self.allow(DOMAIN, "b.example", "c.example")
        three = self.assumed(DOMAIN, "b.example", "c.example")
        self.assertEqual(len(three), 3)
        await self.spend("i", fill=Fill("", 9, 60))
        for number, assumptions in enumerate((three[:1], three[:2], three)):
            spent = await self.spend(f"i{number}", *assumptions)
            self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, number + 2))

    async def assert_outdated(self, assumptions: Sequence[Assumption]) -> None:
        spent = await self.spend("i", *assumptions)
        self.assertEqual((spent.outcome, await self.used()), (Outcome.OUTDATED, 0))
        self.assertEqual(self.assumed(*[each.name for each in assumptions]), [])

    async def test_nothing_is_charged_if_another_process_has_dropped_a_verdict(self) -> None:
        await self.allow(DOMAIN, "b.example")
        both = self.assumed(DOMAIN, "b.example")
        await self.other.drop_verdicts("sda", "user", ["b.example"])
        await self.assert_outdated(both)

    async def test_nothing_is_charged_if_a_verdict_has_become_another(self) -> None:
        await self.allow(DOMAIN)
        [assumption] = self.assumed(DOMAIN)
        await self.other.drop_verdicts("sda", "user", [DOMAIN])
        [verdict] = await self.other.verdicts("sda", "user", [DOMAIN])
        await self.other.keep_verdicts("sda", "user", [(DOMAIN, False, verdict.token)], 60)
        await self.assert_outdated([assumption])

    async def test_nothing_is_charged_once_a_verdict_has_expired(self) -> None:
        await self.allow(DOMAIN, ttl=2)
        [assumption] = self.assumed(DOMAIN)
        self.advance(3)
        await self.assert_outdated([assumption])

    async def test_nothing_is_charged_if_a_verdict_was_cached_before_the_clock_was_set_back(self) -> None:
        await self.allow(DOMAIN, ttl=60)
        [assumption] = self.assumed(DOMAIN)
        # As after the clock of the server was set back.
        self.server.command("PEXPIRE", self.keys()[0], "90000")
        self.assertFalse(await self.state.confirm([assumption]))
        await self.assert_outdated([assumption])

    async def test_a_limit_may_be_missing_as_well(self) -> None:
        await self.allow(DOMAIN)
        [assumption] = self.assumed(DOMAIN)
        spent = await self.spend("i", assumption)
        self.assertEqual(spent.outcome, Outcome.MISSING)
        spent = await self.spend("i", assumption, fill=Fill(spent.token, 7, 60))
        self.assertEqual((spent.outcome, spent.limit), (Outcome.ACCEPTED, 7))

    async def test_confirm(self) -> None:
        await self.allow(DOMAIN, "b.example")
        both = self.assumed(DOMAIN, "b.example")
        self.assertTrue(await self.state.confirm(both))
        self.assertTrue(await self.state.confirm(both[1:]))
        await self.other.drop_verdicts("sda", "user", [DOMAIN])
        self.assertFalse(await self.state.confirm(both))
        self.assertEqual(self.assumed(DOMAIN, "b.example"), [])

    async def test_only_verdicts_that_allow_a_name_are_assumed(self) -> None:
        await self.allow(DOMAIN, allowed=False)
        self.assertEqual(self.assumed(DOMAIN), [])
        self.assertIsNone(self.state.assume_allowed("spf", "user", DOMAIN))
        self.assertIsNone(self.state.assume_allowed("sda", "other", DOMAIN))


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = Memory(self.clock.seconds)

    def test_a_verdict_is_forgotten_after_some_seconds(self) -> None:
        self.memory.add("sda", "user", DOMAIN, b"key", b"1 1000")
        self.clock.advance(SECONDS - 0.1)
        found = self.memory.find("sda", "user", DOMAIN)
        self.assertEqual(found, Assumption("sda", "user", DOMAIN, b"$3\r\nkey\r\n", b"$6\r\n1 1000\r\n"))
        self.clock.advance(0.1)
        self.assertIsNone(self.memory.find("sda", "user", DOMAIN))
