"""Events, in the audit trail: each is a record of its own, except changes of rules, which have one anyway."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select

from chapps_tw.database.audit import MAX_RECORDS, Trail, as_stored
from chapps_tw.database.models import MAX_INTEGER
from chapps_tw.database.models import audit as table
from chapps_tw.database.transaction import lock
from chapps_tw.interfaces.events import (
    AWAY,
    BACK,
    LIMIT_EVENTS,
    RULE_EVENTS,
    SERVICE_EVENTS,
    Event,
    EventsWanted,
    KeptEvent,
)

EVENT: Final = "event"
"""The action of records that are events. Their author is the node."""

MAX_EVENTS: Final = 100_000
"""The most events that are kept, besides changes of rules."""

_RECORDED: Final = (*LIMIT_EVENTS, *SERVICE_EVENTS)
# Seconds for which a dependency counts as away without news.
_FORGOTTEN: Final = 86400.0
_MAX_DETAIL: Final = 500

# As in the JSON of a record. Inside a text, the quotes would be escaped.
_SUSPENDED: Final = '"kind": "suspended"'

Condition = ColumnElement[bool]


def add(connection: Connection, node: str, events: Sequence[Event]) -> None:
    """Add events. That a dependency is away, or back, is added by the first node that notices it."""
    if any(event.kind in (AWAY, BACK) for event in events):
        # Another node may be adding the same.
        lock(connection)
    for event in events:
        if _is_new(connection, event):
            fields = {"detail": event.detail[:_MAX_DETAIL], **event.figures}
            Trail(connection, node, event.at).add(EVENT, event.kind, None, event.name, None, fields)


def _is_new(connection: Connection, event: Event) -> bool:
    if event.kind not in (AWAY, BACK):
        return True
    before = select(table.c.kind, table.c.at).where(
        table.c.action == EVENT, table.c.name == event.name, table.c.kind.in_((AWAY, BACK))
    )
    last = connection.execute(before.order_by(table.c.id.desc()).limit(1)).first()
    is_away = last is not None and last.kind == AWAY and event.at - last.at < _FORGOTTEN
    return is_away if event.kind == BACK else not is_away


def read(connection: Connection, wanted: EventsWanted) -> list[KeptEvent]:
    """Return events, newest first, at most 1,000."""
    most = max(0, min(wanted.limit, MAX_RECORDS))
    query = select(table).where(*_conditions(wanted)).order_by(table.c.id.desc()).limit(most)
    return [_event(row) for row in connection.execute(query).mappings()]


def _conditions(wanted: EventsWanted) -> Iterator[Condition]:
    kinds = wanted.kinds or (*_RECORDED, *RULE_EVENTS)
    recorded = [kind for kind in kinds if kind in _RECORDED]
    changes = [_OF_RULES[kind] for kind in kinds if kind in _OF_RULES]
    # For the index.
    yield table.c.kind.in_([*recorded, *(("overrides", "exemptions") if changes else ())])
    yield or_(and_(table.c.action == EVENT, table.c.kind.in_(recorded)), *changes)
    if wanted.name:
        yield table.c.name == as_stored(wanted.name)
    if wanted.node:
        yield and_(table.c.action == EVENT, table.c.author == as_stored(wanted.node))
    if wanted.since:
        yield table.c.at >= wanted.since
    if wanted.until:
        yield table.c.at < wanted.until
    if wanted.before:
        yield table.c.id < min(wanted.before, MAX_INTEGER)
    if wanted.after:
        yield table.c.id > min(wanted.after, MAX_INTEGER)


def _changes(kind: str, *actions: str) -> Condition:
    return and_(table.c.kind == kind, table.c.action.in_(actions))


_MADE: Final = ("create", "update")
_ENDED_RULE: Final = or_(
    and_(_changes("overrides", "delete"), table.c.before.not_like(f"%{_SUSPENDED}%")), _changes("exemptions", "delete")
)
_OF_RULES: Final[Mapping[str, Condition]] = {
    "suspended": and_(_changes("overrides", *_MADE), table.c.after.like(f"%{_SUSPENDED}%")),
    "raised": and_(_changes("overrides", *_MADE), table.c.after.not_like(f"%{_SUSPENDED}%")),
    "released": and_(_changes("overrides", "delete"), table.c.before.like(f"%{_SUSPENDED}%")),
    "exempted": _changes("exemptions", *_MADE),
    "ended": _ENDED_RULE,
}


def _event(row: Mapping[Any, Any]) -> KeptEvent:
    before, after = (json.loads(row[name] or "{}") for name in ("before", "after"))
    if row["action"] == EVENT:
        detail = str(after.pop("detail", ""))
        return KeptEvent(row["id"], row["at"], row["kind"], row["author"], "", row["name"], detail, after)
    is_deleted = row["action"] == "delete"
    rule = before if is_deleted else after
    kind = _kind_of(row["kind"], rule, is_deleted)
    return KeptEvent(row["id"], row["at"], kind, "", row["author"], row["name"], _detail_of(rule), {})


def _kind_of(kind: str, rule: Mapping[str, Any], is_deleted: bool) -> str:
    if kind == "overrides" and rule.get("kind") == "suspended":
        return "released" if is_deleted else "suspended"
    if is_deleted:
        return "ended"
    return "raised" if kind == "overrides" else "exempted"


def _detail_of(rule: Mapping[str, Any]) -> str:
    """Return what a rule says, in words."""
    if "until" not in rule:
        return ""
    until = datetime.fromtimestamp(rule["until"], UTC).isoformat(timespec="seconds")
    what = f"from {rule['scope']} " if "scope" in rule else f"{rule['value']} more " if rule.get("value") else ""
    return f"{what}until {until}" + (f": {rule['reason']}" if rule.get("reason") else "")


def prune(connection: Connection) -> int:
    """Delete the oldest events beyond :data:`MAX_EVENTS`, at most 1,000; return how many were deleted."""
    ours = (table.c.action == EVENT, table.c.kind.in_(_RECORDED))
    newest = select(table.c.id).where(*ours).order_by(table.c.id.desc())
    last = connection.scalar(newest.offset(MAX_EVENTS).limit(1))
    if last is None:
        return 0
    ids = list(connection.scalars(select(table.c.id).where(*ours, table.c.id <= last).limit(MAX_RECORDS)))
    connection.execute(delete(table).where(table.c.id.in_(ids)))
    return len(ids)
