"""The DNS part, and its users: SPF and the HELO whitelist."""

from __future__ import annotations

import socket
import time
from functools import partial
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from chapps_tw.application.part import Part
from chapps_tw.config.settings import Settings
from chapps_tw.dns.helo_whitelist import HeloWhitelist
from chapps_tw.dns.resolver import Bounds, Resolver, nameservers
from chapps_tw.observe.metrics import Metrics
from chapps_tw.spf.checker import SpfChecker
from chapps_tw.spf.evaluation import Rules

# One evaluates SPF records, the other parses DNS answers; the queries are sent from the reactor.
SPF_THREADS = 2

# Seconds between verifications of the HELO whitelist, and until a retry after a DNS failure.
WHITELIST_SECONDS = 3600.0
WHITELIST_RETRY_SECONDS = 60.0


class Dns(Part):
    """The resolver and the SPF checker.

    :ivar receiver: the name of this host in headers.
    """

    def __init__(self, settings: Settings, reactor: Any, metrics: Metrics) -> None:
        options = settings.spf
        timer, servers = partial(metrics.timer, "dns"), nameservers(options.nameservers)
        bounds = Bounds(options.answer_size_limit, options.answer_record_limit)
        self.receiver = options.receiver or socket.gethostname()
        rules = Rules(time.time, self.receiver, options.void_lookup_limit, options.record_size_limit)
        self._threads = ThreadPool(SPF_THREADS, SPF_THREADS, "spf")
        run = partial(deferToThreadPool, reactor, self._threads)
        self.resolver = Resolver(reactor, run, servers, options.spf_query_timeout, timer, bounds)
        self.checker = SpfChecker(reactor, run, time.thread_time, self.resolver, options.spf_query_timeout, rules)

    def start(self) -> None:
        """Start the threads."""
        self._threads.start()

    def stop(self) -> None:
        """End pending checks and queries, and stop the threads."""
        self.checker.close()
        self.resolver.close()
        self._threads.stop()


class Whitelist(Part):
    """Verifies the entries of the HELO whitelist periodically."""

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, resolver: Resolver) -> None:
        entries = settings.chapps.helo_whitelist
        self._clients = HeloWhitelist(entries, resolver.ask, lambda text: self.log.warn("{text}", text=text))
        self.matches = self._clients.matches
        self._verifying = LoopingCall(self._verify)
        self._verifying.clock = reactor

    async def _verify(self) -> None:
        answered = await self._clients.verify()
        self._verifying.interval = WHITELIST_SECONDS if answered else WHITELIST_RETRY_SECONDS

    def start(self) -> None:
        """Start verifying."""
        self._verifying.start(WHITELIST_SECONDS)

    def stop(self) -> None:
        """Stop verifying."""
        if self._verifying.running:
            self._verifying.stop()
