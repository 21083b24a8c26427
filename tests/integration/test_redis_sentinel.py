from __future__ import annotations

import shutil
import signal
import tempfile
import unittest
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Redis
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.state.redis.pool import RedisPool, pool_from
from chapps_tw.state.redis.store import RedisState
from tests.support.policy_client import outbound
from tests.support.redis_case import AMPLE, Load, answers, eventually, repeated
from tests.support.servers.common import free_port
from tests.support.servers.redis import Authority, RedisProcess, SentinelGroup
from tests.support.servers.service import PATIENT, Service

reactor: Any = installed_reactor

# Seconds. A Sentinel that was suspended for two enters TILT mode for thirty.
FAILOVER = 80.0


class SentinelTests(TestCase):
    async def group(
        self, password: str = "", sentinel_password: str = "", tls: bool = False, failover: bool = False
    ) -> SentinelGroup:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        group = SentinelGroup(folder, password, sentinel_password, Authority(folder) if tls else None)
        self.addCleanup(group.stop)
        await deferToThread(group.start, failover)
        return group

    def pool(self, group: SentinelGroup, sentinel_password: str | None = None, **changes: Any) -> RedisPool:
        """Return a started pool, by default with the password of the Sentinels."""
        redis = replace(Redis(), sentinel_servers=group.servers, sentinel_dataset=group.name)
        if group.authority:
            redis = replace(redis, tls=True, ca_file=str(group.authority.path))
        if sentinel_password is None:
            sentinel_password = group.sentinel_password
        pool = pool_from(
            replace(redis, **changes), group.password, reactor, AMPLE,
            sentinel_password=sentinel_password,
        )  # fmt: skip
        pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool

    async def test_after_a_failover_the_new_master_is_used_even_if_the_old_one_returns(self) -> None:
        group = await self.group("s3cret-word", "An0ther-word", failover=True)
        pool = self.pool(group, sentinel_servers=f"127.0.0.1:{free_port()} {group.servers}")
        await eventually(lambda: pool.connections == 4)
        load = Load(RedisState(pool, "chapps"))
        await load.right_again()
        await deferToThread(group.master.kill)
        await load.all_answered()
        await eventually(lambda: group.replica.role() == "master", FAILOVER)
        await load.right_again()
        await deferToThread(group.master.start)
        # All connections are re-established.
        lost = pool.lost
        group.replica.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: pool.lost > lost and pool.connections == 4)
        await load.right_again()
        await load.stop()
        peers = {connection.transport.getPeer().port for connection in pool._ready}
        self.assertEqual(peers, {group.replica.port})
        self.assertEqual(group.replica.role(), "master")

    async def test_a_manual_failover_is_followed_while_the_old_master_still_answers(self) -> None:
        group = await self.group(failover=True)
        pool = self.pool(group)
        await eventually(lambda: pool.connections == 4)
        load = Load(RedisState(pool, "chapps"))
        await load.right_again()
        self.assertEqual(await deferToThread(group.command, group.ports[1], "SENTINEL", "FAILOVER", group.name), "OK")
        new = {group.replica.port}
        await eventually(lambda: {each.transport.getPeer().port for each in pool._ready} == new, FAILOVER)
        switched = load.asked
        before = int(group.replica.command("HLEN", "chapps:oqp:{u}:msg"))
        # The Sentinels demote the old master, and agree on the new one.
        await eventually(lambda: self.is_replica(group.master), FAILOVER)
        await eventually(lambda: set(self.told(group)) == new, FAILOVER)
        enough = load.asked + 200
        await eventually(lambda: load.asked > enough)
        await load.stop()
        counted = int(group.replica.command("HLEN", "chapps:oqp:{u}:msg")) - before
        since = [outcome for _, number, outcome in load.outcomes if number > switched]
        self.assertEqual(set(since), {Outcome.ACCEPTED})
        # Commands in flight at that time are counted, but not among these.
        self.assertIn(counted - len(since), range(33))

    def is_replica(self, server: RedisProcess) -> bool:
        try:
            return bool(server.role() == "slave")
        except OSError:  # it closes all connections when it becomes one
            return False

    def told(self, group: SentinelGroup) -> list[int]:
        """Return the port of the master according to each Sentinel."""
        answers = (group.command(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", group.name) for port in group.ports)
        return [int(port) for _, port in answers]

    async def test_an_unknown_master_name_is_reported(self) -> None:
        group = await self.group()
        pool = self.pool(group, sentinel_dataset="other")
        told = f"127.0.0.1:{group.ports[2]}: it knows no master of this name"
        await eventually(lambda: "no Sentinel names a healthy master 'other'" in pool.problem and told in pool.problem)
        known = self.pool(group)
        await eventually(lambda: not known.problem)
        await RedisState(known, "chapps").ping()

    async def test_a_refused_sentinel_password_is_reported_but_not_shown(self) -> None:
        group = await self.group("word", "right")
        wrong, none = self.pool(group, "hunter2"), self.pool(group, "")
        refused = [f"127.0.0.1:{port}: it refuses [Redis] sentinel_password (WRONGPASS" for port in group.ports]
        await eventually(lambda: all(each in wrong.problem for each in refused))
        await eventually(lambda: "it requires a password, see [Redis] sentinel_password" in none.problem)
        self.assertNotIn("hunter2", wrong.problem + repr(vars(wrong)) + repr(vars(wrong.server)))

    async def test_sentinels_without_a_password_refuse_one(self) -> None:
        group = await self.group()
        pool = self.pool(group, "hunter2")
        await eventually(lambda: "it refuses [Redis] sentinel_password (" in pool.problem)
        self.assertNotIn("hunter2", pool.problem)

    async def test_an_acl_user_needs_only_the_command_for_the_masters(self) -> None:
        group = await self.group("word", "right")
        for port in group.ports:
            rules = ("on", ">word", "-@all", "+auth", "+sentinel|masters")
            self.assertEqual(await deferToThread(group.command, port, "ACL", "SETUSER", "mail", *rules), "OK")
        pool = self.pool(group, "word", sentinel_username="mail")
        await eventually(lambda: not pool.problem)
        await RedisState(pool, "chapps").ping()

    async def test_tls_is_used_for_sentinels_and_servers(self) -> None:
        group = await self.group("word", "right", tls=True, failover=True)
        pool = self.pool(group)
        await eventually(lambda: pool.connections == 4)
        await RedisState(pool, "chapps").ping()
        await deferToThread(group.master.kill)
        await eventually(lambda: group.replica.role() == "master", FAILOVER)
        # A replica closes all connections when it becomes the master.
        await repeated(partial(answers, RedisState(pool, "chapps")))

    async def test_certificates_of_the_sentinels_are_verified(self) -> None:
        group = await self.group(tls=True)
        pool = self.pool(group, ca_file="")
        await eventually(lambda: "TLS failed (certificate verify failed)" in pool.problem)
        elsewhere = self.pool(group, sentinel_servers=f"localhost:{group.ports[0]}")
        await eventually(lambda: "its TLS certificate is for another name" in elsewhere.problem)

    async def test_a_hanging_sentinel_is_reported(self) -> None:
        group = await self.group()
        for sentinel in group.sentinels:
            sentinel.signal(signal.SIGSTOP)
        pool = self.pool(group)
        await eventually(lambda: f"127.0.0.1:{group.ports[0]}: it does not answer" in pool.problem)


class ServiceTests(unittest.TestCase):
    def test_the_service_logs_in_with_the_passwords_of_its_files(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="sentinel-")))
        group = SentinelGroup(folder, "s3cret-word", "An0ther-word")
        self.addCleanup(group.stop)
        group.start(failover=False)
        files = {"password_file": group.password, "sentinel_password_file": group.sentinel_password}
        for name, word in files.items():
            (folder / name).write_text(f"{word}\n")
        where = {"sentinel_servers": group.servers, "sentinel_dataset": group.name}
        service = Service({**PATIENT, "Redis": {**where, **{name: folder / name for name in files}}})
        self.addCleanup(service.remove)
        service.start().wait_ready()
        service.add_user("ann", 10, ["example.com"])
        with service.client() as client:
            self.assertEqual(client.ask(outbound()), "DUNNO")
        self.assertEqual(service.remaining("ann"), 9)
        self.assertNotRegex(service.log() + service.decisions(), "s3cret|An0ther")
