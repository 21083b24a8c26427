"""What the tests of the Redis store stand on: a server, a pool, a state, and load."""

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
from chapps_tw.interfaces.state import Fill, LiveState, Outcome, Rules, Spend, StateUnavailable
from chapps_tw.state.redis.pool import RedisPool, pool_from
from chapps_tw.state.redis.store import RedisState
from tests.support.servers.common import HANGS
from tests.support.servers.redis import RedisProcess

reactor: Any = installed_reactor


# Of calls, in seconds; and where it is not what is looked at.
DEADLINE, AMPLE = 0.6, 10.0


RULES = Rules(interval=3600, margin_count=0, margin_ratio=0.0, min_delta=0)


@cache
def shared_redis() -> RedisProcess:
    """The server of all tests of this process that want no options of their own, nor stop it."""
    server = RedisProcess(Path(tempfile.mkdtemp(prefix="redis-"))).start()
    atexit.register(server.stop)
    return server


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def eventually(true: Callable[[], object], seconds: float = HANGS) -> None:
    """Wait until something is so."""
    begin = time.monotonic()
    while not true():
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"not so after {seconds} s")
        await pause(0.01)


async def repeated(ask: Callable[[], Awaitable[object]], seconds: float = HANGS) -> None:
    """Ask again and again until the answer is yes."""
    begin = time.monotonic()
    while not await ask():
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"not so after {seconds} s")
        await pause(0.01)


async def answers(state: RedisState) -> bool:
    """Whether the store answers now."""
    try:
        await state.ping()
    except StateUnavailable:
        return False
    return True


class RedisTestCase(TestCase):
    """With a server and a pool; subclasses choose the options of both."""

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
        """A started pool on the server's port."""
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
        """What the pools logged."""
        return [
            str(line.get("problem") or line["log_format"])
            for line in self.lines
            if line.get("log_namespace", "").startswith("chapps_tw.state")
        ]

    def assert_quiet(self) -> None:
        """Nothing else was logged that an admin would ask about, such as tracebacks or lines for each attempt."""
        noise = [line for line in self.lines if "log_failure" in line or "retry" in str(line.get("log_format"))]
        self.assertEqual(noise, [])


class Load:
    """Several askers that spend one after the other; notes each outcome and how long it took."""

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
                spent = await self._state.spend(Spend("u", f"load-{number}", "", 1), RULES, Fill("", 10**6, 600))
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
        """Wait until each asker has the answer to something that it asks from now on; returns all of those."""
        begin = self.asked

        def later() -> list[tuple[int, int, Any]]:
            return [each for each in self.outcomes if each[1] > begin]

        await eventually(lambda: len({asker for asker, _, _ in later()}) == len(self._askers))
        return {outcome for _, _, outcome in later()}

    async def right_again(self) -> None:
        """Wait until something that is asked from now on is accepted."""
        begin = self.asked
        await eventually(
            lambda: any(number > begin and outcome is Outcome.ACCEPTED for _, number, outcome in self.outcomes)
        )


def age(server: RedisProcess, seconds: float) -> None:
    """Let time pass for the keys that hold no time and simply expire."""
    script = """
        for _, key in ipairs(redis.call('KEYS', '*')) do
            if redis.call('TYPE', key).ok == 'string' then
                redis.call('PEXPIRE', key, redis.call('PTTL', key) - ARGV[1])
            end
        end"""
    server.command("EVAL", script, "0", str(round(seconds * 1000)))


class InReactor:
    """A state whose methods are called in the reactor's thread, when what they return is called there."""

    def __init__(self, state: RedisState) -> None:
        self._state = state

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: partial(getattr(self._state, name), *arguments)


async def waited_for(ask: Callable[[], Awaitable[Any]]) -> Any:
    return await ask()


class RedisStateTestCase(TestCase):
    """With the shared server, emptied; ``clock`` is whether time stands still but for :meth:`advance`."""

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
        """Let time pass: on the clock of the scripts, and for the keys that hold no time and simply expire."""
        self.now += seconds
        age(self.server, seconds)

    def keys(self) -> list[str]:
        return sorted(str(key) for key in self.server.command("KEYS", "*") if not str(key).endswith(":probe"))
