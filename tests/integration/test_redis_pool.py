from __future__ import annotations

import select
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import ConfigError, Redis
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, StateUnavailable
from chapps_tw.state.redis.connection import FIRST_BATCH, RedisUnavailable
from chapps_tw.state.redis.pool import RedisPool, pool_from
from chapps_tw.state.redis.store import RedisState
from tests.support.charges import charge, rcpt, usage_of, window_of
from tests.support.redis_case import AMPLE, DEADLINE, VALUE, Load, RedisTestCase, count, eventually, pause, reactor
from tests.support.servers.common import HANGS
from tests.support.servers.redis import Authority, RedisProcess


class OutageTests(RedisTestCase):
    """The timeout is short only while no answer is expected."""

    server_options = {"password": "s3cret-word"}  # noqa: RUF012
    redis = replace(Redis(), db=3)
    # Commands wait for a connection for half of it.
    deadline = 4 * DEADLINE

    async def _outage(self, begin: Callable[[], Any], end: Callable[[], Any]) -> None:
        """Load before, during and after an outage: every command is answered, and succeeds again afterwards."""
        pool = self.pool()
        load = Load(await self.ready(pool))
        await load.right_again()
        pool.timeout = DEADLINE
        await deferToThread(begin)
        await eventually(lambda: pool.problem)
        outcomes = await load.all_answered()
        self.assertEqual({type(each) for each in outcomes} - {StateUnavailable, RedisUnavailable}, set())
        pool.timeout = AMPLE
        await deferToThread(end)
        await load.right_again()
        await load.stop()
        self.assert_quiet()
        self.assertEqual(len(self.told()), 3, self.told())
        self.assertNotIn("s3cret", repr(self.lines) + repr(vars(pool)))

    async def test_a_server_is_used_again_after_a_crash_and_restart(self) -> None:
        await self._outage(self.server.kill, self.server.start)

    async def test_a_hanging_server_delays_no_request_beyond_the_timeout(self) -> None:
        await self._outage(self.server.hang, self.server.go_on)

    async def test_an_unavailable_server_is_retried_every_half_second(self) -> None:
        pool = self.pool()
        for slot in pool._factory.slots:
            self.assertLess(max(slot._delay(attempt) for attempt in range(1, 1000)), 1)

    async def test_commands_that_timed_out_do_not_run_when_the_server_resumes(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await count(state, "u", "before")
        self.server.hang()
        pool.timeout = DEADLINE
        for asked in [count(state, "u", f"i{number}") for number in range(16)]:
            await self.assertFailure(asked, StateUnavailable)
        pool.timeout = AMPLE
        self.server.go_on()
        await self.ready(pool)
        self.assertEqual((await usage_of(state, "u")).used, 1)

    async def test_an_answer_that_arrived_while_the_reactor_was_blocked_is_used(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await count(state, "u", "before")
        self.server.hang()
        pool.timeout = 1.0
        asked = count(state, "u", "i")
        connection = pool._ready[0]
        # What the reactor would do in its next turn. It does not get there: no other delay of a busy machine counts.
        connection._flush()
        self.server.go_on()
        time.sleep(1.2)
        select.select([connection.transport.socket], [], [], HANGS)
        self.assertEqual((await asked).outcome, Outcome.ACCEPTED)

    async def test_redis_begins_with_the_first_commands_of_a_turn_before_it_ends(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await count(state, "u", "before")
        sockets = [connection.transport.socket for connection in pool._ready]
        asked = [count(state, "u", f"i{number}") for number in range(FIRST_BATCH * len(sockets))]
        # Answers arrive although the reactor has not gone on.
        answered, _, _ = select.select(sockets, [], [], HANGS)
        self.assertTrue(answered)
        await DeferredList(asked)

    async def test_commands_fail_at_once_after_the_wait_for_a_connection(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.kill()
        await eventually(lambda: pool.problem)
        pool.timeout = DEADLINE
        await self.assertFailure(count(state, "u", "i"), StateUnavailable)
        for _ in range(100):
            self.failureResultOf(count(state, "u", "i"), StateUnavailable)
        self.assertIn(f"Redis at 127.0.0.1:{self.server.port} cannot be used: it ", pool.problem)

    async def test_a_server_that_stops_during_logins_is_used_after_its_restart(self) -> None:
        pool = self.pool()
        for _ in range(5):
            await pause(0.02)
            await deferToThread(self.server.kill)
            await deferToThread(self.server.start)
        await eventually(lambda: pool.connections == 4)
        self.assert_quiet()

    async def test_pending_commands_fail_when_the_pool_is_stopped(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.hang()
        asked = count(state, "u", "i")
        await pool.stop()
        await self.assertFailure(asked, StateUnavailable)
        await self.assertFailure(count(state, "u", "i"), StateUnavailable)


class LoginTests(RedisTestCase):
    async def test_a_wrong_password_is_reported_and_the_right_one_is_accepted_later(self) -> None:
        pool = self.pool(password="hunter2")
        # A server without a password rejects any.
        await eventually(lambda: "answers" in pool.problem)
        self.server.command("CONFIG", "SET", "requirepass", "other")
        self.server.password = "other"
        await eventually(lambda: "WRONGPASS" in pool.problem)
        self.assertNotIn("hunter2", pool.problem)
        self.server.command("CONFIG", "SET", "requirepass", "hunter2")
        self.server.password = "hunter2"
        await (await self.ready(pool)).ping()
        self.assertNotIn("hunter2", repr(self.lines))
        self.assertEqual(len(self.told()), 2)
        self.assert_quiet()

    async def test_a_missing_password_is_reported(self) -> None:
        self.server.command("CONFIG", "SET", "requirepass", "other")
        pool = self.pool()
        await eventually(lambda: "NOAUTH" in pool.problem)
        self.assertEqual(pool.connections, 0)

    async def test_a_failed_login_is_reported_with_its_option_in_one_sentence(self) -> None:
        unknown = self.pool(password="hunter2", username="nobody")
        await eventually(lambda: "WRONGPASS" in unknown.problem)
        self.assertTrue(unknown.problem.endswith("user is disabled (see [Redis] username, password)"), unknown.problem)
        far = self.pool(db=5000)
        await eventually(lambda: "DB index" in far.problem)
        self.assertTrue(far.problem.endswith("(see [Redis] db)"), far.problem)
        # The log line adds a full stop.
        self.assertFalse([line for line in self.told() if line.endswith(".")])

    async def test_an_acl_user_needs_only_its_own_keys_and_few_commands(self) -> None:
        self.server.command(
            "ACL", "SETUSER", "mail", "on", ">word", "~chapps:*",
            "-@all", "+@read", "+@write", "+evalsha", "+eval", "+time", "+select",
        )  # fmt: skip
        state = await self.ready(self.pool(password="word", username="mail", db=2))
        await self._use(state)
        self.assertTrue(all("user=mail" in line and "db=2" in line for line in self.server.clients()))

    async def test_a_replica_is_not_used(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        self.server.command("REPLICAOF", "127.0.0.1", "1")
        await self.assertFailure(count(state, "u", "i"), StateUnavailable)
        await eventually(lambda: "READONLY" in pool.problem or "MASTERDOWN" in pool.problem)
        self.server.command("REPLICAOF", "NO", "ONE")
        await self._use(await self.ready(pool))

    async def test_a_configured_unix_socket_is_used(self) -> None:
        pool = self.pool(unix_socket=self.server.path, server="")
        await self._use(await self.ready(pool))
        self.assertTrue(all(self.server.path in line for line in self.server.clients()))

    async def test_a_server_that_is_not_redis_is_reported(self) -> None:
        pool = self.pool(server="127.0.0.1", port=await self._web_server())
        await eventually(lambda: "does not speak the Redis protocol" in pool.problem)
        self.assert_quiet()

    async def _web_server(self) -> int:
        from twisted.internet.protocol import Factory, Protocol

        class Web(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        factory = Factory.forProtocol(Web)
        factory.noisy = False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    async def _use(self, state: RedisState) -> None:
        spent = await state.spend(rcpt("i", "r"), [charge("u")])
        self.assertEqual((spent.outcome, spent.used), (Outcome.ACCEPTED, (1,)))
        self.assertTrue(await state.first_time("spf", "i", 60))
        await state.keep_values([Fresh(VALUE, "1", "")], 60)
        found = await state.values([VALUE, VALUE._replace(name="e")])
        self.assertEqual([each.value for each in found], ["1", None])
        await state.ping()


class CommandTests(RedisTestCase):
    async def test_there_are_never_more_connections_than_pool_size(self) -> None:
        pool = self.pool(pool_size=4)
        state = await self.ready(pool)
        asked: list[Awaitable[Any]] = []
        for number in range(400):
            asked.append(count(state, "u", str(number)))
            asked.append(state.values([VALUE]))
            windows = [window_of(charge(name)) for name in (f"u{number}", "u")]
            asked.append(Deferred.fromCoroutine(state.usage(windows)))
            asked.append(Deferred.fromCoroutine(state.tally("192.0.2.0/24")))
        for each in asked:
            await each
        self.assertLessEqual(len(self.server.clients()), 4)
        await eventually(lambda: pool.connections == 4)
        self.assertEqual(len(self.server.clients()), 4)

    async def test_scripts_missing_on_the_server_are_sent_again(self) -> None:
        state = await self.ready(self.pool())
        for number in range(3):
            self.server.command("SCRIPT", "FLUSH")
            asked = [count(state, "u", f"{number}-{each}") for each in range(5)]
            self.assertEqual({(await each).outcome for each in asked}, {Outcome.ACCEPTED})
        self.assertEqual((await usage_of(state, "u")).used, 15)

    async def test_a_script_is_rerun_after_the_servers_clock_was_set_forward(self) -> None:
        pool = self.pool(pool_size=1)
        state = await self.ready(pool)
        connection = pool._ready[0]
        connection.clock_offset -= 3600
        spent = await count(state, "u", "i")
        self.assertEqual(spent.outcome, Outcome.ACCEPTED)
        self.assertGreater(connection.clock_offset, -1e6)
        self.assertEqual((await usage_of(state, "u")).used, 1)

    async def test_a_full_server_is_unavailable_and_stays_connected(self) -> None:
        pool = self.pool()
        state = await self.ready(pool)
        await state.keep_values([Fresh(VALUE, "1", "")], 60)
        self.server.command("CONFIG", "SET", "maxmemory", "1")
        problem = await self.assertFailure(count(state, "u", "i"), StateUnavailable)
        self.assertIn("OOM", str(problem))
        await self.assertFailure(Deferred.fromCoroutine(state.ping()), StateUnavailable)
        self.assertEqual((await state.values([VALUE]))[0].value, "1")
        self.server.command("CONFIG", "SET", "maxmemory", "0")
        await state.ping()
        self.assertEqual(pool.lost, 0)

    async def test_thirty_clients_on_two_pools_spend_exactly_the_limit(self) -> None:
        states = [await self.ready(self.pool()) for _ in range(2)]
        offered = iter(range(1800))
        outcomes: list[Outcome] = []

        async def connection(state: RedisState) -> None:
            for number in offered:
                spent = await count(state, "u", f"m{number}", limit=1000)
                outcomes.append(spent.outcome)

        await DeferredList([Deferred.fromCoroutine(connection(states[each % 2])) for each in range(30)])
        self.assertEqual((outcomes.count(Outcome.ACCEPTED), outcomes.count(Outcome.EXCEEDED)), (1000, 800))


class TLSTests(TestCase):
    deadline = AMPLE

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = Authority(self.folder)

    def pool(self, name: str, **changes: Any) -> RedisPool:
        """Return a pool for ``localhost``, whose server has a certificate for ``name``."""
        server = RedisProcess(self.folder / "redis", tls=self.authority.issue(name), password="word").start()
        self.addCleanup(server.stop)
        redis = replace(Redis(), server="localhost", port=server.port, tls=True, ca_file=str(self.authority.path))
        pool = pool_from(replace(redis, **changes), "word", reactor, self.deadline)
        pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool

    async def test_a_certificate_for_the_host_from_a_trusted_authority_is_accepted(self) -> None:
        pool = self.pool("localhost")
        await eventually(lambda: pool.connections == 4)
        await RedisState(pool, "chapps").ping()

    async def test_a_certificate_for_an_address_is_accepted(self) -> None:
        pool = self.pool("127.0.0.1", server="127.0.0.1")
        await eventually(lambda: not pool.problem)

    async def test_a_certificate_for_another_host_is_refused(self) -> None:
        pool = self.pool("elsewhere.example")
        await eventually(lambda: pool.problem.endswith("its TLS certificate is for another name"))
        self.assertEqual(pool.connections, 0)

    async def test_a_certificate_of_another_authority_is_refused(self) -> None:
        (self.folder / "other").mkdir()
        pool = self.pool("localhost", ca_file=str(Authority(self.folder / "other", "Other CA").path))
        await eventually(lambda: "TLS failed" in pool.problem)
        self.assertIn("certificate verify failed", pool.problem)

    async def test_another_ca_file_is_used_by_the_next_connection(self) -> None:
        (self.folder / "other").mkdir()
        path = Authority(self.folder / "other", "Other CA").path
        pool = self.pool("localhost", ca_file=str(path))
        await eventually(lambda: "certificate verify failed" in pool.problem)
        path.write_text("nothing\n")
        path.write_bytes(self.authority.path.read_bytes())
        await eventually(lambda: pool.connections == 4)

    async def test_a_private_authority_is_not_trusted_by_the_system(self) -> None:
        pool = self.pool("localhost", ca_file="")
        await eventually(lambda: "certificate verify failed" in pool.problem)

    def test_an_unusable_ca_file_is_named(self) -> None:
        empty = self.folder / "empty.pem"
        empty.write_text("nothing\n")
        for path in (empty, self.folder / "none.pem"):
            redis = replace(Redis(), server="localhost", tls=True, ca_file=str(path))
            with self.assertRaisesRegex(ConfigError, f"{path.name}.*must be a readable PEM file"):
                pool_from(redis, "", reactor, DEADLINE)
