"""Logging in with a token, and out."""

from __future__ import annotations

from collections.abc import Iterator

from chapps_tw.rest.auth import Gate
from chapps_tw.rest.routing import Refusal
from chapps_tw.ui.sessions import Sessions
from chapps_tw.ui.site import session_id
from chapps_tw.ui.views import Answer, Goto, Html, View, Visit, sentences, url


class Login:
    """The views that begin and end sessions."""

    def __init__(self, gate: Gate, sessions: Sessions) -> None:
        self._gate = gate
        self._sessions = sessions

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui/login", self.show, open=True)
        yield View("POST", "/ui/login", self.begin, open=True)
        yield View("POST", "/ui/logout", self.end)

    async def show(self, visit: Visit) -> Answer:
        if visit.session is not None:
            return Goto(_there(visit.query["next"]))
        return Html("login.html", {"next": visit.query["next"], "problems": []})

    async def begin(self, visit: Visit) -> Answer:
        try:
            token = await self._gate.identify(visit.request, visit.form["token"]) if self._gate.needs_token else None
        except Refusal as refusal:
            status = 403 if refusal.status == 401 else refusal.status
            return Html("login.html", {"next": visit.form["next"], "problems": sentences(refusal)}, status)
        self._sessions.end(session_id(visit.request))
        return Goto(_there(visit.form["next"]), self._sessions.begin(token))

    async def end(self, visit: Visit) -> Answer:
        self._sessions.end(session_id(visit.request))
        return Goto(url("login"), "")


def _there(wanted: str) -> str:
    """Return where to go after a login: a view of this page."""
    return wanted if wanted.startswith("/ui/") and wanted.isascii() and wanted.isprintable() else url("")
