"""Rate limit for log lines that clients can cause."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LINES = 10
PERIOD = 60.0
"""At most ``LINES`` lines in ``PERIOD`` seconds."""


class LogLimit:
    """Logs a limited number of lines per period, and counts those that it suppresses.

    :param warn: logs a line, given as a format and its values.
    :param monotonic: monotonic clock.
    """

    def __init__(self, warn: Callable[..., None], monotonic: Callable[[], float]) -> None:
        self._warn = warn
        self._monotonic = monotonic
        self._started = float("-inf")
        self._logged = 0
        self._suppressed = 0

    def warn(self, line: str, **values: Any) -> None:
        """Log a line, unless the limit of the period is reached."""
        time = self._monotonic()
        if time - self._started >= PERIOD:
            if self._suppressed:
                self._warn("{count} lines like the following were suppressed", count=self._suppressed)
            self._started, self._logged, self._suppressed = time, 0, 0
        if self._logged < LINES:
            self._logged += 1
            self._warn(line, **values)
            return
        if not self._suppressed:
            self._warn("more lines like the last are suppressed for up to {seconds:.0f} s", seconds=PERIOD)
        self._suppressed += 1
