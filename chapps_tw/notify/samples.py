"""What templates show, as examples: mistakes in templates are found before a mail is sent."""

from __future__ import annotations

from collections.abc import Iterator

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.events import KeptEvent
from chapps_tw.notify.facts import Values, moment, values_of, values_of_kept
from chapps_tw.notify.templates import Templates
from chapps_tw.policies.events import EventKind, LimitEvent

_TIME = 1790000000.0


def template_problems(options: Notify) -> Iterator[str]:
    """Yield what is wrong with the templates."""
    return Templates(options.templates).problems(dict(_samples(options)))


def _samples(options: Notify) -> Iterator[tuple[str, Values]]:
    for kind in EventKind:
        event = LimitEvent(kind, "oqp", "alice@example.com", "hour", "user", 45, 50, 3600.0, _TIME, "messages")
        for channel in ("user", "admin"):
            yield f"{channel}_{kind}", values_of(event, _TIME + 600, options, "mx1")
    time = moment(_TIME)
    kept = values_of_kept(KeptEvent(1, _TIME, "suspended", "mx1", "desk", "alice@example.com", "password stolen", {}))
    yield "admin_event", kept
    yield "admin_digest", {"events": [kept, values_of(event, 0.0, options, "mx1")]}
    yield "admin_test", {"at": time, "node": "mx1"}
    sender = {"key": "alice@example.com", "decisions": 5, "refused": 1, "recipients": 3}
    limit = {"account": "alice@example.com", "used": 50, "amount": 50, "limit": "hour", "level": "user", "at": time}
    suspended = {"name": "alice@example.com", "until": time, "reason": "hacked", "author": "desk"}
    lists = {"senders": [sender], "reasons": [sender], "limits": [limit], "suspended": [suspended]}
    yield "admin_daily_report", {"node": "mx1", "since": time, "until": time, **lists}
