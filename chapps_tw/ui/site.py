# mypy: allow-untyped-calls
"""The page as a resource: sessions, forms, errors and headers, the same for all views."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from klein import Klein
from klein.resource import KleinResource
from twisted.internet.defer import CancelledError
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from chapps_tw.rest.auth import Gate, header_values
from chapps_tw.rest.calls import Calls
from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routing import Refusal
from chapps_tw.security.tokens import Scope, TokenError
from chapps_tw.ui.rendering import Renderer
from chapps_tw.ui.sessions import Session, Sessions
from chapps_tw.ui.views import Answer, Fields, Goto, Raw, View, Visit, sentences, url

COOKIE = "chapps_session"
HTML = "text/html; charset=utf-8"
# Of a query, and of a form: read in little time, and enough for a thousand ids.
MAX_FORM = 16384

# Nothing from elsewhere, no code or style in the page itself, and nobody else's frame around it.
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    # None for other sites. With no-referrer, browsers would send forms with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_FORM = "application/x-www-form-urlencoded"
# Of Sec-Fetch-Site: requests of this page, and of people who enter an address.
_OWN = {"same-origin", "none"}


class Site:
    """The page.

    :ivar resource: for ``/ui/``.
    :param sessions: those who have logged in.
    :param gate: checks what a session is begun with.
    :param calls: the routes that are behind the views.
    """

    log = Logger()

    def __init__(self, views: Iterable[View], sessions: Sessions, gate: Gate, calls: Calls, renderer: Renderer) -> None:
        self._sessions = sessions
        self._gate = gate
        self._calls = calls
        self._renderer = renderer
        app = Klein()
        for view in views:
            endpoint = f"{view.method} {view.path}"
            app.route(view.path, methods=[view.method], endpoint=endpoint)(self._endpoint(view))
        app.handle_errors(self._failed)
        self.resource = KleinResource(app)

    def load(self, reactor: Any) -> None:
        """Prepare the templates in a thread."""
        loading = deferToThreadPool(reactor, reactor.getThreadPool(), self._renderer.load)
        loading.addErrback(lambda failure: self.log.failure("The templates cannot be prepared", failure))

    def _endpoint(self, view: View) -> Callable[..., Awaitable[bytes]]:
        async def endpoint(request: IRequest) -> bytes:
            for name, value in _HEADERS.items():
                request.setHeader(name, value)
            visit = self._visit(view, request)
            if visit.session is None and not view.open:
                return self._ask_for_token(request)
            answer = await view.handler(visit)
            return await self._send(visit, answer)

        return endpoint

    def _visit(self, view: View, request: IRequest) -> Visit:
        """Return what is asked.

        :raises Refusal: if it may come from another site's page.
        """
        session = self._session(request)
        query, form = _query(request), Fields()
        if view.method == "POST":
            if any(site not in _OWN for site in header_values(request, "sec-fetch-site")):
                raise Refusal(403, "The form was sent from the page of another site.")
            if header_values(request, "content-type")[:1] != [_FORM]:
                raise Refusal(415, f"The body must be {_FORM}.")
            form = _form(request)
            if session is not None and not view.open and not _is_of(session, form):
                raise Refusal(403, "The form is not of this session. Go back, reload the page, and try again.")
        return Visit(request, session, query, form, self._calls)

    def _session(self, request: IRequest) -> Session | None:
        try:
            return self._sessions.find(session_id(request))
        except TokenError:
            raise Refusal(503, "The API tokens cannot be read.") from None

    def _ask_for_token(self, request: IRequest) -> bytes:
        there = request.uri.decode("ascii", "replace") if request.method == b"GET" else ""
        login = url("login", next=there if len(there) < 2000 and there != "/ui/" else "")
        if request.getHeader(b"hx-request"):
            # htmx would show the page of the login in a part of this one.
            request.setHeader("HX-Redirect", url("login"))
            request.setResponseCode(204)
            return b""
        return self._go(request, login)

    async def _send(self, visit: Visit, answer: Answer) -> bytes:
        request = visit.request
        if isinstance(answer, Goto):
            if answer.session is not None:
                _set_cookie(request, answer.session)
            return self._go(request, answer.url)
        if isinstance(answer, Raw):
            for name, value in answer.headers.items():
                request.setHeader(name, value)
            return _finish(request, answer.body, answer.content_type)
        values = {**self._common(request, visit.session), "q": visit.query["q"], **answer.values}
        request.setResponseCode(answer.status)
        return _finish_html(request, await self._renderer.render(answer.template, values))

    def _common(self, request: IRequest, session: Session | None) -> dict[str, Any]:
        """Return what all templates show. Notices are shown once."""
        notices = []
        if session is not None and not request.getHeader(b"hx-request"):
            notices, session.notices = session.notices, []
        scope = session.token.scope if session and session.token else Scope.FULL
        return {
            "may_act": scope.includes(Scope.OPERATOR),
            "may_edit": scope.includes(Scope.FULL),
            "session": session,
            "holder": session.token.name if session and session.token else "",
            "notices": notices,
            "needs_token": self._gate.needs_token,
            "q": "",
            "path": request.path.decode("ascii", "replace"),
        }

    @staticmethod
    def _go(request: IRequest, where: str) -> bytes:
        request.setResponseCode(303)
        request.setHeader("Location", where)
        return b""

    def _failed(self, request: IRequest, failure: Failure) -> bytes:
        """Answer with an error as a page."""
        if isinstance(failure.value, CancelledError):
            return b""
        refusal = refusal_of(failure.value)
        if refusal is None:
            path = request.path.decode("ascii", "replace")
            self.log.failure("HTTP: {path} failed", failure, path=path)
            refusal = Refusal(500, "Internal error: see the log of the service.")
        for name, value in _HEADERS.items():
            request.setHeader(name, value)
        try:
            session = self._session(request)
        except Refusal:
            session = None
        values = {**self._common(request, session), "sentences": sentences(refusal)}
        request.setResponseCode(refusal.status)
        return _finish_html(request, self._renderer.render_small("error.html", values))


def _query(request: IRequest) -> Fields:
    """Return the fields of the query. Raises :class:`Refusal` 400 or 414."""
    query = request.uri.partition(b"?")[2]
    if len(query) > MAX_FORM:
        raise Refusal(414, f"The query exceeds {MAX_FORM} bytes.")
    return Fields(query)


def _form(request: IRequest) -> Fields:
    """Return the fields of a form. Raises :class:`Refusal` 400 or 413."""
    body = request.content.read(MAX_FORM + 1)
    if len(body) > MAX_FORM:
        raise Refusal(413, f"The form exceeds {MAX_FORM} bytes.")
    return Fields(body)


def is_valid(sessions: Sessions, visit: Visit) -> bool:
    """Return whether the session of a visit has not ended. Raises :class:`TokenError`."""
    return sessions.find(session_id(visit.request)) is visit.session


def _is_of(session: Session, form: Fields) -> bool:
    return hmac.compare_digest(form["csrf"].encode(), session.csrf.encode())


def session_id(request: IRequest) -> str:
    """Return the id of the session that a request names; ``""`` if it names none."""
    # Not by http.cookies: what a stranger sends may take it a minute.
    return (request.getCookie(COOKIE.encode()) or b"").decode("latin-1")


def _set_cookie(request: IRequest, id: str) -> None:
    """Set the cookie of a session, or remove it if the id is empty."""
    # A proxy may end TLS. If it says so wrongly, the browser sends no cookie, and nobody else gets one.
    secure = request.isSecure() or request.getHeader(b"x-forwarded-proto") == b"https"
    parts = [f"{COOKIE}={id}", "Path=/ui", "HttpOnly", "SameSite=Strict"]
    parts += ["Secure"] if secure else []
    parts += [] if id else ["Max-Age=0"]
    request.responseHeaders.addRawHeader("Set-Cookie", "; ".join(parts))


def _finish_html(request: IRequest, text: str) -> bytes:
    # A lone surrogate, of a byte that is not UTF-8, is not allowed in HTML.
    return _finish(request, text.encode("utf-8", "replace"), HTML)


def _finish(request: IRequest, body: bytes, content_type: str) -> bytes:
    request.setHeader("Content-Type", content_type)
    request.setHeader("Content-Length", str(len(body)))
    return body
