"""The HTTP API on a real socket, and a client that runs in a thread."""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread

from chapps_tw.config.settings import ConfigError, PolicyConfigAdapter, Settings
from chapps_tw.database.engine import make_engine
from chapps_tw.database.threads import Threads
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.configuration import Change, Loaded, WrongPasscode
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import Record, record_of
from chapps_tw.observe.decision_ring import DecisionRing, Search, SequencedRecord
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.rest.app import API
from chapps_tw.rest.routers.insight import Explained
from chapps_tw.rest.routers.listeners import ListenerState
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import TokenStore
from chapps_tw.state.invalidation import BookCache
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.book_case import DEADLINES
from tests.support.empty_book import copy_empty_book
from tests.support.history import History
from tests.support.servers.common import HANGS

PASSCODE = "open sesame"


async def _nothing_to_compare() -> None:
    """Nothing is cached that is compared with the book."""


async def _nodes() -> list[dict[str, object]]:
    about = {"api": "", "version": "9", "processes": 1, "started": 1790000000.25}
    return [{"name": name, **about, "this": name == "mx1"} for name in ("mx1", "mx2")]


async def _metrics() -> bytes:
    return b"chapps_up 1\n"


class Answer(NamedTuple):
    """A response.

    :ivar headers: names in lower case; values of repeated headers are joined by commas.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def response(self) -> Any:
        return self.json["response"]

    @property
    def detail(self) -> Any:
        return self.json["detail"]


def ask(
    port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, token: str = ""
) -> Answer:
    """Send a request. A body other than bytes is sent as JSON. Blocks."""
    sent = dict(headers or {})
    if token:
        sent.setdefault("Authorization", f"Bearer {token}")
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HANGS)
    try:
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        found: dict[str, str] = {}
        for name, value in response.getheaders():
            name = name.lower()
            found[name] = f"{found[name]}, {value}" if name in found else value
        return Answer(response.status, found, response.read())
    finally:
        connection.close()


def send_raw(port: int, data: bytes, seconds: float = HANGS) -> bytes:
    """Send raw bytes; return what is received until the server closes the connection or times out. Blocks."""
    with socket.create_connection(("127.0.0.1", port), seconds) as connection:
        connection.sendall(data)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
        except (TimeoutError, ConnectionResetError):
            pass
        return found


class Outage:
    """The embedded state, which can be made unavailable.

    :ivar away: whether every operation fails.
    :ivar asked: names of the operations that were called.
    """

    def __init__(self) -> None:
        self.inner = SqliteState(":memory:", time.time, reactor)
        self.away = False
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def ask(*arguments: Any) -> Any:
            self.asked.append(name)
            if self.away:
                raise StateUnavailable("The state store is unavailable.")
            return await method(*arguments)

        return ask

    def stop(self) -> Deferred[None]:
        return self.inner.stop()


class Configuration:
    """A configuration that is not in a file.

    :ivar change: what becomes of reading it again; an exception is raised.
    """

    def __init__(self) -> None:
        self.change: Change | ConfigError = Change("chapps.ini", [], [], self.loaded())

    def loaded(self) -> Loaded:
        return Loaded("0123456789ab", 1.5)

    async def reload(self) -> Change:
        if isinstance(self.change, ConfigError):
            raise self.change
        return self.change

    async def write(self, passcode: str) -> tuple[str, list[str]]:
        if passcode != PASSCODE:
            raise WrongPasscode("The passcode is wrong.")
        return "/etc/chapps/chapps.ini", ["It was edited."]


class Node:
    """The API with the embedded state and a book in an SQLite file.

    :ivar history: empty.
    :ivar explained: the requests to ``/live/explain/``, as listener and attributes.
    :ivar records: the results of explain and decisions.
    :ivar decisions: if set, searched for decisions instead of the records.
    :ivar requests: what the listeners were asked.
    :ivar peers: clients of each listener that was asked, and when each last asked.
    :ivar warnings: of each of these listeners.
    :ivar sent: which record explain returns as the answer.
    :ivar api_ahead: seconds by which the clock of the API is ahead.
    :param state: used instead of an embedded one.
    """

    def __init__(self, settings: Settings | None = None, state: SqliteState | None = None) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.settings = settings or Settings()
        self.tokens = TokenStore(str(Path(self.directory.name, "api-token")))
        self.tokens.make_first()
        self.token = Path(self.directory.name, "api-token").read_text().strip()
        self.state = state or SqliteState(":memory:", time.time, reactor)
        self._threads = Threads(reactor, 4)
        copy_empty_book(Path(self.directory.name, "book.sqlite3"))
        adapter = replace(PolicyConfigAdapter(), db_name="book")
        self.engine = engine = make_engine(adapter, "", self.directory.name, self.settings.chapps.fold_case)
        slices = Slices(reactor)
        cache = BookCache(self.state, _nothing_to_compare)
        # On a busy machine a query may take seconds.
        deadline, bulk_deadline = DEADLINES
        self.book = WritableSqlBook(
            engine, reactor, self._threads.run, deadline=deadline, bulk_deadline=bulk_deadline,
            cache=cache, each=slices.each, now=time.time,
        )  # fmt: skip
        self.history = History(self.directory.name, self._threads.run)
        self.explained: list[tuple[str, Mapping[str, str]]] = []
        within = Decision("DUNNO", Reason.WITHIN_QUOTA, "OutboundQuotaPolicy")
        self.records: list[Record] = [record_of("outbound", "", PolicyRequest({"sender": "a"}), within, 1.5)]
        self.requests = ListenerRequests()
        self.peers: dict[str, float] = {}
        self.warnings: list[str] = []
        self.sent = -1
        self.searched: list[Mapping[str, str]] = []
        self.decisions: DecisionRing | None = None
        self.configuration = Configuration()
        self.api_ahead = 0.0
        self.api = API(
            self.settings, self.state, self.book, self.history.reader, find_token=self.tokens.find,
            explain=self._explain, find=self.find, states=self.states, metrics=_metrics, nodes=_nodes,
            config=self.configuration, now=self._now, reactor=reactor, version="0.0.test", slices=slices,
        )  # fmt: skip
        self._port: Any = None

    def _now(self) -> float:
        return time.time() + self.api_ahead

    @property
    def port(self) -> int:
        return int(self._port.getHost().port)

    def start(self) -> None:
        self._threads.start()
        self.book.start()
        self._port = reactor.listenTCP(0, self.api.site, interface="127.0.0.1")  # type: ignore[arg-type]

    async def stop(self) -> None:
        await self._port.stopListening()
        await self.api.stop()
        await self.book.stop()
        self.history.close()
        self._threads.stop()
        await self.state.stop()
        self.directory.cleanup()

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Deferred[Answer]:
        """Send a request, by default with the first token; ``""`` sends none."""
        more.setdefault("token", self.token)
        return deferToThread(ask, self.port, method, path, body, **more)

    def send_raw(self, data: bytes, seconds: float = HANGS) -> Deferred[bytes]:
        return deferToThread(send_raw, self.port, data, seconds)

    async def _explain(self, listener: str, attributes: Mapping[str, str]) -> Explained:
        if listener == "nowhere":
            raise KeyError(listener)
        self.explained.append((listener, attributes))
        return Explained(self.records[self.sent], self.records)

    def find(self, wanted: Mapping[str, str], after: int | None) -> Search:
        self.searched.append(wanted)
        if self.decisions is not None:
            return self.decisions.search(wanted, after)
        count = len(self.records)
        return Search((SequencedRecord(1, each) for each in self.records), count, 1.5, count)

    def states(self) -> Iterator[ListenerState]:
        for each in self.settings.listeners:
            asked = self.requests.of(each.name)
            peers, warnings = (self.peers, self.warnings) if asked else ({}, [])
            yield ListenerState(each.name, each.listen, each.policies, asked, peers, warnings)
