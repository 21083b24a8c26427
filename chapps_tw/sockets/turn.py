"""The end of a turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum

from twisted.logger import Logger


class Stage(IntEnum):
    """The stages of the end of a turn: requests are decided, what they change is written, and they are answered."""

    DECIDE = 0
    WRITE = 1
    ANSWER = 2


class Turn:
    """Does together what the requests of a turn of the reactor need, one stage after the other.

    Doing one thing for many requests in a row takes up to half the time that it takes between other things, since a
    processor is fastest at what it has just done. Sending is also a system call that wakes the client up: if answers
    are sent while other requests are decided, the next turn has fewer requests.

    :param later: calls a function after a number of seconds; 0 is the end of this turn.
    """

    _log = Logger()

    def __init__(self, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._later = later
        self._calls: list[list[Callable[[], object]]] = [[] for _ in Stage]
        # The stage that the end has reached; -1 before it.
        self._reached = -1
        self._is_scheduled = False

    def at_end(self, stage: Stage, call: Callable[[], object]) -> None:
        """Call a function in a stage of the end of this turn; of the next turn if that stage is reached already."""
        self._calls[stage].append(call)
        if stage <= self._reached or self._reached < 0:
            self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self._later(0, self._end)

    def _end(self) -> None:
        self._is_scheduled = False
        for stage in Stage:
            self._reached = stage
            calls, self._calls[stage] = self._calls[stage], []
            for call in calls:
                try:
                    call()
                except Exception:
                    self._log.failure("the end of a turn failed")
        self._reached = -1
