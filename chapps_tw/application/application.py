"""Creates and connects all parts of the process from the settings."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThreadPool

from chapps_tw import __version__
from chapps_tw.application import gauges
from chapps_tw.application.asked import ListenerStates
from chapps_tw.application.database import Book, Database
from chapps_tw.application.dns import Dns, Whitelist
from chapps_tw.application.events import EventLog
from chapps_tw.application.health import Health
from chapps_tw.application.history import History
from chapps_tw.application.http import Http, PageForPeople, Tokens
from chapps_tw.application.listening import Listening
from chapps_tw.application.log_output import LogOutput
from chapps_tw.application.nodes import Nodes
from chapps_tw.application.notices import Notices
from chapps_tw.application.part import Part, open_all, prepare_all, start_all, stop_all
from chapps_tw.application.pipelines import Made, Pipelines
from chapps_tw.application.ports import OwnPorts, Ports
from chapps_tw.application.preflight import findings
from chapps_tw.application.reloading import Reloading
from chapps_tw.application.reporter import Reporter
from chapps_tw.application.state import State
from chapps_tw.config.load import load
from chapps_tw.config.settings import Settings
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import parse
from chapps_tw.observe.decision_rates import DecisionRates
from chapps_tw.observe.decision_record import Entry, Record, record_of
from chapps_tw.observe.decision_ring import DecisionRing, Search
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.observe.log_file import LogFile
from chapps_tw.observe.metrics import Metrics
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events, LimitEvent
from chapps_tw.policies.registry import BUILT_IN, Registry
from chapps_tw.policies.spec import Dependencies
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.app import API
from chapps_tw.rest.routers.insight import Check, Explained
from chapps_tw.rest.slices import Slices
from chapps_tw.sockets.reading import adopter
from chapps_tw.sockets.turn import Turn
from chapps_tw.state.invalidation import BookCache
from chapps_tw.ui.page import Page


class Application:
    """All parts of the process, created and connected, but not opened.

    :ivar settings: the configuration in force.
    :ivar parts: in the order in which they are opened and started; they stop in reverse order.
    :param reactor: the reactor.
    :param output: the writer of standard output, if Twisted logs there.
    :param registry: the available policies.
    :param read: reads the configuration again; the default reads the file of the settings.
    :param tell: tells the service manager something.
    :raises StartError: when the file of the database cannot be made.
    :raises ConfigError: for options whose meaning only the parts themselves know.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        output: LogFile | None = None,
        registry: Registry = BUILT_IN,
        read: Callable[[], Settings] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.reactor = reactor
        self.registry = registry
        self.metrics = Metrics(__version__, reactor.seconds)
        turn = Turn(reactor.callLater)
        # If a store times out, on_failure must be answered before the whole request times out.
        store_timeout = 0.75 * settings.chapps.request_timeout
        self.log_output = LogOutput(settings, reactor, output)
        self.slices = Slices(reactor)
        self.state = State(settings, reactor, self.metrics, store_timeout, turn)
        cache = BookCache(self.state.live, self._compare)
        self.database = Database(settings, reactor, self.metrics, store_timeout, cache, self.slices.each)
        self.history = History(settings, reactor, self.metrics, self.database.engine)
        self._make_reporter()
        self.dns = Dns(settings, reactor, self.metrics)
        self.whitelist = Whitelist(settings, reactor, self.dns.ask)
        self._make_listeners(turn)
        book = self.database.book
        self.events = EventLog(settings, reactor, book, state=self.state.store, database=book, dns=self.dns)
        self._observe(self.events.note_limit)
        self.notices = Notices(
            settings, reactor, self.metrics, self.state.live, self.database.book, self.history.reader,
            self._observe, self.events.note,
        )  # fmt: skip
        self.nodes = Nodes(settings, reactor, self.state.live)
        read = read or partial(load, settings.path, {}, findings, registry.added)
        self.reloading = Reloading(self, read, tell, self._in_thread)
        self._make_api()
        self._show()
        self.parts: tuple[Part, ...] = (
            self.log_output,
            self.database,
            self.history,
            self.tokens,
            self.state,
            Book(self.database.book, reactor, settings.adapter.audit_days),
            self.nodes,
            self.events,
            self.dns,
            self.notices,
            Http(self.api),
            self.whitelist,
            Health(reactor, self.state.live.ping, self.database.book.ping),
            self.listeners,
            Listening(settings, reactor, self.factories, self.api.site, self.dns.end_checks, self._make_ports()),
            PageForPeople(self._make_page()),
            self.reloading,
        )

    def open(self) -> None:
        """Open files and sockets, before the reactor runs.

        :raises StartError: if one of them cannot be used.
        """
        open_all(self.parts)

    def start(self) -> None:
        """Start working. The reactor is running."""
        start_all(self.parts)

    def ready(self) -> Deferred[object]:
        """Fire when Postfix is answered."""
        return succeed(None)

    async def use(self, settings: Settings) -> None:
        """Put other settings in force between two requests, and keep that as an event.

        :raises StartError, ConfigError: as for :meth:`change_to`.
        """
        await self.change_to(settings)
        self.events.note("configuration_loaded", settings.node, settings.path or "built-in defaults")

    async def change_to(self, settings: Settings) -> None:
        """Put other settings in force between two requests. Requests that are processed end with the former ones.

        :param settings: what takes effect after a restart is unchanged.
        :raises StartError, ConfigError: if that is not possible; nothing has changed then.
        """
        made = self.pipelines.make(settings)
        ready = await self._in_thread(prepare_all, self.parts, settings)
        self.settings = settings
        for put_in_force in ready:
            put_in_force()
        self._put_in_force(made)
        self.api.use(settings)

    def _in_thread(self, work: Callable[..., Any], *values: Any) -> Deferred[Any]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), work, *values)

    def _put_in_force(self, made: Made) -> None:
        self.pipelines.put_in_force(made)
        for name, factory in self.factories.items():
            factory.pipeline = made.pipelines[name]
        self.reporter.sinks = self._sinks()

    def reload(self) -> None:
        """Read the configuration again; the log tells what becomes of it."""
        self.reloading.request()

    async def stop(self) -> None:
        """Finish pending requests, then close everything, within five seconds. No answered request is lost."""
        await stop_all(self.parts)

    def _make_states(self, *values: Any) -> ListenerStates:
        return ListenerStates(*values)

    def _make_ports(self) -> Ports:
        return OwnPorts(self.settings, self.reactor)

    def _observe(self, observer: Callable[[LimitEvent], None]) -> None:
        """Call an observer with each event that this node is the first to note."""
        self.reporter.observe(observer)

    async def _compare(self) -> None:
        """Compare each cached value with the policy book before its next use."""
        self.pipelines.compare()

    async def _metrics(self) -> bytes:
        """Return the metrics in the text format of Prometheus."""
        return self.metrics.text()

    def _checks(self) -> Mapping[str, Check]:
        """Return the checks of ``/ready`` that are not pings."""
        return self.state.checks

    def _lost_lines(self) -> int:
        """Return how many decisions the log lacks."""
        return self.log_output.lost

    def _make_reporter(self) -> None:
        # Microseconds since the epoch, so that the numbers of the next process are higher.
        self.decisions = DecisionRing(int(time.time() * 1e6))
        self.rates = DecisionRates()
        self.requests = ListenerRequests()
        self.reporter = Reporter(self.metrics, self.requests, self._sinks(), self.reactor.seconds, time.time)

    def _sinks(self) -> Sequence[Callable[[Sequence[Entry]], None]]:
        """Return what takes the decisions."""
        sinks: list[Callable[[Sequence[Entry]], None]] = [self.decisions.extend, self.rates.extend]
        if self.log_output.decisions is not None:
            sinks.append(self.log_output.decisions.extend)
        if self.history.records:
            sinks.append(self.history.writer.extend)
        return sinks

    def _make_listeners(self, turn: Turn) -> None:
        live, seconds = self.state.live, self.reactor.seconds
        use = Dependencies(
            self.settings, live, self.database.book, self.dns.check, "", time.time, seconds,
            Events(live, time.time, seconds, self.reporter.start, self.reporter.near_limit), self.reporter.warn,
        )  # fmt: skip
        self.pipelines = Pipelines(self.registry, use, self.whitelist.matches, self.reporter.failed)
        adopt, pipelines = adopter(self.reactor), self.pipelines.current.pipelines
        self.factories = {
            name: PolicyFactory(pipeline, self._read, self.reporter.answered, seconds, turn, adopt)
            for name, pipeline in pipelines.items()
        }
        self.listeners = self._make_states(
            self.settings, self.registry, self.requests, self.factories, self.reactor, time.time
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
            metrics=self._metrics,
            config=self.reloading,
            now=time.time,
            reactor=self.reactor,
            version=__version__,
            slices=self.slices,
            notifier=lambda: self.notices.notifier,
            checks=self._checks(),
            nodes=self.nodes.all,
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
        pipelines = self.pipelines.current.pipelines
        pipeline = pipelines[listener] if listener else self.pipelines.fitting(request)
        answer = await pipeline.explain(request)
        now = time.time()

        def record(decision: Decision) -> Record:
            return record_of(pipeline.listener, request.known_user, request, decision, now)

        return Explained(record(answer.decision), [record(each) for each in answer.decisions])

    def _find(self, wanted: Mapping[str, str], after: int | None) -> Search:
        """Search for decisions with the given fields; the user may be in any spelling."""
        user = normal_name(wanted.get("user", ""), self.settings.chapps.fold_case)
        return self.decisions.search({**wanted, "user": user} if user else wanted, after)

    def _show(self) -> None:
        """Let the metrics show what the parts count."""
        gauges.show_dependencies(self.metrics, {"state": self.state.store, "database": self.database.book})
        gauges.show_listeners(self.metrics, self.factories)
        gauges.show_caches(self.metrics, self._lookups)
        gauges.show_database(self.metrics, self.database.engine, self.settings.adapter.pool_size)
        gauges.show_dns(self.metrics, lambda: self.dns.resolver)
        gauges.show_http(
            self.metrics, lambda: self.api.site.connections, lambda: self.database.book.pending_invalidations
        )
        gauges.show_log(self.metrics, self._lost_lines)

    def _lookups(self) -> gauges.Lookups:
        """Return the numbers of lookups in all caches."""
        return gauges.add_up([("dns", self.dns.resolver), ("spf_results", self.dns.checker)], self.pipelines.lookups())
