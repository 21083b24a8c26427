"""The end of a turn of the reactor."""

from __future__ import annotations

from collections.abc import Callable

from twisted.logger import Logger


class Turn:
    """Does once for a turn of the reactor what would otherwise be done for each of its requests.

    Doing one thing for many requests in a row takes up to half the time that it takes between other things, since a
    processor is fastest at what it has just done. Sending is also a system call, which wakes the client up: if answers
    are sent while others are decided, the next turn has fewer requests.

    :param later: calls a function after a number of seconds; 0 is the end of this turn.
    """

    _log = Logger()

    def __init__(self, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._later = later
        self._calls: list[Callable[[], object]] = []
        self._is_ending = False

    def at_end(self, call: Callable[[], object]) -> None:
        """Call a function at the end of this turn. Those of a turn are called in order."""
        if not self._calls and not self._is_ending:
            self._later(0, self._end)
        self._calls.append(call)

    def end_with(self, work: Callable[[], object]) -> None:
        """Work, which is at the end of a turn, and call the functions then, not after another turn."""
        self._is_ending = True
        try:
            work()
        finally:
            self._is_ending = False
            self._end()

    def _end(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            try:
                call()
            except Exception:
                self._log.failure("the end of a turn failed")
