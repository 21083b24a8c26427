"""The DNS part, and its users: SPF and the HELO whitelist."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from chapps_tw.application.part import Part
from chapps_tw.config.settings import Settings, SPFEnforcementPolicy
from chapps_tw.dns.helo_whitelist import HeloWhitelist
from chapps_tw.dns.messages import Answer
from chapps_tw.dns.resolver import Bounds, Resolver, nameservers
from chapps_tw.mail.network import HeloEntry
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.metrics import Metrics
from chapps_tw.spf.checker import SpfChecker
from chapps_tw.spf.evaluation import Rules

# One evaluates SPF records, the other parses DNS answers; the queries are sent from the reactor.
SPF_THREADS = 2

# Seconds between verifications of the HELO whitelist, and until a retry after a DNS failure.
WHITELIST_SECONDS = 3600.0
WHITELIST_RETRY_SECONDS = 60.0


class Dns(Part):
    """The resolver and the SPF checker. Both are replaced when their options change; what is in flight ends with them.

    :ivar resolver, checker: the current ones.
    """

    def __init__(self, settings: Settings, reactor: Any, metrics: Metrics) -> None:
        self._reactor = reactor
        self._timer = partial(metrics.timer, "dns")
        self._threads = ThreadPool(SPF_THREADS, SPF_THREADS, "spf")
        self._run = partial(deferToThreadPool, reactor, self._threads)
        self._options = settings.spf
        self._make()
        self._former: list[tuple[Resolver, SpfChecker]] = []

    def _make(self) -> None:
        options, reactor = self._options, self._reactor
        timeout, servers = options.spf_query_timeout, nameservers(options.nameservers)
        bounds = Bounds(options.answer_size_limit, options.answer_record_limit)
        rules = Rules(time.time, receiver_of(options), options.void_lookup_limit, options.record_size_limit)
        self.resolver = Resolver(reactor, self._run, servers, timeout, self._timer, bounds)
        self.checker = SpfChecker(reactor, self._run, time.thread_time, self.resolver, timeout, rules)

    @property
    def problem(self) -> str:
        """One sentence while no name server answers, otherwise ``""``."""
        return self.resolver.problem

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """Look up the records of a name: :meth:`~chapps_tw.dns.resolver.Resolver.ask`."""
        return self.resolver.ask(name, rdtype)

    def check(self, client: str, helo: str, sender: str) -> Deferred[SpfResult]:
        """Check a message: :meth:`~chapps_tw.spf.checker.SpfChecker.check`."""
        return self.checker.check(client, helo, sender)

    def prepare(self, settings: Settings) -> Callable[[], object]:
        return partial(self._use, settings.spf)

    def _use(self, options: SPFEnforcementPolicy) -> None:
        before, self._options = self._options, options
        if _relevant(options) == _relevant(before):
            return
        resolver, checker = self.resolver, self.checker
        self._former = [each for each in (*self._former, (resolver, checker)) if each[0].questions or each[1].checks]
        self._make()
        # The counters of the metrics continue.
        self.resolver.looks, self.resolver.misses = resolver.looks, resolver.misses
        self.resolver.failures = resolver.failures
        self.checker.looks, self.checker.misses = checker.looks, checker.misses

    def start(self) -> None:
        """Start the threads."""
        self._threads.start()

    def end_checks(self) -> None:
        """End pending SPF checks."""
        for _, checker in (*self._former, (self.resolver, self.checker)):
            checker.close()

    def stop(self) -> None:
        """End pending checks and queries, and stop the threads."""
        self.end_checks()
        for resolver, _ in (*self._former, (self.resolver, self.checker)):
            resolver.close()
        self._threads.stop()


def receiver_of(options: SPFEnforcementPolicy) -> str:
    """Return the name of this host in headers."""
    return options.receiver or socket.gethostname()


def _relevant(options: SPFEnforcementPolicy) -> tuple[object, ...]:
    """Return the options that the resolver and the checker depend on."""
    limits = options.answer_size_limit, options.answer_record_limit, options.void_lookup_limit
    return options.nameservers, options.spf_query_timeout, options.receiver, options.record_size_limit, *limits


class Whitelist(Part):
    """Verifies the entries of the HELO whitelist periodically."""

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, look_up: Callable[[str, str], Deferred[Answer]]) -> None:
        self._reactor = reactor
        self._look_up = look_up
        self._entries = settings.chapps.helo_whitelist
        self._clients = self._make(None)
        self._verifying = self._make_loop()

    def matches(self, request: PolicyRequest) -> bool:
        """Return whether the client of a request is on the list."""
        return self._clients.matches(request)

    def _make(self, before: HeloWhitelist | None) -> HeloWhitelist:
        return HeloWhitelist(self._entries, self._look_up, lambda text: self.log.warn("{text}", text=text), before)

    def _make_loop(self) -> LoopingCall:
        """Return what verifies the current list."""
        clients = self._clients

        async def verify() -> None:
            answered = await clients.verify()
            verifying.interval = WHITELIST_SECONDS if answered else WHITELIST_RETRY_SECONDS

        verifying = LoopingCall(verify)
        verifying.clock = self._reactor
        return verifying

    def prepare(self, settings: Settings) -> Callable[[], object]:
        return partial(self._use, settings.chapps.helo_whitelist)

    def _use(self, entries: Sequence[HeloEntry]) -> None:
        if entries != self._entries:
            self.stop()
            self._entries = tuple(entries)
            self._clients = self._make(self._clients)
            self._verifying = self._make_loop()
            self.start()

    def start(self) -> None:
        """Start verifying."""
        self._verifying.start(WHITELIST_SECONDS)

    def stop(self) -> None:
        """Stop verifying."""
        if self._verifying.running:
            self._verifying.stop()
