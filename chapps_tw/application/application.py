"""The parts of the process: made of the settings, and joined."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw import __version__
from chapps_tw.application import gauges
from chapps_tw.application.database import Database
from chapps_tw.application.dns import Dns, Whitelist
from chapps_tw.application.health import Health
from chapps_tw.application.http import ConfigWriter, Http, Tokens
from chapps_tw.application.listening import Listening
from chapps_tw.application.log_output import LogOutput
from chapps_tw.application.part import Part, open_all, start_all, stop_all
from chapps_tw.application.state import State
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import parse_attributes
from chapps_tw.observe.decision_log import DecisionLog, Search, beside
from chapps_tw.observe.decision_record import Record, record_of
from chapps_tw.observe.log_file import LogFile
from chapps_tw.observe.metrics import Metrics
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.exemption import Exemption
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.policies.one_header import one_header
from chapps_tw.policies.pipeline import INBOUND_POLICIES, Answer, Policy, Seat, Switchboard
from chapps_tw.policies.quota import OutboundQuotaPolicy
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from chapps_tw.policies.spf import SPFEnforcementPolicy
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.app import API
from chapps_tw.rest.routers.insight import Explained

# A bug is logged once in so many seconds.
FAILURE_SECONDS = 60.0

C = TypeVar("C", bound=gauges.Cached)


class Reporter:
    """Tells what happened: counts, logs, remembers.

    :param now: epoch seconds.
    """

    log = Logger()

    def __init__(
        self, metrics: Metrics, decisions: DecisionLog, reactor: IReactorTime, now: Callable[[], float]
    ) -> None:
        self._metrics = metrics
        self._decisions = decisions
        self._reactor = reactor
        self._now = now
        self._told: dict[str, float] = {}

    def answered(self, board: Switchboard, request: OutboundPPR, answer: Answer, started: float) -> None:
        """Report an answer that was sent."""
        listener = board.listener
        self._metrics.answered(listener, answer.decisions, self._reactor.seconds() - started)
        now, user, sent = self._now(), request.known_user, answer.decision
        for decision in answer.decisions:
            if decision.shadow and decision is not sent:
                self._decisions.add(listener, user, request, decision, now)
        self._decisions.add(listener, user, request, sent, now, beside(sent, answer.decisions))

    def failed(self, policy: str, error: Exception) -> None:
        """Log what a policy did not foresee; the same again only after a while."""
        place = f"{policy} {type(error).__name__}"
        moment = self._reactor.seconds()
        if moment - self._told.get(place, -inf) >= FAILURE_SECONDS:
            self._told[place] = moment
            self.log.failure("{policy} failed", Failure(error), policy=policy)


class Application:
    """Everything in the process, made and joined but not opened.

    :ivar parts: in the order in which they are opened and started; they stop in reverse order.
    :param settings: the configuration.
    :param reactor: the reactor.
    :param output: what writes to standard output, if Twisted logs there.
    :raises StartError: when the file of the database cannot be made.
    :raises ConfigError: for options whose meaning only the parts themselves know.
    """

    def __init__(self, settings: Settings, reactor: Any, output: LogFile | None = None) -> None:
        self.settings = settings
        self.reactor = reactor
        self.metrics = Metrics(__version__, reactor.seconds)
        # What a question that timed out there is answered with must be sent before the whole request times out.
        store_timeout = 0.75 * settings.chapps.request_timeout
        self.log_output = LogOutput(settings, reactor, output)
        self.decisions = self.log_output.decisions
        self.reporter = Reporter(self.metrics, self.decisions, reactor, time.time)
        self.caches: list[tuple[str, gauges.Cached]] = []
        self.refreshes: list[Refresh] = []
        self.database = Database(settings, reactor, self.metrics, store_timeout)
        self.state = State(settings, reactor, self.metrics, store_timeout)
        self.dns = Dns(settings, reactor, self.metrics)
        self.whitelist = Whitelist(settings, reactor, self.dns.resolver)
        self._make_listeners()
        self._make_api()
        self._show()
        self.parts: tuple[Part, ...] = (
            self.log_output,
            self.database,
            self.tokens,
            self.state,
            self.dns,
            Http(self.api),
            self.whitelist,
            Health(reactor, self.state.live.ping, self.database.book.ping),
            Listening(settings, reactor, self.factories, self.api.site, self.dns.checker),
        )

    def open(self) -> None:
        """Open files and sockets, before the reactor runs.

        :raises StartError: when one of them cannot be used.
        """
        open_all(self.parts)

    def start(self) -> None:
        """Begin to work; the reactor runs."""
        start_all(self.parts)

    async def stop(self) -> None:
        """Finish what was asked, then close everything; within five seconds. Nothing is lost that was answered."""
        await stop_all(self.parts)

    def _make_policy(self, name: str) -> Seat:
        """A policy by its name."""
        settings, state, book = self.settings, self.state.live, self.database.book
        refresh = Refresh(settings.adapter.refresh, self.reactor.seconds)
        self.refreshes.append(refresh)
        due = refresh.is_due
        if name == "SenderDomainAuthPolicy":
            return _seat(self._caching("senders", SenderDomainAuthPolicy(settings, state, book, due)), settings.sda)
        if name == "OutboundQuotaPolicy":
            return _seat(self._caching("limits", OutboundQuotaPolicy(settings, state, book, due)), settings.oqp)
        if name == "GreylistingPolicy":
            return _seat(self._caching("greylist_flags", GreylistingPolicy(settings, state, book, due)), settings.grl)
        policy = SPFEnforcementPolicy(settings, state, book, self.dns.checker.check, self.dns.receiver, due)
        self._caching("spf_flags", policy)
        return _seat(policy, settings.spf)

    def _caching(self, cache: str, policy: C) -> C:
        """Have the looks of a policy for copies of the book counted."""
        self.caches.append((cache, policy))
        return policy

    def _make_listeners(self) -> None:
        self.switchboards = {each.name: self._make_switchboard(each) for each in self.settings.listeners}
        self.factories = {name: self._make_factory(board) for name, board in self.switchboards.items()}

    def _make_switchboard(self, listener: Listener) -> Switchboard:
        seats = [self._make_policy(name) for name in listener.policies]
        exempted = Exemption(self.settings, self.whitelist.matches).of
        failed, settle = self.reporter.failed, partial(one_header, self.state.live)
        return Switchboard(listener.name, seats, exempted, failed, CancelledError, settle)

    def _make_factory(self, board: Switchboard) -> PolicyFactory:
        patience = self.settings.chapps.request_timeout
        if any(name == SPFEnforcementPolicy.name for name in board.policies):
            patience += self.settings.spf.spf_query_timeout
        return PolicyFactory(
            board, self._read, self.reporter.answered, self.reactor.seconds, patience, self.reactor.callLater
        )

    def _read(self, payload: bytes) -> OutboundPPR:
        return OutboundPPR(parse_attributes(payload, self.settings.chapps.payload_encoding), cfg=self.settings)

    def _make_api(self) -> None:
        settings = self.settings
        self.tokens = Tokens(settings)
        self.api = API(
            settings,
            self.state.live,
            self.database.book,
            scope_of=self.tokens.scope_of,
            explain=self._explain,
            find=self._find,
            metrics=self.metrics.text,
            write_config=ConfigWriter(settings).write,
            now=time.time,
            reactor=self.reactor,
            version=__version__,
            checks=self.state.checks,
            compare=self._compare,
        )

    def _compare(self) -> None:
        for refresh in self.refreshes:
            refresh.forget()

    async def _explain(self, listener: str, attributes: Mapping[str, str]) -> Explained:
        """What a listener would answer, and each of its policies.

        :raises KeyError: when there is no listener of this name.
        """
        request = OutboundPPR(dict(attributes), cfg=self.settings)
        board = self.switchboards[listener] if listener else self._fitting(request)
        answer = await board.explain(request)
        now = time.time()

        def record(decision: Decision) -> Record:
            return record_of(board.listener, request.known_user, request, decision, now)

        return Explained(record(answer.decision), [record(each) for each in answer.decisions])

    def _find(self, wanted: Mapping[str, str]) -> Search:
        """A look for the decisions whose fields are as wanted, the user however spelled."""
        user = normal_name(wanted.get("user", ""), self.settings.chapps.fold_case)
        return self.decisions.search({**wanted, "user": user} if user else wanted)

    def _fitting(self, request: OutboundPPR) -> Switchboard:
        """The listener that a request would be sent to: who logged in sends, anybody else brings us mail."""
        boards = list(self.switchboards.values())
        inbound = not request.sasl_username
        fitting = [board for board in boards if inbound == INBOUND_POLICIES.issuperset(board.policies)]
        return (fitting or boards)[-1 if inbound else 0]

    def _show(self) -> None:
        """Let the metrics show what the parts count."""
        gauges.show_dependencies(self.metrics, {"state": self.state.store, "database": self.database.book})
        gauges.show_listeners(self.metrics, self.factories)
        asked: list[tuple[str, gauges.Cached]] = [("dns", self.dns.resolver), ("spf_results", self.dns.checker)]
        gauges.show_caches(self.metrics, [*self.caches, *asked])
        gauges.show_database(self.metrics, self.database.engine, self.settings.adapter.pool_size)
        gauges.show_dns(self.metrics, self.dns.resolver)
        gauges.show_http(self.metrics, lambda: self.api.site.connections, lambda: self.api.drops_left)
        gauges.show_log(self.metrics, lambda: self.log_output.lost)


def _seat(policy: Policy, options: Any) -> Seat:
    return Seat(policy, options.mode == "shadow", options.on_failure == "accept")
