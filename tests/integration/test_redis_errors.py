"""Error replies of Redis, and reconnecting."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

import chapps_tw.state.redis
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, StateUnavailable
from chapps_tw.state.redis.pool import RedisPool
from chapps_tw.state.redis.store import RedisState
from tests.support.charges import usage_of
from tests.support.redis_case import DEADLINE, VALUE, Load, RedisTestCase, count, eventually, pause

LUA = Path(chapps_tw.state.redis.__path__[0]) / "lua"


def commands(*names: str) -> set[str]:
    """The commands that scripts use."""
    return set(re.findall(r"redis\.call\('([A-Z]+)'", "".join((LUA / f"{name}.lua").read_text() for name in names)))


def test_the_probe_uses_every_command_of_the_scripts() -> None:
    everything = commands(*(path.stem for path in LUA.glob("*.lua")))
    assert len(everything) > 20
    assert commands("probe", "clock") == everything


class ErrorTests(RedisTestCase):
    async def _spend(self, state: RedisState, name: str = "i") -> Outcome:
        return (await count(state, "u", name)).outcome

    async def _refused(self, state: RedisState, pool: RedisPool, code: str) -> None:
        """Check that each command fails with the error, which is logged once and shown."""
        for number in range(3):
            problem = await self.assertFailure(
                Deferred.fromCoroutine(self._spend(state, str(number))), StateUnavailable
            )
            self.assertIn(code, str(problem))
        self.assertIn(code, pool.problem)
        self.assertEqual([line for line in self.told() if code in line], [f"{pool.problem}."[:-1]])

    async def _through(self, code: str, begin: Sequence[str], end: Sequence[str]) -> RedisPool:
        """Test from a command that makes the server fail to one that ends the failure."""
        pool = self.pool()
        state = await self.ready(pool)
        await self._spend(state)
        await deferToThread(self.server.command, *begin)
        await self._refused(state, pool, code)
        await self.assertFailure(Deferred.fromCoroutine(state.ping()), StateUnavailable)
        # It is not logged again while it continues.
        await pause(1.5)
        await self._refused(state, pool, code)
        await deferToThread(self.server.command, *end)
        self.assertEqual(await self._spend(state, "after"), Outcome.ACCEPTED)
        await eventually(lambda: not pool.problem)
        self.assertEqual(self.told()[-1], "{name} answers without errors again.")
        self.assertEqual(pool.lost, 0)
        self.assert_quiet()
        return pool

    async def test_a_full_server_is_reported_as_unavailable(self) -> None:
        await self._through("OOM", ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0"))

    async def test_a_server_that_cannot_save_is_reported_as_unavailable(self) -> None:
        # A file in place of its directory.
        self.server.command("CONFIG", "SET", "save", "3600 1")
        self.server.command("SET", "x", "y")
        (self.folder / "redis" / "dump.rdb").mkdir()

        def fail_to_save() -> None:
            self.server.command("BGSAVE")
            while "rdb_last_bgsave_status:err" not in self.server.command("INFO", "persistence"):
                time.sleep(0.02)

        pool = self.pool()
        state = await self.ready(pool)
        await deferToThread(fail_to_save)
        await self._refused(state, pool, "MISCONF")
        self.server.command("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
        self.assertEqual(await self._spend(state), Outcome.ACCEPTED)
        await eventually(lambda: not pool.problem)

    async def test_a_user_who_loses_the_permission_for_scripts_is_reported(self) -> None:
        await self._through(
            "NOPERM", ("ACL", "SETUSER", "default", "-evalsha"), ("ACL", "SETUSER", "default", "+evalsha")
        )

    async def test_a_user_without_a_permission_of_a_script_is_reported_with_the_option(self) -> None:
        pool = await self._through(
            "user executing the script", ("ACL", "SETUSER", "default", "-hset"), ("ACL", "SETUSER", "default", "+hset")
        )
        self.assertTrue(any("(see [Redis] username)" in line for line in self.told()), self.told())
        self.assertFalse(any("user_script" in line for line in self.told()), self.told())
        self.assertEqual(pool.connections, 4)

    async def test_the_login_fails_without_a_permission_of_a_script(self) -> None:
        self.server.command(
            "ACL", "SETUSER", "mail", "on", ">word", "~chapps:*",
            "-@all", "+@read", "+@write", "+evalsha", "+eval", "+time", "-zadd",
        )  # fmt: skip
        pool = self.pool(password="word", username="mail")
        await eventually(lambda: "user executing the script" in pool.problem)
        await pause(1)
        self.assertEqual((pool.connections, len(self.told())), (0, 1))

    async def test_reads_succeed_while_the_server_is_full(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await state.keep_values([Fresh(VALUE, "1", "")], 60)
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        await self._refused(state, pool, "OOM")
        self.assertEqual((await state.values([VALUE]))[0].value, "1")

    async def test_a_key_of_another_type_is_reported_and_affects_only_its_user(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.command("SET", "chapps:oqp:{u}:msg", "spoilt")
        await self._refused(state, pool, "WRONGTYPE")
        other = await count(state, "other", "i")
        self.assertEqual((other.outcome, pool.lost), (Outcome.ACCEPTED, 0))
        await eventually(lambda: not pool.problem)


class ClusterTests(RedisTestCase):
    server_options: dict[str, Any] = {"cluster_enabled": "yes"}  # noqa: RUF012

    async def test_a_cluster_that_is_down_is_reported_as_unavailable(self) -> None:
        pool = self.pool()
        await eventually(lambda: "CLUSTERDOWN" in pool.problem)
        self.server.command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
        state = await self.ready(pool)
        self.assertTrue(await state.first_time("once", "i", 60.0))
        self.server.command("CLUSTER", "DELSLOTSRANGE", "0", "16383")
        problem = await self.assertFailure(
            Deferred.fromCoroutine(state.first_time("once", "j", 60.0)), StateUnavailable
        )
        self.assertIn("CLUSTERDOWN", str(problem))
        self.assertIn("CLUSTERDOWN", pool.problem)


class ReconnectTests(RedisTestCase):
    deadline = 4 * DEADLINE

    def _kill_connections(self) -> None:
        self.server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def _made_again(self, pool: RedisPool, lost: int) -> bool:
        return pool.lost > lost and pool.connections == 4

    async def test_no_command_fails_during_a_reconnect(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        load = Load(state)
        await load.all_answered()
        for _ in range(3):
            lost = pool.lost
            await deferToThread(self._kill_connections)
            await eventually(partial(self._made_again, pool, lost))
        await load.all_answered()
        await load.stop()
        self.assertEqual({outcome for _, _, outcome in load.outcomes}, {Outcome.ACCEPTED})
        self.assertEqual((await usage_of(state, "u", 3600)).used, load.accepted)
        self.assert_quiet()

    async def test_no_command_fails_during_a_restart_of_the_server(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await count(state, "u", "before")
        self.server.kill()
        await eventually(lambda: pool.problem)
        asked = [count(state, "u", str(number)) for number in range(20)]
        self.assertFalse(any(each.called for each in asked))
        await deferToThread(self.server.start)
        self.assertEqual([(await each).outcome for each in asked], [Outcome.ACCEPTED] * 20)

    async def test_a_command_cancelled_during_a_reconnect_is_not_sent(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.kill()
        await eventually(lambda: pool.problem)
        asked = count(state, "u", "given up")
        asked.cancel()
        asked.addErrback(lambda _: None)
        await deferToThread(self.server.start)
        await eventually(lambda: not pool.problem)
        self.assertEqual((await usage_of(state, "u")).used, 0)

    async def test_commands_wait_again_when_a_server_that_was_down_accepts_connections(self) -> None:
        pool = self.pool(pool_size=1)
        state = await self.ready(pool)
        self.server.kill()
        await self.assertFailure(count(state, "u", "first"), StateUnavailable)
        await eventually(lambda: "refuses" in pool.problem)
        # It accepts connections, and does not answer.
        with socket.create_server(("127.0.0.1", self.server.port)):
            await eventually(lambda: pool._open)
            asked = count(state, "u", "second")
            self.assertFalse(asked.called)
            await self.assertFailure(asked, StateUnavailable)
            # Now it is known that it hangs.
            await eventually(lambda: "does not answer" in pool.problem)
            lost = set(pool._open)
            await eventually(lambda: pool._open and not pool._open & lost)
            self.failureResultOf(count(state, "u", "third"), StateUnavailable)

    async def test_in_a_long_outage_only_the_first_commands_wait(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.kill()
        await eventually(lambda: pool.problem)
        begin = time.monotonic()
        await self.assertFailure(count(state, "u", "first"), StateUnavailable)
        self.assertLess(time.monotonic() - begin, self.deadline)
        later = count(state, "u", "later")
        self.assertTrue(later.called)
        await self.assertFailure(later, StateUnavailable)
