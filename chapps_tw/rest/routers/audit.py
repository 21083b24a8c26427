"""Events, and the audit trail: who changed what.

Changes of the live state are recorded here, those of the book by the book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from twisted.logger import Logger

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.events import EventsWanted
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest import rule_answers as r
from chapps_tw.rest.author import AUTHOR
from chapps_tw.rest.models import rules as m
from chapps_tw.rest.models.base import Input
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routing import Raw, Reply, Route
from chapps_tw.rest.slices import Slices

_LIVE = "/live/"
# What may never be recorded.
_SECRET = {"passcode"}
# Of a list in a record.
_IDS = 20
_NOTE = (
    "Every change of the book and of the live state is recorded, with the name of the token that made it, and kept for "
    "`audit_days`. For the next page, set `before` to the last id."
)
_EVENTS_NOTE = (
    "Limits that were almost reached, or reached; suspensions, raises and exemptions; dependencies that were away or "
    "are back; starts and stops of nodes; configurations; notices that were given up. What several nodes notice is one "
    "event. They are kept for `audit_days`, at most the last 100,000. For the next page, set `before` to the last id."
)
_UNRECORDED = "This is done, but not in the audit trail: the database is unavailable."

_log = Logger()


def routes(book: WritableBook, slices: Slices, now: Callable[[], float]) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param slices: for long lists.
    :param now: epoch seconds.
    """

    def times_of(wanted: m.AuditFilter | m.EventFilter) -> tuple[float, float]:
        """Return the first time, and the time before which they are; to the book, 0 means no filter."""
        since = wanted.since.ago(now()) if wanted.since else 0.0
        return since, max(1.0, wanted.until.ago(now())) if wanted.until else 0.0

    async def listed(wanted: m.AuditFilter) -> Reply:
        times = times_of(wanted)
        records = await book.audit(wanted.author, wanted.kind, wanted.name, *times, wanted.before, wanted.limit)
        return Reply(await slices.collect(with_iso(record._asdict(), "at") for record in records))

    async def happened(wanted: m.EventFilter) -> Reply:
        kinds = (wanted.kind,) if wanted.kind else ()
        times = times_of(wanted)
        found = await book.events(EventsWanted(kinds, wanted.name, wanted.node, *times, wanted.before, 0, wanted.limit))
        return Reply(await slices.collect(with_iso(event._asdict(), "at") for event in found))

    yield Route(
        "GET", "/events/", "List events, newest first", happened, m.EventFilter, r.EventTrail, tag="audit",
        note=_EVENTS_NOTE,
    )  # fmt: skip
    yield Route(
        "GET", "/audit/", "List changes, newest first", listed, m.AuditFilter, r.AuditTrail, tag="audit", note=_NOTE
    )


def recorded(routes: Iterable[Route[Any]], book: WritableBook) -> Iterator[Route[Any]]:
    """Return routes, of which those that change the live state also record this in the audit trail."""
    for route in routes:
        yield _recorded(route, book) if route.changes and route.path.startswith(_LIVE) else route


def _recorded(route: Route[Any], book: WritableBook) -> Route[Any]:
    action = route.method.lower()
    kind = route.path.partition("{")[0].strip("/")

    async def handler(values: Input) -> Reply | Raw:
        reply = await route.handler(values)
        request = values.model_dump(exclude=_SECRET)
        try:
            await book.add_to_audit(AUTHOR.get(), action, kind, await _name(request, book), after=_shortened(request))
        except BookUnavailable as error:
            _log.warn("HTTP: a change of {kind} is not in the audit trail: {why}", kind=kind, why=str(error))
            return reply._replace(remarks=[*reply.remarks, _UNRECORDED]) if isinstance(reply, Reply) else reply
        return reply

    return replace(route, handler=handler)


def _shortened(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request with the first of many ids, and their number."""
    shortened: dict[str, Any] = {}
    for field, value in request.items():
        is_long = isinstance(value, list) and len(value) > _IDS
        shortened |= {field: value[:_IDS], f"{field}_total": len(value)} if is_long else {field: value}
    return shortened


async def _name(request: dict[str, Any], book: WritableBook) -> str:
    """Return what a request names: its texts, or the name of its user."""
    texts = [value for value in request.values() if isinstance(value, str) and value]
    if texts or not isinstance(request.get("user_id"), int):
        return " ".join(texts)
    users = await book.by_ids("users", [request["user_id"]])
    return users[0].name if users else ""
