"""Events near a limit: who is told that a limit is almost reached, or reached."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Any, Final, NamedTuple

from chapps_tw.interfaces.state import Charge, LiveState, StateUnavailable
from chapps_tw.mail.memo import Memo

MAX_EVENTS: Final = 1000
"""The state keeps at least so many events."""

# Size of the memory of events, in bytes.
_CACHE_BYTES = 4 << 20

# An event has at most 2,000 characters in the state, and a character of a name up to 12 in JSON.
_MAX_JSON, _MAX_ACCOUNT, _MAX_LIMIT = 800, 60, 64


class EventKind(StrEnum):
    """``NEAR_LIMIT``: ``warn_at`` percent of the limit are used. ``AT_LIMIT``: all of it."""

    NEAR_LIMIT = "near_limit"
    AT_LIMIT = "at_limit"


class LimitEvent(NamedTuple):
    """An event.

    :ivar space, account: what is counted together: :class:`~chapps_tw.interfaces.state.Account`. An account that is too
        long is cut, and ends with an ellipsis.
    :ivar limit: name of the limit.
    :ivar level: whose limit it is.
    :ivar used, amount: of the limit, in its unit.
    :ivar window: seconds.
    :ivar at: epoch seconds.
    :ivar unit: what the limit counts: a :class:`~chapps_tw.interfaces.state.Unit`; ``""`` in events of older versions.
    """

    kind: str
    space: str
    account: str
    limit: str
    level: str
    used: int
    amount: int
    window: float
    at: float
    unit: str = ""


def event_of(text: str) -> LimitEvent | None:
    """Return an event of the list in the state; ``None`` for one that another version noted in another form."""
    try:
        return LimitEvent(**json.loads(text))
    except (TypeError, ValueError):
        return None


class Events:
    """Notes events, each once in a window of its limit on all nodes.

    :param now: epoch seconds.
    :param monotonic: monotonic clock.
    :param start: runs a coroutine without waiting for it.
    :param report: called with each event that this node was the first to note.
    """

    def __init__(
        self,
        state: LiveState,
        now: Callable[[], float],
        monotonic: Callable[[], float],
        start: Callable[[Coroutine[Any, Any, None]], object],
        report: Callable[[LimitEvent], None],
    ) -> None:
        self._state = state
        self._now = now
        self._monotonic = monotonic
        self._start = start
        self._report = report
        self._noted: Memo[tuple[str, ...], float] = Memo(_CACHE_BYTES)

    def note(self, kind: EventKind, charge: Charge, limit: str, level: str, used: int, amount: int) -> None:
        """Note an event, unless this process has done so in the window of the charge. Never waits, never raises."""
        (space, account), window = charge.account, charge.window
        key = (kind, space, account, limit, str(window))
        moment = self._monotonic()
        if moment < self._noted.get(key, 0.0):
            return
        self._noted.keep(key, moment + window)
        names, now = (_cut(account), limit[:_MAX_LIMIT]), round(self._now(), 3)
        event = LimitEvent(kind, space, *names, level, used, amount, window, now, charge.unit)
        self._start(self._claim(key, event))

    async def _claim(self, key: tuple[str, ...], event: LimitEvent) -> None:
        try:
            if await self._state.note_event(":".join(key), event.window, json.dumps(event._asdict())):
                self._report(event)
        except StateUnavailable:
            self._noted.pop(key, None)


def _cut(account: str) -> str:
    return account if len(json.dumps(account)) <= _MAX_JSON else account[:_MAX_ACCOUNT] + "\u2026"
