from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.config import Redis
from chapps_tw.state.redis import RedisState
from chapps_tw.state.redis_pool import RedisPool, pool_from
from tests.servers.common import free_port
from tests.servers.redis import SentinelGroup
from tests.test_redis_pool import DEADLINE, Load, eventually, pause

reactor: Any = installed_reactor


class SentinelTests(TestCase):
    timeout = 120

    async def group(self, password: str) -> SentinelGroup:
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        group = SentinelGroup(folder, password)
        self.addCleanup(group.stop)
        await deferToThread(group.start)
        return group

    def pool(self, group: SentinelGroup, servers: str = "", dataset: str = "") -> RedisPool:
        redis = replace(Redis(), sentinel_servers=servers or group.servers, sentinel_dataset=dataset or group.name)
        pool = pool_from(redis, group.password, reactor, time.monotonic, DEADLINE)
        pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool

    async def test_the_new_master_is_used_after_a_failover_and_the_old_one_is_not_when_it_comes_back(self) -> None:
        group = await self.group("s3cret-word")
        pool = self.pool(group, f"127.0.0.1:{free_port()} {group.servers}")
        await eventually(lambda: pool.connections == 4, 5)
        load = Load(RedisState(pool, "chapps"))
        await pause(0.3)
        await deferToThread(group.master.kill)
        await eventually(lambda: group.replica.command("ROLE")[0] == "master", 20)
        self.assertLess(await eventually(lambda: load.right_since(time.monotonic() - 0.5), 3), 3)
        await deferToThread(group.master.start)
        await pause(1)
        await load.stop()
        self.assertLess(load.slowest, DEADLINE + 0.3)
        self.assertEqual(load.outcomes[-1][2], 1)
        peers = {connection.transport.getPeer().port for connection in pool._ready}
        self.assertEqual(peers, {group.replica.port})
        self.assertEqual(group.replica.command("ROLE")[0], "master")

    async def test_a_name_that_no_sentinel_knows_is_reported(self) -> None:
        group = await self.group("")
        pool = self.pool(group, dataset="other")
        await eventually(lambda: "no Sentinel names a healthy master 'other'" in pool.problem, 5)
        known = self.pool(group)
        await eventually(lambda: not known.problem, 5)
        await RedisState(known, "chapps").ping()
