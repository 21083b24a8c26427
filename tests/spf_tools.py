"""A checker on a DNS server of the test's own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from twisted.trial.unittest import TestCase

from chapps_tw.spf_check import SpfChecker
from chapps_tw.spf_dns import Resolver
from tests.servers.dns import DnsServer, Zones

# Which interfaces it provides is only known when it runs.
reactor: Any = _reactor


def dns_server(test: TestCase, zones: Zones, moods: Mapping[Any, str | float] | None = None) -> DnsServer:
    """A DNS server that stops with the test."""
    server = DnsServer(zones, moods)
    test.addCleanup(server.stop)
    return server


def resolver(test: TestCase, server: DnsServer, timeout: float = 5.0) -> Resolver:
    """A resolver that asks that server, with no memory of earlier tests."""
    found = Resolver(reactor, [server.address], timeout)
    test.addCleanup(found.close)
    return found


def thread_pool(test: TestCase, size: int = 4) -> ThreadPool:
    """A running pool that ends with the test."""
    pool = ThreadPool(0, size, "spf")
    pool.start()
    test.addCleanup(pool.stop)
    return pool


def checker(test: TestCase, server: DnsServer, timeout: float = 5.0) -> SpfChecker:
    """A checker with a pool and a resolver of its own."""
    run = partial(deferToThreadPool, reactor, thread_pool(test))
    found = SpfChecker(reactor, run, resolver(test, server, timeout), timeout)
    test.addCleanup(found.close)
    return found
