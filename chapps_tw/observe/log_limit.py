"""Keeping those who send nonsense from filling the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LINES = 10
PERIOD = 60.0
"""So many lines in so many seconds."""


class LogLimit:
    """Logs a few lines of a kind, and counts those that are left out.

    :param warn: logs a line, given as a format and its values.
    :param seconds: the clock.
    """

    def __init__(self, warn: Callable[..., None], seconds: Callable[[], float]) -> None:
        self._warn = warn
        self._seconds = seconds
        self._begun = float("-inf")
        self._logged = 0
        self._left_out = 0

    def warn(self, line: str, **values: Any) -> None:
        """Log a line, unless there were enough lately."""
        now = self._seconds()
        if now - self._begun >= PERIOD:
            if self._left_out:
                self._warn("{count} lines like the following were left out", count=self._left_out)
            self._begun, self._logged, self._left_out = now, 0, 0
        if self._logged < LINES:
            self._logged += 1
            self._warn(line, **values)
            return
        if not self._left_out:
            self._warn("more lines like the last are counted and left out, for {seconds:.0f} s at most", seconds=PERIOD)
        self._left_out += 1
