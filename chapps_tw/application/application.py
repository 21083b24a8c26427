"""Creates and connects all parts of the process from the settings."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import CancelledError

from chapps_tw import __version__
from chapps_tw.application import gauges
from chapps_tw.application.asked import ListenerStates
from chapps_tw.application.database import Book, Database
from chapps_tw.application.dns import Dns, Whitelist
from chapps_tw.application.events import EventLog
from chapps_tw.application.health import Health
from chapps_tw.application.history import History
from chapps_tw.application.http import ConfigWriter, Http, PageForPeople, Tokens
from chapps_tw.application.listening import Listening
from chapps_tw.application.log_output import LogOutput
from chapps_tw.application.notices import Notices
from chapps_tw.application.part import Part, open_all, start_all, stop_all
from chapps_tw.application.policies import Policies
from chapps_tw.application.reporter import Reporter
from chapps_tw.application.state import State
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import parse
from chapps_tw.observe.decision_rates import DecisionRates
from chapps_tw.observe.decision_record import Record, record_of
from chapps_tw.observe.decision_ring import DecisionRing, Search
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.observe.log_file import LogFile
from chapps_tw.observe.metrics import Metrics
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events
from chapps_tw.policies.exemption import Exemption
from chapps_tw.policies.exemptions import Exempt, Exemptions
from chapps_tw.policies.one_header import one_header
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.registry import BUILT_IN, Registry
from chapps_tw.policies.spec import Dependencies
from chapps_tw.postfix.pipeline import Pipeline
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.app import API
from chapps_tw.rest.routers.insight import Explained
from chapps_tw.rest.slices import Slices
from chapps_tw.sockets.reading import adopter
from chapps_tw.state.invalidation import BookCache
from chapps_tw.ui.page import Page


class Application:
    """All parts of the process, created and connected, but not opened.

    :ivar parts: in the order in which they are opened and started; they stop in reverse order.
    :param settings: the configuration.
    :param reactor: the reactor.
    :param output: the writer of standard output, if Twisted logs there.
    :param registry: the available policies.
    :raises StartError: when the file of the database cannot be made.
    :raises ConfigError: for options whose meaning only the parts themselves know.
    """

    def __init__(
        self, settings: Settings, reactor: Any, output: LogFile | None = None, registry: Registry = BUILT_IN
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.registry = registry
        self.metrics = Metrics(__version__, reactor.seconds)
        # If a store times out, on_failure must be answered before the whole request times out.
        store_timeout = 0.75 * settings.chapps.request_timeout
        self.log_output = LogOutput(settings, reactor, output)
        self.slices = Slices(reactor)
        self.state = State(settings, reactor, self.metrics, store_timeout)
        cache = BookCache(self.state.live, lambda: self.policies.compare())
        self.database = Database(settings, reactor, self.metrics, store_timeout, cache, self.slices.each)
        self.history = History(settings, reactor, self.metrics, self.database.engine)
        self._make_reporter()
        self.dns = Dns(settings, reactor, self.metrics)
        self.whitelist = Whitelist(settings, reactor, self.dns.resolver)
        self._make_listeners()
        book = self.database.book
        self.events = EventLog(settings, reactor, book, state=self.state.store, database=book, dns=self.dns.resolver)
        self.reporter.observe(self.events.note_limit)
        self.notices = Notices(
            settings, reactor, self.metrics, self.state.live, self.database.book, self.history.reader,
            self.reporter.observe, self.events.note,
        )  # fmt: skip
        self._make_api()
        self._show()
        self.parts: tuple[Part, ...] = (
            self.log_output,
            self.database,
            self.history,
            self.tokens,
            self.state,
            Book(self.database.book, reactor, settings.adapter.audit_days),
            self.events,
            self.dns,
            self.notices,
            Http(self.api),
            self.whitelist,
            Health(reactor, self.state.live.ping, self.database.book.ping),
            self.listeners,
            Listening(settings, reactor, self.factories, self.api.site, self.dns.checker),
            PageForPeople(self._make_page()),
        )

    def open(self) -> None:
        """Open files and sockets, before the reactor runs.

        :raises StartError: if one of them cannot be used.
        """
        open_all(self.parts)

    def start(self) -> None:
        """Start working. The reactor is running."""
        start_all(self.parts)

    async def stop(self) -> None:
        """Finish pending requests, then close everything, within five seconds. No answered request is lost."""
        await stop_all(self.parts)

    def _make_reporter(self) -> None:
        # Microseconds since the epoch, so that the numbers of the next process are higher.
        self.decisions = DecisionRing(int(time.time() * 1e6))
        self.rates = DecisionRates()
        sinks = [self.decisions.add, self.rates.add]
        if self.log_output.decisions is not None:
            sinks.append(self.log_output.decisions.add)
        if self.history.records:
            sinks.append(self.history.writer.add)
        self.requests = ListenerRequests()
        self.reporter = Reporter(self.metrics, self.requests, sinks, self.reactor, time.time)

    def _make_listeners(self) -> None:
        live, seconds = self.state.live, self.reactor.seconds
        use = Dependencies(
            self.settings, live, self.database.book, self.dns.checker.check, self.dns.receiver, time.time, seconds,
            Events(live, time.time, seconds, self.reporter.start, self.reporter.near_limit), self.reporter.warn,
            exempt=self._exempt(),
        )  # fmt: skip
        self.policies = Policies(self.registry, use, seconds)
        self.pipelines = {each.name: self._make_pipeline(each) for each in self.settings.listeners}
        self._adopt = adopter(self.reactor)
        self.factories = {name: self._make_factory(pipeline) for name, pipeline in self.pipelines.items()}
        self.listeners = ListenerStates(
            self.settings, self.registry, self.requests, self.factories, self.reactor, time.time
        )

    def _exempt(self) -> Exempt:
        """Return what finds exemptions, for all policies."""
        due = Refresh(self.settings.adapter.refresh, self.reactor.seconds).is_due
        return Exemptions(self.state.live, self.database.book, time.time, self.settings.chapps.fold_case, due).of

    def _make_pipeline(self, listener: Listener) -> Pipeline:
        slots = [self.policies.slot(name) for name in listener.policies]
        exempted = Exemption(self.settings, self.whitelist.matches).of
        failed, settle = self.reporter.failed, partial(one_header, self.state.live)
        return Pipeline(listener.name, slots, exempted, failed, CancelledError, settle, self.state.live)

    def _make_factory(self, pipeline: Pipeline) -> PolicyFactory:
        reactor, timeout = self.reactor, self.policies.time_limit(pipeline.policies)
        return PolicyFactory(
            pipeline, self._read, self.reporter.answered, reactor.seconds, timeout, reactor.callLater, self._adopt
        )

    def _read(self, payload: bytes) -> OutboundPPR:
        return OutboundPPR(parse(payload, self.settings.chapps.payload_encoding), cfg=self.settings)

    def _make_api(self) -> None:
        settings = self.settings
        self.tokens = Tokens(settings)
        self.api = API(
            settings,
            self.state.live,
            self.database.book,
            self.history.reader,
            find_token=self.tokens.find,
            explain=self._explain,
            find=self._find,
            states=self.listeners.states,
            metrics=self.metrics.text,
            write_config=ConfigWriter(settings).write,
            now=time.time,
            reactor=self.reactor,
            version=__version__,
            slices=self.slices,
            notifier=self.notices.notifier,
            checks=self.state.checks,
            reasons=self.registry.reasons,
        )

    def _make_page(self) -> Page:
        return Page(
            self.api,
            self.settings,
            find=self._find,
            rates=self.rates,
            has_token=self.tokens.has,
            reasons=self.registry.reasons,
            now=time.time,
            reactor=self.reactor,
            version=__version__,
            slices=self.slices,
        )

    async def _explain(self, listener: str, attributes: Mapping[str, str]) -> Explained:
        """Return what a listener and each of its policies would answer.

        :raises KeyError: if there is no such listener.
        """
        request = OutboundPPR(dict(attributes), cfg=self.settings)
        pipeline = self.pipelines[listener] if listener else self._fitting(request)
        answer = await pipeline.explain(request)
        now = time.time()

        def record(decision: Decision) -> Record:
            return record_of(pipeline.listener, request.known_user, request, decision, now)

        return Explained(record(answer.decision), [record(each) for each in answer.decisions])

    def _find(self, wanted: Mapping[str, str], after: int | None) -> Search:
        """Search for decisions with the given fields; the user may be in any spelling."""
        user = normal_name(wanted.get("user", ""), self.settings.chapps.fold_case)
        return self.decisions.search({**wanted, "user": user} if user else wanted, after)

    def _fitting(self, request: OutboundPPR) -> Pipeline:
        """Return the listener for a request: outbound for authenticated clients, else inbound."""
        pipelines = list(self.pipelines.values())
        inbound = not request.sasl_username
        fitting = [pipeline for pipeline in pipelines if inbound == pipeline.inbound]
        return (fitting or pipelines)[-1 if inbound else 0]

    def _show(self) -> None:
        """Let the metrics show what the parts count."""
        gauges.show_dependencies(self.metrics, {"state": self.state.store, "database": self.database.book})
        gauges.show_listeners(self.metrics, self.factories)
        asked: list[tuple[str, gauges.Cached]] = [("dns", self.dns.resolver), ("spf_results", self.dns.checker)]
        said = [("said", pipeline.asked_before) for pipeline in self.pipelines.values()]
        gauges.show_caches(self.metrics, [*said, *self.policies.caches, *asked])
        gauges.show_database(self.metrics, self.database.engine, self.settings.adapter.pool_size)
        gauges.show_dns(self.metrics, self.dns.resolver)
        gauges.show_http(
            self.metrics, lambda: self.api.site.connections, lambda: self.database.book.pending_invalidations
        )
        gauges.show_log(self.metrics, lambda: self.log_output.lost)
