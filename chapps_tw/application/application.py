"""The parts of the process: made of the settings, and joined."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from threading import Thread
from typing import Any, Protocol, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread, deferToThreadPool
from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from chapps_tw import __version__
from chapps_tw.application import gauges
from chapps_tw.application.start_errors import (
    StartError,
    database_problem,
    database_refuses,
    open_engine,
    opening,
    place,
)
from chapps_tw.config.load import DEFAULT_PATH
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.config.write import Rewriter
from chapps_tw.database.keeper import Keeper
from chapps_tw.database.schema import prepare
from chapps_tw.database.threads import Threads
from chapps_tw.dns.helo_whitelist import HeloWhitelist
from chapps_tw.dns.resolver import Bounds, Resolver, nameservers
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import LiveState, StateUnavailable
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import parse_attributes
from chapps_tw.observe.decision_log import DecisionLog, Search, beside
from chapps_tw.observe.decision_record import FORMS, Record, record_of
from chapps_tw.observe.log_file import STANDARD_OUTPUT, LogFile, goes_nowhere
from chapps_tw.observe.log_limit import LogLimit
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
from chapps_tw.rest.routers.insight import Explained, WrongPasscode
from chapps_tw.security.passcode import verify
from chapps_tw.security.tokens import TokenError, TokenStore
from chapps_tw.spf.checker import SpfChecker
from chapps_tw.spf.evaluation import Rules
from chapps_tw.state.sqlite.store import SqliteState

VERSION = f"CHAPPS-TW v{__version__}"

# SPF records are evaluated in one of these, and DNS answers are read in the other; the reactor asks the questions.
SPF_THREADS = 2

# How often the HELO whitelist is looked up, and how soon again when DNS did not answer.
WHITELIST_SECONDS = 3600.0
WHITELIST_RETRY_SECONDS = 60.0

# How often the state store and the database are asked whether they are there.
PING_SECONDS = 10.0

# How long a start waits for the database server.
CHECK_SECONDS = 5.0

# How many sentences about names in the database a start logs.
MAX_TOLD = 20

# A bug is logged once in so many seconds.
FAILURE_SECONDS = 60.0

C = TypeVar("C", bound=gauges.Cached)


class Store(Protocol):
    """What keeps the live state, to be opened and closed.

    :ivar problem: a sentence while it cannot be used, else ``""``.
    """

    @property
    def problem(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> Awaitable[None]: ...


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


class Parts:
    """Everything in the process, made and joined but not opened.

    :param settings: the configuration.
    :param reactor: the reactor.
    :param output: what writes to standard output, if Twisted logs there.
    :raises ConfigError: for options whose meaning only the parts themselves know.
    """

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, output: LogFile | None = None) -> None:
        self.settings = settings
        self.reactor = reactor
        self.metrics = Metrics(__version__, reactor.seconds)
        form = FORMS[settings.log.format]
        self.output = output
        self.log_file = self._make_log_file()
        write_lines = self.log_file.write if self.log_file else None
        self.decisions = DecisionLog(form, write_lines, reactor.callLater)
        self.reporter = Reporter(self.metrics, self.decisions, reactor, time.time)
        self.caches: list[tuple[str, gauges.Cached]] = []
        self.refreshes: list[Refresh] = []
        self._make_state()
        self._make_book()
        self._make_spf()
        self._make_listeners()
        self._make_api()
        self._show()
        self.pinging = LoopingCall(self._ping)
        self.pinging.clock = reactor

    def _make_log_file(self) -> LogFile | None:
        path, form = self.settings.log.file, FORMS[self.settings.log.format]
        if not path or (path == STANDARD_OUTPUT and self.output is not None):
            return self.output if path else None
        complaints = LogLimit(self.log.warn, self.reactor.seconds)
        return LogFile(path, form.loss, lambda text: complaints.warn("{text}", text=text))

    @property
    def _store_timeout(self) -> float:
        """Seconds that a policy waits for the state or the book."""
        # What a question that timed out there is answered with must be sent before the whole request times out.
        return 0.75 * self.settings.chapps.request_timeout

    def _make_state(self) -> None:
        settings = self.settings
        self.state: LiveState
        self.checks: dict[str, Callable[[], Awaitable[object]]] = {}
        self.store: Store
        if settings.uses_redis:
            from chapps_tw.state.redis.pool import pool_from
            from chapps_tw.state.redis.store import RedisState

            observe = self.metrics.calls("state", "command").observe
            self.store = pool = pool_from(
                settings.redis,
                settings.redis_password,
                self.reactor,
                self._store_timeout,
                observe,
                settings.sentinel_password,
            )
            self.state = RedisState(pool, settings.redis.key_prefix)
            gauges.show_redis(self.metrics, pool)
        else:
            watch = partial(self.metrics.watch, "state")
            self.store = self.state = state = SqliteState(settings.state_path, time.time, self.reactor, watch)
            gauges.show_sqlite(self.metrics, state)
            self.checks["state"] = state.ready

    def _make_book(self) -> None:
        adapter = self.settings.adapter
        self.engine = open_engine(self.settings)
        self.threads = Threads(self.reactor, adapter.pool_size)
        watch = partial(self.metrics.watch, "database")
        self.book = Keeper(
            self.engine, self.reactor, self.threads.run, adapter.pool_size, self._store_timeout, watch=watch
        )

    def _make_spf(self) -> None:
        options = self.settings.spf
        watch, servers = partial(self.metrics.watch, "dns"), nameservers(options.nameservers)
        bounds = Bounds(options.answer_size_limit, options.answer_record_limit)
        self.receiver = options.receiver or socket.gethostname()
        rules = Rules(time.time, self.receiver, options.void_lookup_limit, options.record_size_limit)
        self.spf_threads = ThreadPool(SPF_THREADS, SPF_THREADS, "spf")
        run = partial(deferToThreadPool, self.reactor, self.spf_threads)
        self.resolver = Resolver(self.reactor, run, servers, options.spf_query_timeout, watch, bounds)
        self.checker = SpfChecker(self.reactor, run, time.thread_time, self.resolver, options.spf_query_timeout, rules)
        entries = self.settings.chapps.helo_whitelist
        self.whitelist = HeloWhitelist(entries, self.resolver.ask, lambda text: self.log.warn("{text}", text=text))
        self.verifying = LoopingCall(self._verify_whitelist)
        self.verifying.clock = self.reactor

    async def _verify_whitelist(self) -> None:
        answered = await self.whitelist.verify()
        self.verifying.interval = WHITELIST_SECONDS if answered else WHITELIST_RETRY_SECONDS

    def _make_policy(self, name: str) -> Seat:
        """A policy by its name."""
        settings, state, book = self.settings, self.state, self.book
        refresh = Refresh(settings.adapter.refresh, self.reactor.seconds)
        self.refreshes.append(refresh)
        due = refresh.is_due
        if name == "SenderDomainAuthPolicy":
            return _seat(self._caching("senders", SenderDomainAuthPolicy(settings, state, book, due)), settings.sda)
        if name == "OutboundQuotaPolicy":
            return _seat(self._caching("limits", OutboundQuotaPolicy(settings, state, book, due)), settings.oqp)
        if name == "GreylistingPolicy":
            return _seat(self._caching("greylist_flags", GreylistingPolicy(settings, state, book, due)), settings.grl)
        policy = SPFEnforcementPolicy(settings, state, book, self.checker.check, self.receiver, due)
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
        failed, settle = self.reporter.failed, partial(one_header, self.state)
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
        self.tokens = TokenStore(settings.token_path)
        self.config_file = Rewriter(settings, DEFAULT_PATH)
        self.api = API(
            settings,
            self.state,
            self.book,
            scope_of=self.tokens.scope_of,
            explain=self._explain,
            find=self._find,
            metrics=self.metrics.text,
            write_config=self._write_config,
            now=time.time,
            reactor=self.reactor,
            version=__version__,
            checks=self.checks,
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

    async def _write_config(self, passcode: str) -> tuple[str, list[str]]:
        stored = self.settings.chapps.password
        if not stored:
            raise WrongPasscode(
                "No passcode is set: put what 'chapps-cli admin passcode' prints into [CHAPPS] of the configuration, "
                "and restart the service."
            )
        # scrypt takes a while, on purpose.
        if not await deferToThread(verify, passcode, stored):
            raise WrongPasscode("The passcode is wrong.")
        return await deferToThread(self.config_file.write)

    def _show(self) -> None:
        """Let the metrics show what the parts count."""
        gauges.show_dependencies(self.metrics, {"state": self.store, "database": self.book})
        gauges.show_listeners(self.metrics, self.factories)
        gauges.show_caches(self.metrics, [*self.caches, ("dns", self.resolver), ("spf_results", self.checker)])
        gauges.show_database(self.metrics, self.engine, self.settings.adapter.pool_size)
        gauges.show_dns(self.metrics, self.resolver)
        gauges.show_http(self.metrics, lambda: self.api.site.connections, lambda: self.api.drops_left)
        gauges.show_log(self.metrics, lambda: sum(each.lost for each in {self.log_file, self.output} if each))

    async def _ping(self) -> None:
        """Notice that something is away, or back, also while nobody asks."""
        with suppress(StateUnavailable):
            await self.state.ping()
        with suppress(BookUnavailable):
            await self.book.ping()

    def open(self) -> None:
        """Open the files and check the database, before the reactor runs.

        :raises StartError: when one of them cannot be used.
        """
        settings = self.settings
        self._open_log_file()
        self._prepare_database()
        try:
            if settings.api.auth == "token" and settings.api.listen:
                self.tokens.make_first()
                if not self.tokens.list():
                    remedy = "make one with 'chapps-cli token create NAME'"
                    self.log.warn("There is no API token: nobody can use the HTTP API; {remedy}", remedy=remedy)
        except TokenError as error:
            raise StartError(f"{place(settings, 'API', 'token_file')}: {error}") from None
        try:
            self.store.start()
        except StateUnavailable as error:
            raise StartError(f"{place(settings, 'State', 'path')}: {error}") from None

    def _open_log_file(self) -> None:
        if self.log_file is not None and self.log_file is not self.output:
            with opening(self.settings, "Log", "file", self.settings.log.file):
                self.log_file.open()
        if self.settings.log.file == STANDARD_OUTPUT and goes_nowhere():
            self.log.warn("Decisions are logged to standard output, which goes nowhere: name a file in [Log] file.")

    def _prepare_database(self) -> None:
        """Set SQLite's file up, or check a server's schema.

        A server that is away, hangs or refuses us does not stop the start: what is cached can be answered
        meanwhile, and all of it again as soon as the server lets us in. Refused after a restart in the night, a
        node that does not start would defer everything, and systemd might have given it up by the morning.
        """
        checked: list[Exception | None] = []
        told: list[str] = []

        def check() -> None:
            try:
                prepare(self.engine, told.append)
                checked.append(None)
            except Exception as error:
                checked.append(error)

        if self.engine.dialect.name == "sqlite":
            check()
        else:
            thread = Thread(target=check, name="schema check", daemon=True)
            thread.start()
            thread.join(CHECK_SECONDS)
        problem = checked[0] if checked else BookUnavailable(f"it did not answer in {CHECK_SECONDS:g} s")
        if problem is None:
            self._tell(told)
            return
        text = database_problem(self.settings, problem)
        away = isinstance(problem, SQLAlchemyError | OSError | BookUnavailable)
        if not away or self.engine.dialect.name == "sqlite":
            raise StartError(text)
        level = LogLevel.error if database_refuses(problem) else LogLevel.warn
        meanwhile = "until it can, only what is cached is answered; the schema was not checked"
        self.log.emit(level, "{text}; {meanwhile}", text=text, meanwhile=meanwhile)

    def _tell(self, told: Sequence[str]) -> None:
        """Log what the set-up of the database said, as far as anybody reads it there."""
        for sentence in told[:MAX_TOLD]:
            self.log.warn("Database: {sentence}", sentence=sentence)
        if len(told) > MAX_TOLD:
            more = len(told) - MAX_TOLD
            self.log.warn("Database: there is more to tell ({more}): run 'chapps-cli admin db-setup'", more=more)

    def start(self) -> None:
        """Begin to work."""
        self.threads.start()
        self.spf_threads.start()
        self.verifying.start(WHITELIST_SECONDS)
        self.pinging.start(PING_SECONDS)
        self.api.start()

    async def stop(self) -> None:
        """Close everything; nothing is lost that was answered."""
        self.verifying.stop()
        self.pinging.stop()
        await self.api.stop()
        self.checker.close()
        self.resolver.close()
        await self.store.stop()
        self.book.stop()
        self.threads.stop()
        self.spf_threads.stop()
        self.decisions.flush()
        if self.log_file is not None and self.log_file is not self.output:
            self.log_file.close()


def _seat(policy: Policy, options: Any) -> Seat:
    return Seat(policy, options.mode == "shadow", options.on_failure == "accept")
