"""The decision log."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from chapps_tw.observe.decision_record import Entry

FLUSH_SECONDS = 0.02


class DecisionLog:
    """Formats decisions as lines, and writes them in batches.

    :param line: formats an entry as a line.
    :param write: writes a batch of lines; must not block.
    :param later: calls a function after a number of seconds.
    """

    def __init__(
        self,
        line: Callable[[Entry], str],
        write: Callable[[bytes], None],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._line = line
        self._write = write
        self._later = later
        self._lines: list[str] = []

    def extend(self, entries: Iterable[Entry]) -> None:
        """Log decisions."""
        if not self._lines:
            self._later(FLUSH_SECONDS, self.flush)
        self._lines += map(self._line, entries)

    def flush(self) -> None:
        """Write the lines that were added since the last flush."""
        lines, self._lines = self._lines, []
        if lines:
            self._write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))
