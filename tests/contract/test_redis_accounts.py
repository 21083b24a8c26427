"""What an account keeps in Redis: void entries, lists that others change, many reservations at once."""

from __future__ import annotations

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, ValueKey
from tests.support.charges import charge, rcpt, usage_of, whole
from tests.support.redis_case import RedisStateTestCase

LOG, MESSAGES = "chapps:oqp:{bob}:log", "chapps:oqp:{bob}:msg"


class AccountTests(RedisStateTestCase):
    async def counted(self, instance: str, window: float = 1000.0) -> int:
        spent = await self.state.spend(whole(instance), [charge(limit=10**6, window=window)])
        self.assertEqual(spent.outcome, Outcome.ACCEPTED)
        return spent.used[0]

    async def test_messages_that_are_given_back_again_and_again_need_no_room(self) -> None:
        await self.counted("first")
        for number in range(400):
            self.now += 0.01
            await self.state.spend(rcpt(f"i{number}", "a"), [charge()])
            refused = await self.state.spend(whole(f"i{number}"), [charge(amount=9)])
            self.assertEqual((refused.outcome, refused.used), (Outcome.EXCEEDED, (1,)))
        self.assertLess(self.server.command("LLEN", LOG), 120)
        self.assertEqual(self.server.command("HLEN", MESSAGES), 2)
        self.assertEqual(await self.counted("last"), 2)
        self.now += 997.0
        self.assertEqual((await usage_of(self.state)).used, 1)

    async def test_a_message_given_back_and_counted_again_in_one_instant_counts_once(self) -> None:
        for _ in range(3):
            await self.state.spend(rcpt("i", "a"), [charge()])
            await self.state.spend(whole("i"), [charge(amount=9)])
        await self.counted("i")
        for window in (500.0, 1000.0, 2000.0):
            self.assertEqual(await self.counted(f"w{window}", window), 2 + (500, 1000, 2000).index(int(window)))
        self.now += 1000.0
        self.assertEqual((await usage_of(self.state)).used, 0)

    async def test_many_reservations_that_end_together_are_given_back_at_once(self) -> None:
        for number in range(1500):
            self.now += 1 / 64
            await self.state.spend(rcpt(f"i{number}", "a", 100.0), [charge(limit=10**6)])
        self.assertEqual(await self.counted("whole"), 1501)
        self.now += 85.0
        self.assertEqual((await usage_of(self.state)).used, 1501 - 540)
        self.now += 15.0
        self.assertEqual((await usage_of(self.state)).used, 1)
        self.assertEqual(await self.counted("after"), 2)
        self.assertLess(self.server.command("LLEN", LOG), 110)

    async def test_what_another_program_counts_in_the_list_is_found(self) -> None:
        await self.counted("a")
        at = f"{self.now * 1e6:.0f}"
        self.server.command("HSET", MESSAGES, "other", f"{at} 5")
        self.server.command("RPUSH", LOG, f"{at} other")
        await self.counted("b")
        self.assertEqual(await self.counted("c"), 8)


class LongValueTests(RedisStateTestCase):
    async def test_a_long_value_is_found_by_its_digest(self) -> None:
        key, text = ValueKey("exemptions", "all"), "x" * 50_000
        await self.state.keep_values([Fresh(key, text, "")], 60)
        [found] = await self.state.values([key])
        self.assertEqual(found.value, text)
        self.assertEqual(self.state.recall(key), text)
        self.assertEqual(await self.state.drop_values([key]), [text])
        self.assertIsNone(self.state.recall(key))

    async def test_a_long_value_whose_text_was_evicted_is_missing_and_can_be_cached_again(self) -> None:
        key = ValueKey("exemptions", "all")
        await self.state.keep_values([Fresh(key, "x" * 1000, "")], 60)
        [name] = [each for each in self.keys() if len(each.rpartition(":")[2]) == 32]
        self.server.command("DEL", name)
        [found] = await self.state.values([key])
        self.assertIsNone(found.value)
        await self.state.keep_values([Fresh(key, "y" * 1000, found.token)], 60)
        self.assertEqual((await self.state.values([key]))[0].value, "y" * 1000)
