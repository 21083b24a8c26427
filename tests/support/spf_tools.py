"""SPF checkers and resolvers with a DNS server of the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from time import thread_time
from time import time as wall_clock
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from chapps_tw.dns.resolver import Bounds, Resolver
from chapps_tw.mail.network import Server
from chapps_tw.spf.checker import SpfChecker
from chapps_tw.spf.evaluation import Rules
from tests.support.servers.dns import DnsServer, Zones

# Which interfaces it provides is only known when it runs.
reactor: Any = _reactor

RULES = Rules(wall_clock)


def dns_server(test: TestCase, zones: Zones, moods: Mapping[Any, str | float] | None = None) -> DnsServer:
    """Return a DNS server that stops with the test."""
    server = DnsServer(zones, moods)
    test.addCleanup(server.stop)
    return server


class TimeByHand(Clock):
    """The reactor with a clock that only :meth:`advance` moves, so that timeouts occur only when the test says so."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> Any:
        # A call in the next turn does not depend on time.
        later = super().callLater if delay else reactor.callLater
        return later(delay, callable, *args, **kw)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


def resolver(
    test: TestCase, *servers: DnsServer | tuple[str, int], timeout: float = 5.0, time: Any = None, **limits: int
) -> Resolver:
    """Return a resolver for these servers, with an empty cache.

    :param time: the reactor for timers; ``None`` for one whose clock does not move.
    """
    asked = [Server(*(server if isinstance(server, tuple) else server.address)) for server in servers]
    found = Resolver(time or TimeByHand(), runner(test), lambda: asked, timeout, bounds=Bounds(**limits))
    test.addCleanup(found.close)
    return found


def runner(test: TestCase, size: int = 4) -> Callable[..., Deferred[Any]]:
    """Return a function that runs functions in threads, which end with the test."""
    pool = ThreadPool(0, size, "spf")
    pool.start()
    test.addCleanup(pool.stop)
    return partial(deferToThreadPool, reactor, pool)


def checker(test: TestCase, server: DnsServer, timeout: float = 5.0, time: Any = None, **rules: Any) -> SpfChecker:
    """Return a checker with its own threads and resolver; see :func:`resolver`."""
    time = time or TimeByHand()
    dns = resolver(test, server, timeout=timeout, time=time)
    found = SpfChecker(time, runner(test), thread_time, dns, timeout, RULES._replace(**rules))
    test.addCleanup(found.close)
    return found


async def wait_until(true: Callable[[], object]) -> None:
    """Return when a condition is true."""
    end = reactor.seconds() + 40
    while not true():
        assert reactor.seconds() < end
        await deferLater(reactor, 0.01, lambda: None)
