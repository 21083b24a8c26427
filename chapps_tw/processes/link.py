"""The worker's end: passes decisions and events to the main process, and answers its questions."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from chapps_tw.observe.decision_record import Entry, Values, values_of
from chapps_tw.policies.events import LimitEvent
from chapps_tw.processes.channel import Asked, Channel

DECISIONS: Final = "decisions"
EVENT: Final = "event"
ASKED: Final = "asked"
READY: Final = "ready"

# Seconds for which decisions are gathered, and the most that a message has, so that it takes a millisecond to make.
_GATHER: Final = 0.02
_BATCH: Final = 50

# The most decisions that wait while the main process does not keep up, at most 1.5 KB each.
MAX_WAITING: Final = 20_000


class Link:
    """What a worker tells the main process.

    :ivar channel: the connection.
    :ivar lost: decisions that were dropped, because the main process did not keep up.
    :param asked: answers the questions of the main process, by name.
    :param reactor: for timers.
    """

    def __init__(self, asked: Mapping[str, Asked], reactor: Any, max_waiting: int = MAX_WAITING) -> None:
        self.channel = Channel({}, asked, self._send)
        self.lost = 0
        self._reactor = reactor
        self._max_waiting = max_waiting
        self._waiting: deque[Entry] = deque()

    def extend(self, entries: Sequence[Entry]) -> None:
        """Pass on decisions. Never blocks, never raises."""
        if not self._waiting:
            self._reactor.callLater(_GATHER, self._send)
        room = self._max_waiting - len(self._waiting)
        self._waiting += entries[:room]
        self.lost += max(0, len(entries) - room)

    def event(self, event: LimitEvent) -> None:
        """Pass on an event that this process was the first to note."""
        self.channel.tell(EVENT, event._asdict())

    def heard(self, report: Mapping[str, Any]) -> None:
        """Pass on what the listeners have heard."""
        self.channel.tell(ASKED, os.getpid(), report)

    def ready(self) -> None:
        """Say that Postfix is answered from now on."""
        self.channel.tell(READY)

    def finish(self) -> None:
        """Pass on what waits, and close the connection."""
        while self._waiting:
            self._send_batch()
        self.channel.close()

    def _send(self) -> None:
        if self._waiting and not self.channel.is_full:
            self._send_batch()
            if self._waiting:
                self._reactor.callLater(0, self._send)

    def _send_batch(self) -> None:
        waiting = self._waiting
        batch = [_exactly(waiting.popleft()) for _ in range(min(_BATCH, len(waiting)))]
        self.channel.tell(DECISIONS, batch)


def _exactly(entry: Entry) -> Values:
    """Return the values of an entry, with its time as it is: a record's is rounded."""
    return entry[0], *values_of(entry)[1:]
