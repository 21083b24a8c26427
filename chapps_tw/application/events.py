"""The events part: keeps what happens to limits, dependencies and this node."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.application import VERSION
from chapps_tw.application.gauges import Dependency
from chapps_tw.application.part import Part
from chapps_tw.config.settings import Settings
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.events import AWAY, BACK, Event
from chapps_tw.notify.loop import Loop
from chapps_tw.notify.notice import account_of
from chapps_tw.policies.events import LimitEvent

# Events that wait for the database, some 1 KB each.
MAX_WAITING: Final = 5000
# Events that one transaction adds.
_BATCH: Final = 100
# Seconds between two looks at the dependencies: what is away for less is no event.
_WATCH: Final = 1.0
_IDLE: Final = 60.0
# Seconds that a stop waits until the last events are kept.
_STOP: Final = 1.0


class EventLog(Part):
    """Keeps events in the database. Those that wait too long because it is unavailable are lost.

    :param watched: dependencies, by the names of ``/ready``.
    """

    _log = Logger()

    def __init__(self, settings: Settings, reactor: Any, book: WritableSqlBook, **watched: Dependency) -> None:
        self._node = settings.node
        self._source = settings.path or "built-in defaults"
        self._reactor = reactor
        self._book = book
        self._watched = watched
        self._is_away: dict[str, bool] = {}
        self._waiting: deque[Event] = deque()
        self._is_full = False
        self._loop = Loop(reactor, self._turn, "Events")
        self._watching = LoopingCall(self._watch)
        self._watching.clock = reactor

    def note(self, kind: str, name: str, detail: str = "", figures: Mapping[str, Any] | None = None) -> None:
        """Keep an event. Never waits, never raises.

        :param kind: one of :data:`~chapps_tw.interfaces.events.KINDS`.
        """
        if len(self._waiting) >= MAX_WAITING:
            if not self._is_full:
                self._log.warn("Events are lost: the database has been unavailable for too long")
            self._is_full = True
            return
        self._waiting.append(Event(kind, round(time.time(), 3), name, detail, figures or {}))
        self._loop.wake()

    def note_limit(self, event: LimitEvent) -> None:
        """Keep an event of a limit that this node was the first to note."""
        detail = f"{event.used} of {event.amount}, {event.level} limit {event.limit}"
        self.note(event.kind, account_of(event), detail, event._asdict())

    def start(self) -> None:
        """Begin with the start of the node."""
        self.note("node_started", self._node, VERSION)
        self.note("configuration_loaded", self._node, self._source)
        self._loop.start()
        self._watching.start(_WATCH, now=False)

    def stop(self) -> Awaitable[None] | None:
        """Keep the last events, if that takes no time."""
        if not self._watching.running:
            return None
        self._watching.stop()
        self.note("node_stopped", self._node)
        return self._finish()

    async def _finish(self) -> None:
        try:
            await Deferred.fromCoroutine(self._loop.stop()).addTimeout(_STOP, self._reactor)
        except TooLate:
            return

    def _watch(self) -> None:
        """Note which dependencies are away, and which are back.

        At first, those that are there count as back: this node may have ended while they were away.
        """
        for name, part in self._watched.items():
            problem = part.problem
            if self._is_away.get(name) is not bool(problem):
                self._is_away[name] = bool(problem)
                self.note(AWAY if problem else BACK, name, problem)

    async def _turn(self) -> float:
        while self._waiting:
            batch = [self._waiting[place] for place in range(min(_BATCH, len(self._waiting)))]
            await self._book.add_events(self._node, batch)
            for _ in batch:
                self._waiting.popleft()
        self._is_full = False
        return _IDLE
