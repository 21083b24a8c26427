"""Base classes for tests of the Redis store: a server, a pool, a state, and load."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Redis
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import CacheVersion, LiveState, Spent, StateUnavailable, ValueKey
from chapps_tw.state.redis.pool import RedisPool, pool_from
from chapps_tw.state.redis.store import RedisState
from tests.support.charges import charge, spend_one, whole
from tests.support.replies import deferred
from tests.support.servers.common import HANGS
from tests.support.servers.redis import RedisProcess

reactor: Any = installed_reactor


# Timeouts of commands in seconds: short, and generous for tests that do not test it.
DEADLINE, AMPLE = 0.6, 10.0


VALUE = ValueKey("sda", "u", "d")


@cache
def shared_redis() -> RedisProcess:
    """Return the server for all tests of this process that need no special options and do not stop it."""
    server = RedisProcess(Path(tempfile.mkdtemp(prefix="redis-"))).start()
    atexit.register(server.stop)
    return server


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def eventually(true: Callable[[], object], seconds: float = HANGS) -> None:
    """Wait until a condition is true."""
    begin = time.monotonic()
    while not true():
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"not so after {seconds} s")
        await pause(0.01)


async def repeated(ask: Callable[[], Awaitable[object]], seconds: float = HANGS) -> None:
    """Repeat a call until its result is true."""
    begin = time.monotonic()
    while not await ask():
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"not so after {seconds} s")
        await pause(0.01)


async def answers(state: RedisState) -> bool:
    """Return whether the store answers."""
    try:
        await state.ping()
    except StateUnavailable:
        return False
    return True


def count(state: RedisState, user: str, instance: str, limit: int = 10**6) -> Deferred[Spent]:
    """Count a message of a user in a single charge."""
    return deferred(state.spend(whole(instance), [charge(user, 1, limit)]))


class RedisTestCase(TestCase):
    """A test with a server and a pool; subclasses choose their options."""

    server_options: dict[str, Any] = {}  # noqa: RUF012
    redis = Redis()
    deadline = AMPLE

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.lines: list[dict[str, Any]] = []
        observer: Any = self.lines.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.server = RedisProcess(self.folder / "redis", **self.server_options).start()
        self.addCleanup(self.server.stop)

    def pool(self, password: str = "", **changes: Any) -> RedisPool:
        """Return a started pool on the port of the server."""
        where: dict[str, Any] = {"server": "127.0.0.1", "port": self.server.port}
        redis = replace(self.redis, **(where | changes))
        pool = pool_from(redis, password or self.server.password, reactor, self.deadline)
        pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(pool.stop()))
        return pool

    async def ready(self, pool: RedisPool) -> RedisState:
        await eventually(lambda: not pool.problem)
        return RedisState(pool, "chapps")

    def told(self) -> list[str]:
        """Return what the pools logged."""
        return [
            str(line.get("problem") or line["log_format"])
            for line in self.lines
            if line.get("log_namespace", "").startswith("chapps_tw.state")
        ]

    def assert_quiet(self) -> None:
        """Check that nothing unexpected was logged, such as tracebacks or a line for each attempt."""
        noise = [line for line in self.lines if "log_failure" in line or "retry" in str(line.get("log_format"))]
        self.assertEqual(noise, [])


class Load:
    """Concurrent clients that spend repeatedly; records each outcome."""

    def __init__(self, state: RedisState, askers: int = 16) -> None:
        # Who asked, after how many others it was begun, and what came of it.
        self.outcomes: list[tuple[int, int, Any]] = []
        self.asked = 0
        self._state = state
        self._on = True
        self._askers = [Deferred.fromCoroutine(self._ask(number)) for number in range(askers)]

    async def _ask(self, asker: int) -> None:
        while self._on:
            self.asked += 1
            number = self.asked
            try:
                spent = await spend_one(self._state, "u", f"load-{number}", window=3600)
                outcome: Any = spent.outcome
            except StateUnavailable as problem:
                outcome = problem
            self.outcomes.append((asker, number, outcome))
            await pause(0.005)

    async def stop(self) -> None:
        self._on = False
        for asker in self._askers:
            await asker

    @property
    def accepted(self) -> int:
        return sum(outcome is Outcome.ACCEPTED for _, _, outcome in self.outcomes)

    async def all_answered(self) -> set[Any]:
        """Wait until each client has an answer to a request sent from now on; return these answers."""
        begin = self.asked

        def later() -> list[tuple[int, int, Any]]:
            return [each for each in self.outcomes if each[1] > begin]

        await eventually(lambda: len({asker for asker, _, _ in later()}) == len(self._askers))
        return {outcome for _, _, outcome in later()}

    async def right_again(self) -> None:
        """Wait until a request sent from now on is accepted."""
        begin = self.asked
        await eventually(
            lambda: any(number > begin and outcome is Outcome.ACCEPTED for _, number, outcome in self.outcomes)
        )


def age(server: RedisProcess, seconds: float) -> None:
    """Advance time for keys that only have a TTL."""
    script = """
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('TYPE', key).ok == 'string' then
                redis.call('PEXPIRE', key, redis.call('PTTL', key) - ARGV[1])
            end
        end"""
    server.command("EVAL", script, "0", str(round(seconds * 1000)))


class InReactor:
    """A proxy of a state whose methods return functions to be called in the reactor thread.

    :meth:`version` and :meth:`recall` do not.
    """

    def __init__(self, state: RedisState) -> None:
        self._state = state

    def version(self) -> CacheVersion:
        return self._state.version()

    def recall(self, key: ValueKey) -> str | None:
        return self._state.recall(key)

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: partial(getattr(self._state, name), *arguments)


async def waited_for(ask: Callable[[], Awaitable[Any]]) -> Any:
    return await ask()


class RedisStateTestCase(TestCase):
    """A test with the shared server, emptied. With ``clock``, time advances only by :meth:`advance`."""

    clock = True
    prefix = "chapps"
    state: LiveState

    async def setUp(self) -> None:  # type: ignore[override]
        self.server = shared_redis()
        self.server.command("FLUSHALL")
        self.now = float(int(time.time()))
        self.pool = pool_from(replace(Redis(), unix_socket=self.server.path), "", reactor, AMPLE)
        self.pool.start()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.pool.stop()))
        await eventually(lambda: not self.pool.problem)
        self.state = RedisState(self.pool, self.prefix, (lambda: self.now) if self.clock else None)

    def advance(self, seconds: float) -> None:
        """Advance time: the clock of the scripts, and keys that only have a TTL."""
        self.now += seconds
        age(self.server, seconds)

    def keys(self) -> list[str]:
        return sorted(str(key) for key in self.server.command("KEYS", "*") if not str(key).endswith(":probe"))
