from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from chapps_tw.interfaces.state import Fill, GreylistAttempt, GreylistRules, Outcome, Rules, Spend
from chapps_tw.state.redis.store import RedisState
from tests.contract.state_contract import LiveStateContract
from tests.support.redis_case import InReactor, RedisStateTestCase, repeated, waited_for
from tests.support.sqlite_subject import sqlite_subject
from tests.support.state_machine import START, Subject, compare

reactor: Any = installed_reactor
RULES = Rules(interval=3600, margin_count=0, margin_ratio=0.0, min_delta=0)
GREYLIST_RULES = GreylistRules(deferral=60, retry_window=3600, pass_ttl=3600, tally_ttl=3600, threshold=2)
FILL = Fill("", 10**6, 10**6)

# Seconds by which the server's clock, which it reads in the midst of its work, may differ from ours.
CLOCK_ERROR = 0.1


class RedisContract(LiveStateContract, RedisStateTestCase):
    def advance(self, seconds: float) -> None:
        RedisStateTestCase.advance(self, seconds)


class ModelTests(RedisStateTestCase):
    def subject(self) -> Subject:
        """The server, emptied, for one example."""
        self.server.command("FLUSHALL")
        self.now = START

        def run(ask: Any) -> Any:
            return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(waited_for(ask)))

        state: Any = InReactor(RedisState(self.pool, "model", lambda: self.now))
        return Subject("redis", state, run, self.advance, lambda: None)

    async def test_it_answers_as_the_model_and_as_the_embedded_state(self) -> None:
        await deferToThread(compare, sqlite_subject, self.subject, tries=80, steps=40)


class KeyTests(RedisStateTestCase):
    async def test_each_script_touches_one_hash_tag_that_no_name_can_break(self) -> None:
        odd = ["u", "a{b}c", "}{", "%7B", "", "ü", "\udcff", "\ud800", "x" * 5000, "a b\r\n"]
        for name in odd:
            await self.state.spend(Spend(name, name, name, 0), RULES, FILL)
            await self.state.keep_verdicts("sda", name, [(name, True, "")], 60)
            await self.state.first_time("spf", name, 60)
        usages = await self.state.usage(odd, 3600)
        self.assertEqual([usage.used for usage in usages], [1] * len(odd))
        tags = [key.partition("{")[2].partition("}")[0] for key in self.keys()]
        self.assertEqual(len(set(tags)), len(odd))
        self.assertTrue(all(tags))
        self.assertTrue(all(key.startswith("chapps:") and len(key) < 1200 for key in self.keys()))
        for tag in set(tags):
            self.assertEqual(tags.count(tag), 5, tag)

    async def test_every_key_expires(self) -> None:
        await self.state.spend(Spend("u", "i", "r", 0), RULES, Fill("stale", 5, 600))
        await self.state.drop_limits(["u", "v"])
        await self.state.drop_flags(["d"])
        await self.state.keep_verdicts("sda", "u", [("d", True, "")], 60)
        await self.state.drop_verdicts("sda", "u", ["e"])
        for _ in range(2):
            await self.state.check_greylist(
                GreylistAttempt("c", "s", "r", "d", "i", True), GREYLIST_RULES._replace(deferral=0)
            )
        await self.state.first_time("spf", "i", 60)
        ttls = {key: int(self.server.command("PTTL", key)) for key in self.keys()}
        self.assertEqual(len(ttls), 10, ttls)
        self.assertGreater(min(ttls.values()), 0, ttls)
        for key in ("chapps:oqp:{u}", "chapps:oqp:{u}:log", "chapps:oqp:{u}:msg"):
            self.assertGreaterEqual(ttls[key], 3600 * 1000)

    async def test_what_is_counted_stays_as_long_as_it_counts_when_the_interval_was_shorter_before(self) -> None:
        await self.state.spend(Spend("u", "a", "", 1), RULES._replace(interval=10), FILL)
        await self.state.spend(Spend("u", "b", "", 1), RULES)
        ttls = [int(self.server.command("PTTL", key)) for key in self.keys()]
        self.assertGreaterEqual(min(ttls), 3600 * 1000)

    async def test_two_prefixes_share_nothing(self) -> None:
        other = RedisState(self.pool, "other", lambda: self.now)
        await self.state.spend(Spend("u", "i", "r", 0), RULES, FILL)
        self.assertEqual((await other.usage(["u"], 3600))[0].used, 0)

    async def test_half_of_a_window_that_redis_evicted_locks_nobody_out(self) -> None:
        for key in ("chapps:oqp:{u}:log", "chapps:oqp:{u}:msg"):
            for number in range(3):
                await self.state.spend(Spend("u", f"{key}{number}", "", 3), RULES, FILL)
            self.server.command("DEL", key)
            self.advance(3600)
            self.assertEqual((await self.state.usage(["u"], 3600))[0].used, 0)
            spent = await self.state.spend(Spend("u", "again", "", 1), RULES, Fill("", 1, 600))
            self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, 1))
            self.advance(3600)


class WindowTests(RedisStateTestCase):
    async def test_many_messages_leave_the_window_together_and_one_by_one(self) -> None:
        for number in range(250):
            await self.state.spend(Spend("u", f"a{number}", "", 2), RULES, FILL)
        self.advance(10)
        for number in range(120):
            await self.state.spend(Spend("u", f"b{number}", "", 1), RULES)
            self.now += 1
        self.assertEqual((await self.state.usage(["u"], 3600))[0].used, 620)
        self.now += 3600 - 130 - 1
        self.assertEqual((await self.state.usage(["u"], 3600))[0].used, 620)
        self.now += 1
        peeked = await self.state.peek_spend(Spend("u", "c", "", 1), RULES)
        spent = await self.state.spend(Spend("u", "c", "", 1), RULES, FILL)
        self.assertEqual((peeked.used, spent.used), (121, 121))
        self.now += 60
        self.assertEqual((await self.state.spend(Spend("u", "d", "", 1), RULES, FILL)).used, 71)
        self.assertEqual(self.server.command("LLEN", "chapps:oqp:{u}:log"), 71)
        self.assertEqual(self.server.command("HLEN", "chapps:oqp:{u}:msg"), 71)
        self.now += 3600
        await self.state.spend(Spend("u", "e", "", 1), RULES, FILL)
        self.assertEqual(self.server.command("HLEN", "chapps:oqp:{u}:msg"), 1)

    async def test_a_message_costs_as_much_work_after_fifty_thousand_as_after_ten(self) -> None:
        await self.state.spend(Spend("few", "i", "", 1), RULES, FILL)
        await self.state.spend(Spend("many", "i", "", 1), RULES, FILL)
        at = f"{self.now * 1e6:.0f}"
        self.server.command(
            "EVAL",
            "for i = 1, 50000 do redis.call('RPUSH', KEYS[1] .. ':log', ARGV[1] .. ' m' .. i)"
            " redis.call('HSET', KEYS[1] .. ':msg', 'm' .. i, ARGV[1] .. ' 1') end"
            " return redis.call('HSET', KEYS[1], 'used', 50001)",
            "1", "chapps:oqp:{many}", at,
        )  # fmt: skip
        self.assertEqual((await self.state.spend(Spend("many", "j", "", 1), RULES)).used, 50002)
        done = []
        for user in ("few", "many"):
            self.server.command("CONFIG", "RESETSTAT")
            asked = [self.state.spend(Spend(user, str(number), "r", 0), RULES) for number in range(300)]
            self.assertEqual({(await each).outcome for each in asked}, {Outcome.ACCEPTED})
            done.append(self._commands())
        self.assertEqual(done[0], done[1])
        # None of those whose work grows with what is kept.
        self.assertLessEqual(done[0].keys(), {"evalsha", "time", "hmget", "hget", "hset", "lindex", "rpush"})

    def _commands(self) -> dict[str, int]:
        """How often each command was done, those of scripts too."""
        lines = str(self.server.command("INFO", "commandstats")).splitlines()
        counts = [line.removeprefix("cmdstat_").partition(":calls=") for line in lines if ":calls=" in line]
        return {name: int(rest.partition(",")[0]) for name, _, rest in counts if not name.startswith("config")}


class RealClockTests(RedisStateTestCase):
    """Time goes on by itself: what must not be over yet is long, and what must be is short and waited for."""

    clock = False

    async def test_times_are_the_servers_own(self) -> None:
        short, fill = RULES._replace(interval=0.1), Fill("", 1, 600)
        before = time.time()
        await self.state.spend(Spend("u", "i", "", 1), RULES, FILL)
        refused = await self.state.spend(Spend("u", "j", "", 1), RULES, fill)
        self.assertEqual(refused.outcome, Outcome.EXCEEDED)
        [usage] = await self.state.usage(["u"], 3600)
        self.assertTrue(before - CLOCK_ERROR < usage.last < time.time() + CLOCK_ERROR, (before, usage))
        self.assertTrue(0 < refused.wait <= RULES.interval)
        last = [refused]

        async def accepted() -> bool:
            last[:] = [await self.state.spend(Spend("u", "j", "", 1), short, fill)]
            return last[0].outcome is Outcome.ACCEPTED

        await repeated(accepted)
        self.assertEqual(last[0].used, 1)

    async def test_a_tuple_passes_after_the_deferral(self) -> None:
        attempt, rules = GreylistAttempt("c", "s", "r", "d", "i", True), GREYLIST_RULES._replace(deferral=600)
        self.assertEqual((await self.state.check_greylist(attempt, rules)).outcome, Outcome.FIRST)
        met = await self.state.check_greylist(attempt, rules)
        self.assertEqual(met.outcome, Outcome.EARLY)
        self.assertTrue(0 < met.wait <= 600)

        async def passed() -> bool:
            return (await self.state.check_greylist(attempt, rules._replace(deferral=0.1))).outcome is Outcome.PASSED

        await repeated(passed)
        [(_, last)] = await self.state.tally("c")
        self.assertTrue(last < time.time() + CLOCK_ERROR, last)

    async def test_a_verdict_expires(self) -> None:
        for name, ttl in (("d", 600), ("e", 0.1)):
            await self.state.keep_verdicts("sda", "u", [(name, False, "")], ttl)

        async def expired() -> bool:
            return (await self.state.verdicts("sda", "u", ["e"]))[0].allowed is None

        await repeated(expired)
        self.assertEqual((await self.state.verdicts("sda", "u", ["d"]))[0].allowed, False)
