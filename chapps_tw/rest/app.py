# mypy: allow-untyped-calls
"""The HTTP API: one Klein application, made from a table of routes."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeVar

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from werkzeug.routing import BaseConverter

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.configuration import Configuration, WrongPasscode
from chapps_tw.interfaces.history import History
from chapps_tw.interfaces.notify import Notifier
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.mail.decision import Reason, ReasonCode
from chapps_tw.rest import openapi
from chapps_tw.rest.auth import Gate, header_values
from chapps_tw.rest.author import AUTHOR
from chapps_tw.rest.calls import Calls, to_the_end
from chapps_tw.rest.moments import iso
from chapps_tw.rest.reading import read_input
from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routers import (
    audit,
    configuration,
    exemptions,
    importing,
    limits,
    links,
    listeners,
    live,
    notify,
    overrides,
    users,
)
from chapps_tw.rest.routers import book as crud
from chapps_tw.rest.routers import history as kept
from chapps_tw.rest.routers.docs import Docs
from chapps_tw.rest.routers.insight import Check, Explain, Find, Health, Insight
from chapps_tw.rest.routers.live_users import LiveUsers
from chapps_tw.rest.routers.near import NearLimits
from chapps_tw.rest.routers.nodes import List as Nodes
from chapps_tw.rest.routers.nodes import routes as nodes_routes
from chapps_tw.rest.routing import JSON, MAX_BODY, Raw, Refusal, Reply, Route
from chapps_tw.rest.server import BoundedSite, error_body
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Token

# Values that are encoded in one step, those in lists and objects included.
BATCH = 500
# The path of the page for people.
PAGE = "/ui/"
# Bytes of a body that is read in a turn of its own.
LARGE = 65536

T = TypeVar("T")


class API:
    """The application. :attr:`site` is the factory to listen with.

    :ivar gate: checks who may call.
    :ivar calls: calls the routes from within the process.
    :param find_token: returns what is stored of a token, ``None`` if it is unknown. Not used with
        ``[API] auth = none``.
    :param explain, find, metrics: as for :class:`~chapps_tw.rest.routers.insight.Insight`.
    :param config: the configuration, to be read again and written.
    :param now: epoch seconds.
    :param reactor: for delays and timeouts, and threads for long work.
    :param notifier: returns what sends notices; ``None`` if none are configured.
    :param checks: the checks of ``/ready``, by part; ``state`` and ``database`` replace the pings of these parts.
    :param states: what each listener was asked.
    :param slices: for long work in the reactor.
    :param nodes: lists the nodes that share the state.
    :param reasons: the reasons of decisions, for the document.
    """

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        book: WritableBook,
        history: History,
        *,
        find_token: Callable[[str], Token | None],
        explain: Explain,
        find: Find,
        states: listeners.States,
        metrics: Callable[[], Awaitable[bytes]],
        config: Configuration,
        now: Callable[[], float],
        reactor: Any,
        version: str,
        slices: Slices,
        nodes: Nodes,
        notifier: Callable[[], Notifier | None] = lambda: None,
        checks: Mapping[str, Check] | None = None,
        reasons: Iterable[ReasonCode] = Reason,
    ) -> None:
        self._now = now
        self._reactor = reactor
        self._version = version
        self._log = Logger()
        self._slices = slices
        self._find_token = find_token
        self.gate = Gate(settings.api.hosts, self._tokens(settings), reactor, self._sleep, settings.api.open_ready)
        checks = {"state": state.ping, "database": book.ping, **(checks or {})}

        def routes(settings: Settings) -> Iterator[Route[Any]]:
            live_users = LiveUsers(settings, state, book, now)
            near = NearLimits(settings, live_users, state, slices, now)
            yield from Health(checks, reactor, config.loaded).routes()
            yield from _book_routes(settings, book, near, slices, now)
            yield from live.routes(settings, live_users, state, book, slices, now)
            yield from kept.routes(history, slices, now, settings.chapps.fold_case)
            yield from notify.routes(notifier)
            yield from listeners.routes(states)
            yield from nodes_routes(nodes)
            yield from Insight(explain, find, metrics, settings.chapps.payload_encoding, slices).routes()
            yield from configuration.routes(config)
            yield Route("GET", "/openapi.json", "This document", self._openapi, browser=True, tag="documentation")
            yield from Docs().routes()

        self._make_routes = lambda settings: list(audit.recorded(routes(settings), book))
        self.routes = self._make_routes(settings)
        self.calls = Calls(self.routes)
        self._document = openapi.Document(self.routes, version, reasons)
        self.app = self._klein()
        self._root = _Root(self.app, self.gate)
        large = {each.rule.encode(): each.max_body for each in self.routes if each.max_body > MAX_BODY}
        self.site = BoundedSite(self._root, reactor, slices.pause, large_bodies=large)

    def use(self, settings: Settings) -> None:
        """Apply other settings from the next request on."""
        api = settings.api
        self.gate.use(api.hosts, self._tokens(settings), api.open_ready)
        self.calls.use(self._make_routes(settings))

    def _tokens(self, settings: Settings) -> Callable[[str], Token | None] | None:
        return self._find_token if settings.api.auth == "token" else None

    def add_page(self, page: IResource) -> None:
        """Serve a page for people at :data:`PAGE`; browsers that ask for ``/`` are sent there."""
        self._root.page = page

    async def stop(self) -> None:
        """Answer the complete requests, close all connections, and stop all timers."""
        await self.site.stop()
        self.gate.stop()

    def _klein(self) -> Klein:
        app = Klein()
        app.url_map.merge_slashes = False
        app.url_map.converters = {**app.url_map.converters, "id": _Id}
        for route in self.routes:
            app.route(route.rule, methods=[route.method], endpoint=openapi.operation_id(route))(self._endpoint(route))
        app.handle_errors(self._failed)
        return app

    def _endpoint(self, route: Route[Any]) -> Callable[..., Awaitable[bytes]]:
        place = route.method, route.path

        async def endpoint(request: IRequest, **path: str) -> bytes:
            return await self._serve(self.calls[place], request, path)

        return endpoint

    async def _serve(self, route: Route[Any], request: IRequest, path: Mapping[str, str]) -> bytes:
        AUTHOR.set(await self.gate.check_token(request, route))
        content_type = next(iter(header_values(request, "content-type")), None)
        query = request.uri.partition(b"?")[2]
        body = request.content.read()
        if len(body) > LARGE:
            # Receiving it has used up this turn.
            await self._slices.pause()
        values = read_input(route, path, query, body, content_type)
        handled = route.handler(values)
        try:
            reply = await (to_the_end(handled, partial(self._log_unreported, request)) if route.changes else handled)
        except WrongPasscode as error:
            await self.gate.punish(request, "passcode")
            raise Refusal(401, str(error), {"WWW-Authenticate": ['Bearer realm="chapps"']}) from None
        if isinstance(reply, Raw):
            return _raw(request, reply)
        request.setResponseCode(reply.status or route.status)
        for name, value in reply.headers.items():
            request.setHeader(name, value)
        return _finish(request, await self._encode(reply))

    def _log_unreported(self, request: IRequest, failure: Failure) -> None:
        text = "HTTP: {method} {path} failed after its client had disconnected"
        refusal = refusal_of(failure.value)
        if refusal is None:
            self._log.failure(text, failure, **_about(request))
        else:
            self._log.warn(text + ": {why}", why=refusal.detail, **_about(request))

    async def _encode(self, reply: Reply) -> bytes:
        """Encode the envelope as JSON."""
        now = self._now()
        about = {
            "version": f"CHAPPS-TW v{self._version}",
            "timestamp": now,
            "timestamp_iso": iso(now),
            **reply.beside,
            "remarks": list(reply.remarks),
        }
        return b"".join(await self._slices.collect(_encoded({**about, "response": reply.response})))

    async def _sleep(self, seconds: float) -> None:
        await deferLater(self._reactor, seconds)

    async def _openapi(self, _: Any) -> Raw:
        made = self._document.made
        return Raw(made or await self._in_thread(self._document.make), JSON)

    def _in_thread(self, work: Callable[[], T]) -> Deferred[T]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), work)

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with an error as JSON."""
        if isinstance(failure.value, CancelledError):
            return b""
        refusal = refusal_of(failure.value)
        if refusal is None:
            self._log.failure("HTTP: {method} {path} failed", failure, **_about(request))
            refusal = Refusal(500, "Internal error.")
        return refuse(request, refusal)


def _book_routes(
    settings: Settings, book: WritableBook, near: NearLimits, slices: Slices, now: Callable[[], float]
) -> Iterator[Route[Any]]:
    """Yield the routes of the book. Long lists are made one after the other."""
    list_lock = DeferredLock()
    yield from users.routes(settings, book, near, list_lock, slices)
    yield from crud.routes(book, list_lock, slices)
    yield from links.routes(book, list_lock, slices)
    yield from limits.routes(book, list_lock, slices)
    yield from overrides.routes(book, list_lock, slices, now)
    yield from exemptions.routes(book, list_lock, slices, now)
    yield from importing.routes(book)
    yield from audit.routes(book, slices, now)


class _Id(BaseConverter):
    """An id in a path: any text but the names of other routes."""

    regex = "(?!(?:quotas|domains|emails|by-name)(?:/|$))[^/]+"


class _Root(KleinResource):
    """The application and the page for people, with the checks that precede routing.

    :ivar page: ``None`` if there is none.
    """

    def __init__(self, app: Klein, gate: Gate) -> None:
        super().__init__(app)
        self._gate = gate
        self.page: IResource | None = None

    def render(self, request: IRequest) -> Any:
        request.responseHeaders.removeHeader("server")
        request.setHeader("X-Content-Type-Options", "nosniff")
        request.setHeader("Cache-Control", "no-store")
        try:
            self._gate.check_origin(request)
        except Refusal as refusal:
            return refuse(request, refusal)
        if self.page is not None and f"{request.path.decode('ascii')}/".startswith(PAGE):
            return self.page.render(request)
        if self.page is not None and request.path == b"/" and _is_browser(request):
            request.setResponseCode(303)
            request.setHeader("Location", PAGE)
            return b""
        return super().render(request)


def _is_browser(request: IRequest) -> bool:
    return request.method in (b"GET", b"HEAD") and any("text/html" in each for each in header_values(request, "accept"))


def refuse(request: IRequest, refusal: Refusal) -> bytes:
    """Set up an error answer; return the body."""
    request.setResponseCode(refusal.status)
    for name, values in refusal.headers.items():
        request.responseHeaders.setRawHeaders(name, list(values))
    return _finish(request, error_body(refusal.detail, **refusal.beside))


def _about(request: IRequest) -> dict[str, Any]:
    """Return method and path for the log, without the query, which may be long."""
    path = request.uri.partition(b"?")[0].decode("ascii", "replace")
    return {"method": request.method.decode("ascii"), "path": path}


def _raw(request: IRequest, raw: Raw) -> bytes:
    for name, value in raw.headers.items():
        request.setHeader(name, value)
    return _finish(request, raw.body, raw.content_type)


def _finish(request: IRequest, body: bytes, content_type: str = JSON) -> bytes:
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace")


def _encoded(envelope: Mapping[str, Any]) -> Iterator[bytes]:
    """Yield an envelope as JSON, in parts that each take little time to encode."""
    before = b"{"
    for name, value in envelope.items():
        yield before + _json(name) + b": "
        before = b", "
        yield from _parts(value)
    yield b"}\n"


def _parts(value: Any) -> Iterator[bytes]:
    """Yield a value as JSON. Lists and objects of many values are split."""
    if not isinstance(value, dict | list):
        yield _json(value)
        return
    is_object = isinstance(value, dict)
    empty = _json(type(value)())
    before = empty[:1]
    for batch in _batches(value.items() if isinstance(value, dict) else enumerate(value)):
        name, first = batch[0]
        if _size(first) > BATCH:
            yield before + (_json(name) + b": " if is_object else b"")
            yield from _parts(first)
        else:
            yield before + _json(dict(batch) if is_object else [entry for _, entry in batch])[1:-1]
        before = b", "
    yield empty[1:] if value else empty


def _batches(entries: Iterable[tuple[Any, Any]]) -> Iterator[list[tuple[Any, Any]]]:
    """Yield entries in batches of at most ``BATCH`` values, one of more values by itself."""
    batch: list[tuple[Any, Any]] = []
    room = BATCH
    for entry in entries:
        size = _size(entry[1])
        if batch and size > room:
            yield batch
            batch, room = [], BATCH
        batch.append(entry)
        room -= size
    if batch:
        yield batch


def _size(value: Any) -> int:
    """Return the number of values in a value, itself included; if there are more than ``BATCH``, a number above it."""
    size, left = 0, [value]
    while left and size <= BATCH:
        each = left.pop()
        size += 1
        if isinstance(each, dict | list):
            if len(each) > BATCH:
                return BATCH + 1
            left.extend(each.values() if isinstance(each, dict) else each)
    return size
