"""Standard output that never blocks."""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOBase

from chapps_tw.observe.log_file import CLOSE_SECONDS, STANDARD_OUTPUT, LogFile


class LogStream(TextIOBase):
    """Replaces ``sys.stdout``, to which Twisted writes its log. Never blocks; drops lines when its queue is full.

    :ivar file: the file with its thread; shared with the decision log if that is written to standard output.
    :param note, report: as for :class:`~chapps_tw.observe.log_file.LogFile`.
    """

    def __init__(self, note: Callable[[int], str], report: Callable[[str], None]) -> None:
        self.file = LogFile(STANDARD_OUTPUT, note, report)
        # Seconds that writes may wait; 0 while the service runs.
        self._remaining = 0.0
        self._finishing = False

    def open(self) -> None:
        """Start the thread.

        :raises OSError: if there is no standard output.
        """
        self.file.open()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Queue lines. After :meth:`finish`, also wait until they are written."""
        self.file.write(text.encode("utf-8", "backslashreplace"))
        self._remaining = self.file.flush(self._remaining)
        return len(text)

    def finish(self) -> None:
        """Write the queue before the process ends. All later waits share one timeout of :data:`CLOSE_SECONDS`."""
        if not self._finishing:
            self._finishing, self._remaining = True, CLOSE_SECONDS
        self._remaining = self.file.flush(self._remaining)
