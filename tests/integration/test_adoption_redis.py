"""Reading the Redis of CHAPPS 0.5, and carrying its live state over."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import fail

from chapps_tw.adoption.live import MAX_LISTED, Live, LiveReport
from chapps_tw.adoption.source import PAGE, Source
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.greylist import GreylistAttempt
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, StateUnavailable, Unit, Window
from chapps_tw.policies.greylisting import rules
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.redis_case import RedisStateTestCase

SETTINGS = Settings()
DAY = 86400.0


class AdoptionTests(RedisStateTestCase):
    clock = False

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.begin = float(int(time.time()))
        self.calls: list[bytes] = []
        self.source = Source(self.call)
        self.taker = SqliteState(":memory:", time.time, reactor)
        self.addCleanup(self.taker.stop)

    def call(self, *words: bytes) -> Any:
        self.calls.append(words[0])
        return self.pool.call(*words)

    def attempts(self, user: str, *ages: float, recipients: int = 1) -> None:
        """Have a user send, some seconds ago, as CHAPPS 0.5 stores it."""
        words = []
        for age in ages:
            at = self.begin - age
            words += [word for number in range(recipients) for word in (repr(at), f"{at!r}:{number:05d}")]
        for start in range(0, len(words), 2000):
            self.server.command("ZADD", f"oqp:{user}:attempts", *words[start : start + 2000])

    async def carry(self, settings: Settings = SETTINGS, dry: bool = False) -> LiveReport:
        live = Live(self.source, settings, None if dry else self.taker, time.time(), lambda adopt: adopt())
        return await live.carry()

    async def used(self, user: str, unit: Unit = Unit.RECIPIENTS) -> int:
        return (await self.taker.usage([Window(Account("oqp", user), unit, DAY)]))[0].used

    async def test_attempts_at_one_time_are_one_message(self) -> None:
        self.attempts("bob", 100, 50, recipients=7)
        report = await self.carry()
        self.assertEqual((report.transmissions, report.added["counts"]), (14, 2))
        self.assertEqual(await self.used("bob"), 14)

    async def test_attempts_are_messages_where_messages_are_counted(self) -> None:
        self.attempts("bob", 100, 50, recipients=7)
        settings = replace(SETTINGS, oqp=replace(SETTINGS.oqp, counting_recipients=False))
        self.assertEqual((await self.carry(settings)).transmissions, 2)
        self.assertEqual(await self.used("bob", Unit.MESSAGES), 2)

    async def test_more_attempts_than_a_page_are_read_whole(self) -> None:
        self.attempts("bob", *(number / 10 for number in range(2 * PAGE + 3)), recipients=2)
        self.assertEqual((await self.carry()).transmissions, 4 * PAGE + 6)
        self.assertEqual(await self.used("bob"), 4 * PAGE + 6)
        self.assertEqual((await self.carry()).added["counts"], 0)

    async def test_more_attempts_at_one_time_than_a_page_are_one_message(self) -> None:
        self.attempts("bob", 900)
        self.attempts("bob", 300, recipients=3 * PAGE)
        self.attempts("bob", 100)
        report = await self.carry()
        self.assertEqual((report.transmissions, report.added["counts"]), (3 * PAGE + 2, 3))

    async def test_attempts_that_no_longer_count_are_left_out(self) -> None:
        self.attempts("bob", DAY + 60, DAY - 60)
        self.assertEqual((await self.carry()).transmissions, 1)

    async def test_spellings_of_a_user_are_counted_together(self) -> None:
        for name in ("bob@example.com", "Bob@example.com", "bob@EXAMPLE.com"):
            self.attempts(name, 100)
        report = await self.carry()
        self.assertEqual((report.respelled_total, len(report.respelled)), (2, 2))
        self.assertEqual(await self.used("bob@example.com"), 3)
        chapps = replace(SETTINGS.chapps, fold_case=False)
        self.assertEqual((await self.carry(replace(SETTINGS, chapps=chapps))).respelled, ["bob@EXAMPLE.com"])

    async def test_addresses_of_a_network_are_one_client(self) -> None:
        for number in (1, 2):
            key, words = f"grl:192.0.2.{number}", [str(self.begin - 60), f"i{number}"]
            self.server.command("ZADD", key, *words)
            self.server.command("SETEX", f"{key}:S@x.example:r@y.example", "86400", str(self.begin - 100 * number))
        report = await self.carry()
        self.assertEqual((report.added["tuples"], report.added["tallies"]), (2, 2))
        self.assertEqual([name for name, _ in await self.taker.tally("192.0.2.0/24")], ["i1", "i2"])
        attempt = GreylistAttempt("192.0.2.0/24", "s@x.example", "r@y.example", "y.example", "i", True)
        met = await self.taker.check_greylist(attempt, rules(SETTINGS))
        self.assertEqual((met.outcome, met.tally), (Outcome.PASSED, 3))

    async def test_tallies_are_not_carried_over_where_there_are_none(self) -> None:
        self.server.command("ZADD", "grl:192.0.2.1", str(self.begin - 60), "i")
        settings = replace(SETTINGS, grl=replace(SETTINGS.grl, whitelist_threshold=0))
        self.assertEqual((await self.carry(settings)).added["tallies"], 0)

    async def test_many_keys_are_carried_over(self) -> None:
        script = """
            for i = 1, 3000 do
                for j = 1, 20 do
                    redis.call('ZADD', 'oqp:user' .. i .. ':attempts', ARGV[1] - j, ARGV[1] - j)
                end
                redis.call('SET', 'grl:192.0.2.1:s' .. i .. '@x.example:r@y.example', ARGV[1])
                redis.call('ZADD', 'grl:10.' .. math.floor(i / 250) .. '.' .. i % 250 .. '.1', ARGV[1], 'i')
                redis.call('SET', 'sda:user' .. i .. ':x.example', '1')
            end"""
        self.server.command("EVAL", script, "0", str(self.begin - 60))
        report = await self.carry()
        self.assertEqual(report.added, {"counts": 60_000, "tuples": 3000, "tallies": 3000})
        self.assertEqual(report.found, {"counts": 3000, "tuples": 3000, "tallies": 3000, "cached": 3000, "foreign": 0})

    async def test_what_cannot_be_read_is_listed_up_to_a_number(self) -> None:
        for number in range(MAX_LISTED + 5):
            self.server.command("SET", f"oqp:user{number}:attempts", "x")
        report = await self.carry()
        self.assertEqual((report.unreadable_total, len(report.unreadable)), (MAX_LISTED + 5, MAX_LISTED))
        self.assertEqual((report.found["counts"], report.transmissions), (0, 0))

    async def test_only_commands_that_read_are_sent(self) -> None:
        self.attempts("bob", 100)
        self.server.command("ZADD", "grl:192.0.2.1", str(self.begin), "i")
        self.server.command("SET", "grl:192.0.2.1:a@b:c@d", "x")
        await self.carry()
        self.assertEqual(set(self.calls), {b"SCAN", b"TYPE", b"MGET", b"ZRANGEBYSCORE"})

    async def test_a_dry_run_counts_the_same(self) -> None:
        self.attempts("bob", 100, 50, recipients=7)
        report = await self.carry(dry=True)
        self.assertEqual((report.transmissions, report.added["counts"]), (14, 0))

    async def test_a_server_that_fails_in_the_middle_ends_it(self) -> None:
        for number in range(60):
            self.attempts(f"user{number}", 100)
        call = self.source._call

        def failing(*words: bytes) -> Any:
            return (
                fail(StateUnavailable("away"))
                if words[:2] == (b"ZRANGEBYSCORE", b"oqp:user7:attempts")
                else call(*words)
            )

        self.source = Source(failing)
        with self.assertRaisesRegex(StateUnavailable, "away"):
            await self.carry()
        self.source = Source(call)
        await self.carry()
        self.assertEqual([await self.used(f"user{number}") for number in range(60)], [1] * 60)
