"""Standard output, for what must not wait for its reader."""

from __future__ import annotations

from collections.abc import Callable
from io import TextIOBase

from chapps_tw.observe.log_file import CLOSE_SECONDS, STANDARD_OUTPUT, LogFile


class LogStream(TextIOBase):
    """In place of ``sys.stdout``, where Twisted writes its log: never blocks, and drops what is too much.

    :ivar file: writes it, in a thread of its own; the decision log shares it where it goes to standard output.
    :param note, report: as for :class:`~chapps_tw.observe.log_file.LogFile`.
    """

    def __init__(self, note: Callable[[int], str], report: Callable[[str], None]) -> None:
        self.file = LogFile(STANDARD_OUTPUT, note, report)
        # Seconds that may be waited; while the service runs nobody waits.
        self._left = 0.0
        self._finishing = False

    def open(self) -> None:
        """Begin to write.

        :raises OSError: when there is no standard output.
        """
        self.file.open()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Hand some lines on; after :meth:`finish`, wait until they are written as well."""
        self.file.write(text.encode("utf-8", "backslashreplace"))
        self._left = self.file.flush(self._left)
        return len(text)

    def finish(self) -> None:
        """Have everything written before the process ends, for which there are two seconds in all."""
        if not self._finishing:
            self._finishing, self._left = True, CLOSE_SECONDS
        self._left = self.file.flush(self._left)
