"""Values in the memory of a process, which a charge or a greylisted message confirms in Redis."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Assumption, Fresh, Spent, ValueKey
from chapps_tw.interfaces.value_keys import check_spf, domain_plan, plan, sender, user_plan
from chapps_tw.state.redis.store import RedisState
from chapps_tw.state.redis.values import SECONDS, Memory
from tests.support.charges import charge, usage_of, whole
from tests.support.redis_case import RedisStateTestCase

SENDER = sender("bob", "a.example")
# What a request of a user is based on.
PLAN = (SENDER, user_plan("bob"), domain_plan("a.example"), plan(7))
CHARGES = [charge(), charge("a.example", space="pool")]
ATTEMPT = GreylistAttempt("c", "s", "r", "d", "i", True)
GREYLIST_RULES = GreylistRules(60.0, 600.0, 600.0, 600.0, 3)


class AssumptionTests(RedisStateTestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        # Another process on the same Redis.
        self.other = RedisState(self.pool, self.prefix, lambda: self.now)

    async def cache(self, *keys: ValueKey, value: str = "1", ttl: float = 60, by: RedisState | None = None) -> None:
        """Cache values, and read them into the memory of the process that does it."""
        state = by or self.state
        found = await state.values(keys)
        await state.keep_values([Fresh(key, value, each.token) for key, each in zip(keys, found, strict=True)], ttl)
        await state.values(keys)

    def assumed(self, *keys: ValueKey) -> list[Assumption]:
        found = [self.state.assume(key) for key in keys]
        return [each for each in found if each is not None]

    async def spend(self, instance: str, assumptions: Sequence[Assumption]) -> Spent:
        return await self.state.spend(whole(instance), CHARGES, assumptions)

    async def test_a_charge_confirms_what_was_read(self) -> None:
        self.assertEqual(self.assumed(*PLAN), [])
        await self.cache(*PLAN, value='{"quota": 7}')
        all_four = self.assumed(*PLAN)
        self.assertEqual([(each.key, each.value) for each in all_four], [(key, '{"quota": 7}') for key in PLAN])
        for number in range(1, 5):
            spent = await self.spend(f"i{number}", all_four[:number])
            self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, (number, number)))
        self.assertEqual((await self.spend("i1", all_four)).outcome, Outcome.REPEATED)

    async def assert_outdated(self, assumptions: Sequence[Assumption]) -> None:
        spent = await self.spend("i", assumptions)
        self.assertEqual((spent.outcome, spent.decisive), (Outcome.OUTDATED, -1))
        self.assertEqual((await usage_of(self.state)).used, 0)
        self.assertEqual(self.assumed(*[each.key for each in assumptions]), [])

    async def test_nothing_is_charged_if_another_process_has_dropped_any_value(self) -> None:
        for key in PLAN:
            await self.cache(*PLAN)
            all_four = self.assumed(*PLAN)
            await self.other.drop_values([key])
            await self.assert_outdated(all_four)

    async def test_nothing_is_given_back_if_a_value_is_outdated(self) -> None:
        await self.spend("i", [])
        await self.cache(SENDER)
        assumptions = self.assumed(SENDER)
        await self.other.drop_values([SENDER])
        spent = await self.state.spend(whole("i"), [charge(amount=9)], assumptions)
        self.assertEqual((spent.outcome, (await usage_of(self.state)).used), (Outcome.OUTDATED, 1))

    async def test_nothing_is_charged_if_a_value_has_become_another(self) -> None:
        await self.cache(SENDER)
        assumptions = self.assumed(SENDER)
        await self.other.drop_values([SENDER])
        await self.cache(SENDER, value="0", by=self.other)
        await self.assert_outdated(assumptions)
        self.assertEqual([each.value for each in await self.state.values([SENDER])], ["0"])
        self.assertEqual((await self.spend("i", self.assumed(SENDER))).outcome, Outcome.ACCEPTED)

    async def test_a_value_that_is_read_again_takes_the_place_of_the_old_one(self) -> None:
        await self.cache(SENDER)
        await self.other.drop_values([SENDER])
        await self.cache(SENDER, value="2", by=self.other)
        await self.state.values([SENDER])
        [assumption] = self.assumed(SENDER)
        self.assertEqual(assumption.value, "2")
        self.assertTrue(await self.state.confirm([assumption]))

    async def test_nothing_is_charged_once_a_value_has_expired(self) -> None:
        await self.cache(SENDER, ttl=2)
        assumptions = self.assumed(SENDER)
        self.advance(3)
        await self.assert_outdated(assumptions)

    async def test_nothing_is_charged_if_a_value_was_cached_before_the_clock_was_set_back(self) -> None:
        await self.cache(SENDER, ttl=60)
        assumptions = self.assumed(SENDER)
        self.advance(-30)
        self.assertFalse(await self.state.confirm(assumptions))
        await self.assert_outdated(assumptions)

    async def test_confirm(self) -> None:
        both = (SENDER, check_spf("a.example"))
        await self.cache(*both)
        assumptions = self.assumed(*both)
        self.assertTrue(await self.state.confirm(assumptions))
        self.assertTrue(await self.state.confirm(assumptions[1:]))
        self.assertTrue(await self.state.confirm([]))
        await self.other.drop_values([SENDER])
        self.assertFalse(await self.state.confirm(assumptions))
        self.assertEqual(self.assumed(SENDER), [])

    async def test_a_greylisted_message_confirms_what_was_read(self) -> None:
        await self.cache(SENDER, check_spf("d"))
        assumptions = self.assumed(SENDER, check_spf("d"))
        met = await self.state.check_greylist(ATTEMPT, GREYLIST_RULES, assumptions=assumptions)
        self.assertEqual((met.outcome, met.wait), (Outcome.FIRST, 60.0))
        for domain in ("", "passed.example"):
            attempt = ATTEMPT._replace(spf_domain=domain)
            met = await self.state.check_greylist(attempt, GREYLIST_RULES, assumptions=assumptions)
            self.assertEqual((met.outcome, met.wait), (Outcome.EARLY, 60.0))

    async def test_nothing_is_greylisted_if_a_value_is_outdated(self) -> None:
        await self.cache(SENDER)
        assumptions = self.assumed(SENDER)
        await self.other.drop_values([SENDER])
        met = await self.state.check_greylist(ATTEMPT, GREYLIST_RULES, assumptions=assumptions)
        self.assertEqual(met.outcome, Outcome.OUTDATED)
        self.assertEqual(await self.state.last_attempt("c", "s", "r"), 0.0)
        self.assertEqual(self.assumed(SENDER), [])

    async def test_what_this_process_drops_it_assumes_no_more(self) -> None:
        await self.cache(SENDER)
        assumptions = self.assumed(SENDER)
        await self.state.drop_values([SENDER])
        await self.assert_outdated(assumptions)

    async def test_a_long_value_and_one_with_an_odd_name_are_assumed_too(self) -> None:
        for key, value in ((SENDER, "x" * 10_000), (sender("\udcff{}%", "a b\r\n\0"), "é\udce9\r\n")):
            await self.cache(key, value=value)
            assumptions = self.assumed(key)
            self.assertEqual([each.value for each in assumptions], [value])
            self.assertTrue(await self.state.confirm(assumptions))
            await self.other.drop_values([key])
            self.assertFalse(await self.state.confirm(assumptions))

    async def test_nothing_is_assumed_of_what_is_not_cached(self) -> None:
        await self.state.values([SENDER])
        self.assertEqual(self.assumed(SENDER), [])
        await self.cache(SENDER)
        self.assertEqual(self.assumed(sender("alice", "a.example"), SENDER._replace(space="spf")), [])


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.memory = Memory(self.clock.seconds)

    def test_a_value_is_forgotten_after_some_seconds(self) -> None:
        self.memory.add(SENDER, "1", b"key", b"1 1000")
        self.clock.advance(SECONDS - 0.1)
        self.assertEqual(self.memory.find(SENDER), Assumption(SENDER, "1", b"$3\r\nkey\r\n", b"$6\r\n1 1000\r\n"))
        self.clock.advance(0.1)
        self.assertIsNone(self.memory.find(SENDER))
