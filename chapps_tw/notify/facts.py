"""What a notice says: the values that templates and the webhook show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.events import KeptEvent
from chapps_tw.interfaces.state import Account, LiveState, StateUnavailable, Unit, Window
from chapps_tw.mail.decision import in_words
from chapps_tw.notify.notice import Notice, account_of, address_of, kept_event_of
from chapps_tw.policies.events import LimitEvent, event_of

Values = Mapping[str, Any]

# What mails alone show.
_OF_MAIL = frozenset(("to", "units", "period", "contact"))
_UNITS = {Unit.DISTINCT_RECIPIENTS: "different recipients"}


class Facts:
    """Finds out what notices say.

    :param node: name of this node.
    """

    def __init__(self, options: Notify, state: LiveState, node: str) -> None:
        self._options = options
        self._state = state
        self._node = node

    async def of(self, notices: Sequence[Notice]) -> dict[Notice, Values]:
        """Return what notices of events say. Notices of other versions, in another form, are missing."""
        kept = {each: event for each in notices if (event := kept_event_of(each.content)) is not None}
        return {
            **{each: values_of_kept(event) for each, event in kept.items()},
            **await self._of_limits([each for each in notices if each not in kept]),
        }

    async def _of_limits(self, notices: Sequence[Notice]) -> dict[Notice, Values]:
        events = {notice: event for notice in notices if (event := event_of(notice.content)) is not None}
        rooms = await self._rooms(list(events.values()))
        found = zip(events.items(), rooms, strict=True)
        return {notice: values_of(event, room, self._options, self._node) for (notice, event), room in found}

    def of_test(self, notice: Notice) -> Values:
        """Return what a test says."""
        return {"at": moment(notice.created), "node": self._node}

    async def _rooms(self, events: Sequence[LimitEvent]) -> list[float]:
        """Return when the first message that each limit counts leaves its window, in epoch seconds; 0.0 if unknown."""
        known = [event for event in events if event.unit in list(Unit)]
        windows = [Window(Account(each.space, each.account), Unit(each.unit), each.window) for each in known]
        found = dict[LimitEvent, float]()
        if windows:
            with suppress(StateUnavailable):
                for event, usage in zip(known, await self._state.usage(windows), strict=True):
                    found[event] = usage.oldest + event.window if usage.oldest else 0.0
        return [found.get(event, 0.0) for event in events]


def values_of(event: LimitEvent, room: float, options: Notify, node: str) -> Values:
    """Return what a notice of an event says.

    :param room: when there is room again, in epoch seconds; 0.0 if unknown.
    """
    unit = Unit(event.unit) if event.unit in list(Unit) else Unit.MESSAGES
    return {
        "kind": event.kind,
        "account": clean(account_of(event)),
        "to": address_of(event, options.user_domain),
        "limit": clean(event.limit),
        "level": event.level,
        "unit": str(unit),
        "units": _UNITS.get(unit, str(unit)),
        "used": event.used,
        "amount": event.amount,
        "left": max(0, event.amount - event.used),
        "percent": 100 * event.used // event.amount if event.amount else 100,
        "window": event.window,
        "period": in_words(int(event.window)),
        "at": moment(event.at),
        "room_at": moment(room) if room else None,
        "contact": clean(options.contact),
        "node": node,
    }


def values_of_kept(event: KeptEvent) -> Values:
    """Return what a notice of an event says that is no limit's."""
    texts = {name: clean(getattr(event, name)) for name in ("name", "detail", "author", "node")}
    return {"kind": event.kind, "at": moment(event.at), **texts}


def told(values: Values) -> Values:
    """Return what the webhook is told: times as ISO 8601."""
    return {name: _told(value) for name, value in values.items() if name not in _OF_MAIL}


def _told(value: object) -> object:
    return value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value


def moment(seconds: float) -> datetime:
    """Return a time in the time zone of the host.

    :param seconds: epoch seconds.
    """
    return datetime.fromtimestamp(seconds).astimezone()


def clean(text: str) -> str:
    """Return a text without characters that cannot be shown or sent."""
    return "".join(each if each.isprintable() else "?" for each in text)
