"""The searches of the history, the events and the audit trail. Each has an address to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from chapps_tw.interfaces.events import KINDS
from chapps_tw.rest.moments import iso
from chapps_tw.rest.refusals import refusal_of
from chapps_tw.rest.routing import Refusal, Reply
from chapps_tw.ui.sentences import Teller
from chapps_tw.ui.views import Answer, Html, View, Visit, sentences, url

SHOWN = 50

_HISTORY = (
    "user", "sender", "recipient", "client", "queue_id", "instance", "reason", "action", "policy", "listener", "node",
    "since", "until",
)  # fmt: skip
_TIMES = ("begin", "until", "created")
_EVENTS = ("kind", "name", "node", "since", "until")
_AUDIT = ("author", "kind", "name", "since", "until")


class Searches:
    """The views of these searches."""

    def __init__(self, teller: Teller) -> None:
        self._teller = teller

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui/history", self.history)
        yield View("GET", "/ui/events", self.events)
        yield View("GET", "/ui/audit", self.audit)

    async def history(self, visit: Visit) -> Answer:
        asked = _asked(visit, *_HISTORY, "before")
        more: dict[str, Any] = {"refused": True} if visit.query["refused"] else {}
        reply, problems, status = await _try(visit, "/history/", **asked, **more)
        told = [self._teller.tell(each) for each in reply.response]
        link = {name: value for name, value in asked.items() if name != "before"} | ({"refused": "1"} if more else {})
        older = reply.beside.get("next")
        values = {
            "asked": {name: visit.query[name] for name in (*_HISTORY, "refused")},
            "found": told,
            "older": url("history", **link, before=older) if older else "",
            "link": url("history", **link),
            "remarks": reply.remarks,
            "problems": problems,
        }
        return Html("history.html", values, status)

    async def events(self, visit: Visit) -> Answer:
        values, status = await _listed(visit, "events", _EVENTS)
        return Html("events.html", {**values, "kinds": KINDS}, status)

    async def audit(self, visit: Visit) -> Answer:
        values, status = await _listed(visit, "audit", _AUDIT)
        found = [{**each, "changes": _changes(each)} for each in values["found"]]
        return Html("audit.html", {**values, "found": found}, status)


def _asked(visit: Visit, *names: str) -> dict[str, str]:
    return {name: visit.query[name] for name in names if visit.query[name]}


async def _listed(visit: Visit, what: str, fields: Sequence[str]) -> tuple[dict[str, Any], int]:
    """Return the values for a page of events or of the audit trail, and the HTTP status.

    :param fields: those that are searched by.
    """
    asked = _asked(visit, *fields)
    reply, problems, status = await _try(visit, f"/{what}/", **asked, before=visit.query.whole("before", 0))
    rows = reply.response
    values = {
        "asked": {name: visit.query[name] for name in fields},
        "found": rows,
        "older": url(what, **asked, before=rows[-1]["id"]) if len(rows) == SHOWN else "",
        "link": url(what, **asked),
        "problems": problems,
    }
    return values, status


async def _try(visit: Visit, path: str, **asked: Any) -> tuple[Reply, list[str], int]:
    """Return what a search finds, what is wrong with it, and the status."""
    try:
        return await visit.call("GET", path, **asked, limit=SHOWN), [], 200
    except Exception as error:
        refusal: Refusal | None = refusal_of(error)
        if refusal is None:
            raise
        return Reply([]), sentences(refusal), refusal.status


def _changes(record: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the fields that were changed, as they were before and after; not those that were and are empty."""
    before, after = record["before"] or {}, record["after"] or {}
    found = [(name, _text(name, before.get(name)), _text(name, after.get(name))) for name in {**before, **after}]
    return [each for each in found if each[1] or each[2]]


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if name in _TIMES and isinstance(value, int | float):
        return iso(value) or ""
    return str(value)
