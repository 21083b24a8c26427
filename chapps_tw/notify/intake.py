"""The way of events into the outbox.

Whoever was the first to note an event adds its notices. If that node dies before, the event is still in the list of the
live state, where every node looks for such events now and then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from twisted.logger import Logger

from chapps_tw.config.settings import Notify
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.events import GIVEN_UP, LIMIT_EVENTS, EventsWanted, KeptEvent
from chapps_tw.interfaces.state import LiveState, StateUnavailable
from chapps_tw.notify.counts import Counts
from chapps_tw.notify.loop import Loop
from chapps_tw.notify.notice import Notice, kinds_of, notices_of, notices_of_kept
from chapps_tw.notify.outbox import Outbox
from chapps_tw.notify.schedule import report_due
from chapps_tw.policies.events import MAX_EVENTS, LimitEvent, event_of

# Notices that wait for the database, at most some 2 KB each.
MAX_WAITING: Final = 10_000
# Notices that one transaction adds.
_BATCH: Final = 100
# Events of other nodes are looked for if they are not younger or older than that, in seconds. So who turns notices on
# is not told of yesterday.
_YOUNGEST, _OLDEST = 2.0, 3600.0
# The longest time between two looks, in seconds.
_MOST_APART: Final = 60.0
# Ids of events that are looked at again.
_OVERLAP: Final = 500
# Between two looks at the outbox itself, and at the events in the database.
_UPKEEP: Final = 10.0


ReadEvents = Callable[[EventsWanted], Awaitable[Sequence[KeptEvent]]]


class Intake:
    """Adds notices to the outbox.

    :ivar loop: its work.
    :param added: called when there are new notices.
    :param in_thread: runs a function in a thread.
    :param events: reads events that are no limit's.
    :param note: keeps such an event: its kind, its name, and the detail.
    """

    _log = Logger()

    def __init__(
        self,
        options: Notify,
        state: LiveState,
        outbox: Outbox,
        counts: Counts,
        added: Callable[[], object],
        reactor: Any,
        now: Callable[[], float],
        in_thread: Callable[..., Awaitable[Any]],
        events: ReadEvents,
        note: Callable[[str, str, str], None],
    ) -> None:
        self.loop = Loop(reactor, self._turn)
        self._options = options
        self._state = state
        self._outbox = outbox
        self._counts = counts
        self._added = added
        self._monotonic = reactor.seconds
        self._now = now
        self._in_thread = in_thread
        self._events = events
        self._note_event = note
        self._kinds = tuple({kind for _, kind in kinds_of(options)} - set(LIMIT_EVENTS))
        # Of the events in the database: the highest id, and those that are in the outbox.
        self._last = 0
        self._kept: frozenset[int] = frozenset()
        self._waiting: deque[Notice] = deque()
        self._full = False
        self._report = ""
        self._problem = ""
        # Ids of the notices of the events in the list that are in the outbox.
        self._known: frozenset[str] = frozenset()
        self._apart = min(_MOST_APART, max(_YOUNGEST, options.retry_after))
        self._look_at = self._upkeep_at = float("-inf")

    def note(self, event: LimitEvent) -> None:
        """Tell an event that this node was the first to note. Never waits, never raises."""
        for notice in notices_of(event, self._options):
            self._waiting.append(notice)
        while len(self._waiting) > MAX_WAITING:
            self._lose([self._waiting.pop()])
        if self._waiting:
            self.loop.wake()

    async def _turn(self) -> float:
        try:
            pause = await self._work()
        except (BookUnavailable, StateUnavailable) as error:
            if not self._problem:
                self._log.warn("Notices wait: {why}", why=error)
            self._problem = str(error)
            raise
        self._problem = ""
        return pause

    async def _work(self) -> float:
        while self._waiting:
            await self._add([self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))])
        report = report_due(self._options.daily_report, self._now())
        if report and report.id != self._report:
            await self._add([report])
            self._report = report.id
        if self._monotonic() >= self._look_at:
            await self._look_for_others()
            self._look_at = self._monotonic() + self._apart
        if self._monotonic() >= self._upkeep_at:
            await self._look_for_kept()
            await self._maintain()
            self._upkeep_at = self._monotonic() + _UPKEEP
        return min(_UPKEEP, self._apart)

    async def _add(self, notices: Sequence[Notice]) -> None:
        """Add notices; those that wait are removed from there."""
        if not notices:
            return
        lost = await self._outbox.add(notices)
        for notice in notices:
            if self._waiting and self._waiting[0] is notice:
                self._waiting.popleft()
        self._full = self._full and bool(lost)
        self._lose(lost)
        self._added()

    async def _look_for_others(self) -> None:
        """Add the notices of events that were noted, but are not in the outbox."""
        texts = await self._state.events(MAX_EVENTS)
        now = self._now()
        found = await self._in_thread(self._listed, texts, now - _OLDEST, now - _YOUNGEST)
        missing = [notice for notice in found if notice.id not in self._known]
        for start in range(0, len(missing), _BATCH):
            await self._add(missing[start : start + _BATCH])
        self._known = frozenset(notice.id for notice in found)

    async def _look_for_kept(self) -> None:
        """Add the notices of events in the database."""
        if not self._kinds:
            return
        # A transaction that began earlier may end later.
        after, oldest = max(0, self._last - _OVERLAP), 0.0 if self._last else self._now() - _OLDEST
        found = await self._events(EventsWanted(self._kinds, after=after, limit=MAX_EVENTS))
        new = [event for event in reversed(found) if event.id not in self._kept and event.at >= oldest]
        notices = [notice for event in new for notice in notices_of_kept(event, self._options)]
        for start in range(0, len(notices), _BATCH):
            await self._add(notices[start : start + _BATCH])
        self._kept = frozenset(event.id for event in found)
        self._last = max([self._last, *self._kept])

    def _listed(self, texts: Iterable[str], since: float, until: float) -> list[Notice]:
        events = [event for event in map(event_of, texts) if event is not None and since <= event.at <= until]
        return [notice for event in events for notice in notices_of(event, self._options)]

    async def _maintain(self) -> None:
        pending, given_up = await self._outbox.maintain(self._now())
        self._counts.pending = pending
        for (channel, kind), number in given_up.items():
            self._counts.failed[channel, kind] += number
            words = "{number} notices ({kind} to {channel}) were given up: they were tried for {time}"
            self._log.warn(words, number=number, kind=kind, channel=channel, time=self._options.give_up_after.words)
            if kind != GIVEN_UP:
                self._note_event(GIVEN_UP, channel, f"{number} of {kind}")

    def _lose(self, notices: Sequence[Notice]) -> None:
        for notice in notices:
            self._counts.failed[notice.channel, notice.kind] += 1
        if notices and not self._full:
            self._full = True
            self._log.warn("The outbox of notices is full: some are not sent; see chapps_notices_failed_total")
