"""Values in the memory of a process, whose version a charge or a greylisted message confirms in Redis."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import CacheVersion, Fresh, Spent, ValueKey
from chapps_tw.interfaces.value_keys import check_spf, domain_plan, plan, sender, user_plan
from chapps_tw.state.memory import RENEWAL, SECONDS, ValueMemory
from chapps_tw.state.redis.store import RedisState
from tests.support.charges import charge, usage_of, whole
from tests.support.redis_case import RedisStateTestCase

SENDER = sender("bob", "a.example")
# What a request of a user is based on.
PLAN = (SENDER, user_plan("bob"), domain_plan("a.example"), plan(7))
CHARGES = [charge(), charge("a.example", space="pool")]
ATTEMPT = GreylistAttempt("c", "s", "r", "d", "i", True)
GREYLIST_RULES = GreylistRules(60.0, 600.0, 600.0, 600.0, 3)


class VersionTests(RedisStateTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        # Another process on the same Redis.
        self.other = RedisState(self.pool, self.prefix, lambda: self.now)

    async def cache(
        self, *keys: ValueKey, value: str = "1", ttl: float = 60, by: RedisState | None = None
    ) -> CacheVersion:
        """Cache values, and read them into the memory of the process that does it; return their version."""
        state = by or self.state
        found = await state.values(keys)
        await state.keep_values([Fresh(key, value, each.token) for key, each in zip(keys, found, strict=True)], ttl)
        await state.values(keys)
        return state.version()

    def recalled(self, *keys: ValueKey) -> list[str | None]:
        return [self.state.recall(key) for key in keys]

    async def spend(self, instance: str, version: CacheVersion | None) -> Spent:
        return await self.state.spend(whole(instance), CHARGES, version)

    async def test_a_charge_confirms_what_was_read(self) -> None:
        self.assertEqual(self.recalled(*PLAN), [None] * len(PLAN))
        version = await self.cache(*PLAN, value='{"quota": 7}')
        self.assertEqual(self.recalled(*PLAN), ['{"quota": 7}'] * len(PLAN))
        spent = await self.spend("i1", version)
        self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, (1, 1)))
        self.assertEqual((await self.spend("i1", version)).outcome, Outcome.REPEATED)

    async def assert_outdated(self, version: CacheVersion) -> None:
        spent = await self.spend("i", version)
        self.assertEqual((spent.outcome, spent.decisive), (Outcome.OUTDATED, -1))
        self.assertEqual((await usage_of(self.state)).used, 0)
        self.assertEqual(self.recalled(*PLAN), [None] * len(PLAN))
        self.assertIsNot(self.state.version(), version)

    async def test_nothing_is_charged_if_another_process_has_dropped_any_value(self) -> None:
        for key in (*PLAN, user_plan("somebody else")):
            version = await self.cache(*PLAN)
            await self.other.drop_values([key])
            await self.assert_outdated(version)

    async def test_nothing_is_given_back_if_a_value_is_outdated(self) -> None:
        await self.spend("i", None)
        version = await self.cache(SENDER)
        await self.other.drop_values([SENDER])
        spent = await self.state.spend(whole("i"), [charge(amount=9)], version)
        self.assertEqual((spent.outcome, (await usage_of(self.state)).used), (Outcome.OUTDATED, 1))

    async def test_nothing_is_charged_if_a_value_has_become_another(self) -> None:
        version = await self.cache(SENDER)
        await self.other.drop_values([SENDER])
        await self.cache(SENDER, value="0", by=self.other)
        await self.assert_outdated(version)
        self.assertEqual([each.value for each in await self.state.values([SENDER])], ["0"])
        self.assertEqual((await self.spend("i", self.state.version())).outcome, Outcome.ACCEPTED)

    async def test_a_value_that_is_read_again_takes_the_place_of_the_old_one_and_of_all_others(self) -> None:
        await self.cache(*PLAN)
        await self.other.drop_values([SENDER])
        await self.cache(SENDER, value="2", by=self.other)
        await self.state.values([SENDER])
        self.assertEqual(self.recalled(*PLAN), ["2", None, None, None])
        self.assertTrue(await self.state.confirm(self.state.version()))

    async def test_a_new_value_leaves_the_others_as_they_are(self) -> None:
        version = await self.cache(SENDER)
        await self.cache(check_spf("a.example"), by=self.other)
        self.assertTrue(await self.state.confirm(version))
        self.assertEqual(self.recalled(SENDER), ["1"])

    async def test_nothing_is_charged_after_the_server_has_lost_all(self) -> None:
        version = await self.cache(SENDER)
        self.server.command("FLUSHALL")
        await self.assert_outdated(version)
        self.assertEqual([each.value for each in await self.state.values([SENDER])], [None])
        self.assertTrue(await self.state.confirm(self.state.version()))

    async def test_confirm(self) -> None:
        version = await self.cache(SENDER, check_spf("a.example"))
        self.assertTrue(await self.state.confirm(version))
        await self.other.drop_values([SENDER])
        self.assertFalse(await self.state.confirm(version))
        self.assertEqual(self.recalled(SENDER), [None])

    async def test_a_greylisted_message_confirms_what_was_read(self) -> None:
        version = await self.cache(SENDER, check_spf("d"))
        met = await self.state.check_greylist(ATTEMPT, GREYLIST_RULES, version=version)
        self.assertEqual((met.outcome, met.wait), (Outcome.FIRST, 60.0))
        for domain in ("", "passed.example"):
            attempt = ATTEMPT._replace(spf_domain=domain)
            met = await self.state.check_greylist(attempt, GREYLIST_RULES, version=version)
            self.assertEqual((met.outcome, met.wait), (Outcome.EARLY, 60.0))

    async def test_nothing_is_greylisted_if_a_value_is_outdated(self) -> None:
        version = await self.cache(SENDER)
        await self.other.drop_values([SENDER])
        met = await self.state.check_greylist(ATTEMPT, GREYLIST_RULES, version=version)
        self.assertEqual(met.outcome, Outcome.OUTDATED)
        self.assertEqual(await self.state.last_attempt("c", "s", "r"), 0.0)
        self.assertEqual(self.recalled(SENDER), [None])

    async def test_what_this_process_drops_it_recalls_no_more(self) -> None:
        version = await self.cache(SENDER)
        await self.state.drop_values([SENDER])
        self.assertEqual(self.recalled(SENDER), [None])
        await self.assert_outdated(version)

    async def test_a_long_value_and_one_with_an_odd_name_are_recalled_too(self) -> None:
        for key, value in ((SENDER, "x" * 10_000), (sender("\udcff{}%", "a b\r\n\0"), "é\udce9\r\n")):
            version = await self.cache(key, value=value)
            self.assertEqual(self.recalled(key), [value])
            self.assertTrue(await self.state.confirm(version))

    async def test_nothing_is_recalled_that_is_not_cached(self) -> None:
        await self.state.values([SENDER])
        self.assertEqual(self.recalled(SENDER), [None])
        await self.cache(SENDER)
        self.assertEqual(self.recalled(sender("alice", "a.example"), SENDER._replace(space="spf")), [None, None])


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = ValueMemory(self.clock.seconds)
        self.memory.set_stamp(b"first")

    def test_a_value_is_forgotten_after_some_seconds(self) -> None:
        self.memory.remember(SENDER, "1")
        self.clock.advance(SECONDS - 0.1)
        self.assertEqual(self.memory.recall(SENDER), "1")
        self.clock.advance(0.1)
        self.assertIsNone(self.memory.recall(SENDER))

    def test_the_version_is_renewed_every_few_seconds_and_stands_for_the_same(self) -> None:
        self.memory.set_stamp(b"a")
        version = self.memory.version()
        self.assertIs(self.memory.version(), version)
        self.clock.advance(RENEWAL)
        renewed = self.memory.version()
        self.assertIsNot(renewed, version)
        self.assertEqual(renewed.stamp, version.stamp)

    def test_nothing_is_known_after_the_clock_was_set_back(self) -> None:
        self.clock.advance(1000)
        version = self.memory.version()
        self.memory.remember(SENDER, "1")
        self.clock.rightNow -= 1
        self.assertIsNot(self.memory.version(), version)
        self.assertIsNone(self.memory.recall(SENDER))

    def test_with_another_stamp_nothing_is_known(self) -> None:
        self.memory.set_stamp(b"a")
        self.memory.remember(SENDER, "1")
        version = self.memory.version()
        self.memory.set_stamp(b"a")
        self.assertIs(self.memory.version(), version)
        self.memory.set_stamp(b"b")
        self.assertEqual((self.memory.recall(SENDER), self.memory.version().stamp), (None, b"b"))
