"""The live state in Redis."""

from __future__ import annotations

import time
from hashlib import blake2b
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, Unit, ValueKey
from chapps_tw.state.redis.store import RedisState
from tests.contract.state_contract import LiveStateContract
from tests.support.caching_steps import Caching
from tests.support.charges import charge, count_many, rcpt, spend_one, usage_of, whole
from tests.support.redis_case import InReactor, RedisStateTestCase, repeated, waited_for
from tests.support.spenders import Spenders
from tests.support.spending_steps import Spending
from tests.support.sqlite_subject import sqlite_subject
from tests.support.state_machine import START, Subject, compare

reactor: Any = installed_reactor
HOUR = 3600.0
GREYLIST_RULES = GreylistRules(deferral=60, retry_window=3600, pass_ttl=3600, tally_ttl=3600, threshold=2)

# Seconds by which the server's clock, which it reads in the midst of its work, may differ from ours.
CLOCK_ERROR = 0.1


class RedisContract(LiveStateContract, RedisStateTestCase):
    def advance(self, seconds: float) -> None:
        RedisStateTestCase.advance(self, seconds)

    def another(self) -> RedisState:
        return RedisState(self.pool, self.prefix, lambda: self.now)

    async def restart(self) -> None:
        self.state = self.another()


class ModelTests(RedisStateTestCase):
    def subject(self) -> Subject:
        """The server, emptied, for one example."""
        self.server.command("FLUSHALL")
        self.now = START

        def run(ask: Any) -> Any:
            return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(waited_for(ask)))

        state: Any = InReactor(RedisState(self.pool, "model", lambda: self.now))
        return Subject("redis", state, run, self.advance, lambda: None)

    async def test_it_counts_as_the_model_and_as_the_embedded_state(self) -> None:
        await deferToThread(compare, Spending, sqlite_subject, self.subject, tries=30, steps=40)

    async def test_it_caches_and_greylists_as_the_model_and_as_the_embedded_state(self) -> None:
        await deferToThread(compare, Caching, sqlite_subject, self.subject, tries=25, steps=40)


class KeyTests(RedisStateTestCase):
    async def test_no_name_can_break_the_hash_tag_of_its_keys(self) -> None:
        odd = ["u", "a{b}c", "}{", "%7B", "", "ü", "\udcff", "\ud800", "x" * 5000, "a b\r\n"]
        for name in odd:
            await self.state.spend(rcpt(name, name), [charge(name)])
            await self.state.keep_values([Fresh(ValueKey("sda", name, name), "1", "")], 60)
            await self.state.first_time("spf", name, 60)
        self.assertEqual([(await usage_of(self.state, name)).used for name in odd], [1] * len(odd))
        tags = [key.partition("{")[2].partition("}")[0] for key in self.keys()]
        self.assertEqual(len(set(tags)), len(odd))
        self.assertTrue(all(tags))
        self.assertTrue(all(key.startswith("chapps:") and len(key) < 1200 for key in self.keys()))
        self.assertEqual(len({tags.count(tag) for tag in tags}), 1, tags)

    async def test_every_key_expires(self) -> None:
        charges = [
            charge("u", window=HOUR),
            charge("u", window=60.0),
            charge("v", window=HOUR, unit=Unit.DISTINCT_RECIPIENTS, space="distinct"),
        ]
        await self.state.spend(rcpt("i", "r", 600.0), charges)
        await self.state.spend(rcpt("j", "r"), charges)
        await self.state.drop_flags(["d"])
        await self.state.keep_values([Fresh(ValueKey("sda", "u", "d"), "1", "")], 60)
        await self.state.drop_values([ValueKey("sda", "u", "e")])
        for _ in range(2):
            await self.state.check_greylist(
                GreylistAttempt("c", "s", "r", "d", "i", True), GREYLIST_RULES._replace(deferral=0)
            )
        await self.state.first_time("spf", "i", 60)
        ttls = {key: int(self.server.command("PTTL", key)) for key in self.keys()}
        self.assertGreaterEqual(len(ttls), 10, ttls)
        self.assertGreater(min(ttls.values()), 0, ttls)
        counts = {key: ttl for key, ttl in ttls.items() if key.startswith(("chapps:oqp:", "chapps:distinct:"))}
        self.assertGreaterEqual(len(counts), 4)
        self.assertGreaterEqual(min(counts.values()), HOUR * 1000, counts)

    async def test_what_is_counted_stays_as_long_as_it_counts_when_the_window_was_shorter_before(self) -> None:
        await spend_one(self.state, "u", "a", window=10.0)
        await spend_one(self.state, "u", "b", window=HOUR)
        ttls = [int(self.server.command("PTTL", key)) for key in self.keys()]
        self.assertGreaterEqual(min(ttls), HOUR * 1000)

    async def test_what_is_announced_about_names_is_known_to_all_until_it_ends(self) -> None:
        other = RedisState(self.pool, "chapps", lambda: self.now)
        self.assertEqual(await self.state.announce("one", "1 \udce9", 10.0), ["1 \udce9"])
        self.assertEqual(await other.announce("on", "2", 20.0), ["1 \udce9", "2"])
        self.assertEqual(await self.state.announce("one", "1 again", 10.0), ["1 again", "2"])
        self.advance(11)
        self.assertEqual(await self.state.announce("three", "3", 30.0), ["2", "3"])
        self.assertEqual(await self.state.announce("three", "3", 0.0), ["2"])
        self.assertGreater(int(self.server.command("PTTL", "chapps:nodes")), 0)

    async def test_what_was_announced_while_the_clock_was_ahead_is_forgotten(self) -> None:
        self.advance(1e6)
        await self.state.announce("one", "1", 10.0)
        self.advance(-1e6)
        self.assertEqual(await self.state.announce("two", "2", 10.0), ["2"])

    async def test_two_prefixes_share_nothing(self) -> None:
        other = RedisState(self.pool, "other", lambda: self.now)
        await spend_one(self.state, "u", "i")
        await self.state.note_event("e", 60, "event")
        self.assertEqual((await usage_of(other, "u")).used, 0)
        self.assertEqual(await other.events(10), [])
        await self.state.announce("one", "1", 10.0)
        self.assertEqual(await other.announce("two", "2", 10.0), ["2"])
        self.assertTrue(await other.note_event("e", 60, "event"))

    async def test_a_part_of_an_account_that_redis_evicted_locks_nobody_out(self) -> None:
        await spend_one(self.state, "u", "i", window=HOUR)
        keys = self.keys()
        self.assertGreaterEqual(len(keys), 2)
        self.advance(HOUR)
        for key in keys:
            for number in range(3):
                await spend_one(self.state, "u", f"{key}{number}", 3, window=HOUR)
            self.server.command("DEL", key)
            self.advance(HOUR)
            self.assertEqual((await usage_of(self.state, "u", HOUR)).used, 0)
            spent = await spend_one(self.state, "u", "again", limit=1, window=HOUR)
            self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, (1,)))
            self.advance(HOUR)

    async def test_what_an_earlier_version_counted_goes_on_counting(self) -> None:
        self.write_as_the_earlier_version()
        state, now = self.state, self.now
        self.assertEqual(await usage_of(state), (5, now - 100, now - 500))
        for message, outcome, used in (
            (rcpt("two", "a@example.net"), Outcome.REPEATED, 5),
            (rcpt("two", "c@example.net"), Outcome.ACCEPTED, 6),
            (whole("two"), Outcome.REPEATED, 6),
            (whole("new"), Outcome.ACCEPTED, 7),
        ):
            spent = await state.spend(message, [charge(amount=int(message.instance == "new"), limit=9)])
            self.assertEqual((spent.outcome, spent.used), (outcome, (used,)))
        refused = await state.spend(whole("more"), [charge(amount=3, limit=9), charge(amount=3, limit=9, window=450.0)])
        self.assertEqual(refused, (Outcome.EXCEEDED, 0, (7, 2), 500.0))
        self.advance(500)
        self.assertEqual((await usage_of(state)).used, 2)
        self.assertEqual((await state.spend(whole("more"), [charge(amount=3, limit=9)])).used, (5,))

    def write_as_the_earlier_version(self) -> None:
        """Write the keys of a user who sent 2 + 2 recipients 500 s ago, and 1 100 s ago; limit 9 in 1,000 s."""
        begin, last, end = (f"{(self.now + seconds) * 1e6:.0f}" for seconds in (-500, -100, 900))
        key = "chapps:oqp:{bob}"
        limit = ("value", "9", "kept", begin, "expires", end, "token", "abc.1")
        self.server.command("HSET", key, *limit, "used", "5", "last", last, "stays", end)
        for instance, at in (("one", begin), ("two", begin), ("three", last)):
            self.server.command("RPUSH", f"{key}:log", f"{at} {instance}")
        recipients = " ".join(blake2b(each, digest_size=8).hexdigest() for each in (b"a@example.net", b"b@example.net"))
        self.server.command("HSET", f"{key}:msg", "one", f"{begin} 2", "two", f"{begin} 2 {recipients}")
        self.server.command("HSET", f"{key}:msg", "three", f"{last} 1")

    async def test_what_an_earlier_version_cached_is_still_known(self) -> None:
        for name, value in (("example.org", "1 60000"), ("other.example", "0 60000"), ("dropped.example", "-abc.1")):
            self.server.command("SET", f"chapps:sda:{{bob}}:{name}", value, "PX", "60000")
        keys = [ValueKey("sda", "bob", name) for name in ("example.org", "other.example", "dropped.example")]
        self.assertEqual([each.value for each in await self.state.values(keys)], ["1", "0", None])
        self.assertEqual(self.state.recall(keys[0]), "1")
        self.assertTrue(await self.state.confirm(self.state.version()))
        self.assertEqual(await self.state.drop_values(keys), ["1", "0", None])


class WindowTests(RedisStateTestCase):
    async def test_many_messages_leave_the_window_together_and_one_by_one(self) -> None:
        async def count(instance: str, amount: int = 1) -> int:
            return (await spend_one(self.state, "u", instance, amount, window=HOUR)).used[0]

        for number in range(250):
            await count(f"a{number}", 2)
        self.advance(10)
        for number in range(120):
            await count(f"b{number}")
            self.now += 1
        self.assertEqual((await usage_of(self.state, "u", HOUR)).used, 620)
        self.now += HOUR - 130 - 1
        self.assertEqual((await usage_of(self.state, "u", HOUR)).used, 620)
        self.now += 1
        peeked = await self.state.peek(whole("c"), [charge("u", limit=10**6, window=HOUR)])
        self.assertEqual((peeked.used, await count("c")), ((121,), 121))
        self.now += 60
        self.assertEqual(await count("d"), 71)
        self.now += HOUR
        self.assertEqual(await count("e"), 1)
        # What counts no longer is gone: there is as much as of a user who has sent one message.
        await spend_one(self.state, "v", "e", window=HOUR)
        for command, key in (("LLEN", "log"), ("HLEN", "msg")):
            sizes = [self.server.command(command, f"chapps:oqp:{{{user}}}:{key}") for user in ("u", "v")]
            self.assertEqual(sizes[0], sizes[1], key)

    async def test_a_message_costs_as_much_work_after_fifty_thousand_as_after_ten(self) -> None:
        windows = (60.0, HOUR, 86400.0)
        for user, count in (("few", 10), ("many", 50_000)):
            await count_many(self.state, user, count, (HOUR, 86400.0))
        self.advance(900)
        done = []
        for user in ("few", "many"):
            charges = [charge(user, limit=10**6, window=window) for window in windows]
            spent = await self.state.spend(whole("first"), charges)
            self.assertEqual(spent.used, (1, *[{"few": 11, "many": 50_001}[user]] * 2))
            self.server.command("CONFIG", "RESETSTAT")
            asked = [self.state.spend(rcpt(str(number), "r"), charges) for number in range(300)]
            self.assertEqual({(await each).outcome for each in asked}, {Outcome.ACCEPTED})
            done.append(self._commands())
        self.assertEqual(done[0], done[1])
        # None of those whose work grows with what is kept.
        known = {
            "evalsha",
            "time",
            "mget",
            "get",
            "hmget",
            "hget",
            "hset",
            "lindex",
            "llen",
            "rpush",
            "pttl",
            "pexpire",
        }
        self.assertLessEqual(done[0].keys(), known)

    def _commands(self) -> dict[str, int]:
        """How often each command was done, those of scripts too."""
        lines = str(self.server.command("INFO", "commandstats")).splitlines()
        counts = [line.removeprefix("cmdstat_").partition(":calls=") for line in lines if ":calls=" in line]
        return {name: int(rest.partition(",")[0]) for name, _, rest in counts if not name.startswith("config")}


class ProcessTests(RedisStateTestCase, Spenders):
    clock = False

    async def test_processes_on_one_server_let_exactly_the_limit_through(self) -> None:
        await self.assert_exactly_the_limit(f"redis:{self.server.path}", self.state, 2000)


class RealClockTests(RedisStateTestCase):
    """Time goes on by itself: what must not be over yet is long, and what must be is short and waited for."""

    clock = False

    async def test_times_are_the_servers_own(self) -> None:
        before = time.time()
        await spend_one(self.state, "u", "i", window=HOUR)
        refused = await spend_one(self.state, "u", "j", limit=1, window=HOUR)
        self.assertEqual(refused.outcome, Outcome.EXCEEDED)
        usage = await usage_of(self.state, "u", HOUR)
        self.assertTrue(before - CLOCK_ERROR < usage.last < time.time() + CLOCK_ERROR, (before, usage))
        self.assertTrue(0 < refused.wait <= HOUR)
        last = [refused]

        async def accepted() -> bool:
            last[:] = [await spend_one(self.state, "u", "j", limit=1, window=0.1)]
            return last[0].outcome is Outcome.ACCEPTED

        await repeated(accepted)
        self.assertEqual(last[0].used, (1,))

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

    async def test_a_value_expires(self) -> None:
        long, short = ValueKey("sda", "u", "d"), ValueKey("sda", "u", "e")
        for key, ttl in ((long, 600), (short, 0.1)):
            await self.state.keep_values([Fresh(key, "0", "")], ttl)

        async def expired() -> bool:
            return (await self.state.values([short]))[0].value is None

        await repeated(expired)
        self.assertEqual((await self.state.values([long]))[0].value, "0")
