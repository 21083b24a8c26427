"""When to start a process again that has ended."""

from __future__ import annotations

from typing import Final

# Seconds: the pause after the second failure in a row, the longest one, and how long a process must have run for its
# failure to count as the first one.
_FIRST: Final = 0.1
_LONGEST: Final = 10.0
_STABLE: Final = 30.0


class Restarts:
    """The pauses before the restarts of one process: none at first, and then growing ones."""

    def __init__(self) -> None:
        self._failures = 0

    def pause(self, ran: float) -> float:
        """Return the seconds to wait for now that the process has ended.

        :param ran: seconds for which it ran.
        """
        self._failures = 0 if ran >= _STABLE else self._failures + 1
        return min(_LONGEST, _FIRST * 2.0 ** (self._failures - 2)) if self._failures > 1 else 0.0
