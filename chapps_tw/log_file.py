"""A file that lines are appended to without ever holding up the reactor."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread

# What may wait while the file cannot be written; more is dropped, and its amount told.
MAX_BEHIND = 16 * 1024 * 1024


class LogFile:
    """Appends batches of lines to a file, in a thread of its own.

    A file that is moved away (logrotate) is opened anew. What cannot be written is dropped once
    more than :data:`MAX_BEHIND` bytes wait; a line that says how much was lost takes its place.

    :ivar lost: lines that were lost since the start.
    :param path: the file, made with mode 0640 when it is not there; ``-`` is standard output.
    :param note: makes that line, of how many were lost.
    """

    def __init__(self, path: str, note: Callable[[int], str]) -> None:
        self.lost = 0
        self._path = path
        self._note = note
        self._file = -1
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._lock = Lock()
        self._behind = 0
        self._untold = 0
        self._thread = Thread(target=self._run, name="decision log", daemon=True)

    def open(self) -> None:
        """Open the file, and begin to write what is brought.

        :raises OSError: when it cannot be opened.
        """
        self._file = os.dup(1) if self._path == "-" else self._open()
        self._thread.start()

    def write(self, batch: bytes) -> None:
        """Append some lines, soon. Never blocks, never raises."""
        with self._lock:
            if self._behind + len(batch) > MAX_BEHIND:
                self._lose(batch)
                return
            self._behind += len(batch)
            untold, self._untold = self._untold, 0
        self._queue.put((batch, untold))

    def close(self) -> None:
        """Write what waits, and close. Gives up after two seconds."""
        self._queue.put(None)
        self._thread.join(2)

    def _lose(self, batch: bytes) -> None:
        lines = batch.count(b"\n")
        self.lost += lines
        self._untold += lines

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _run(self) -> None:
        failing = False
        while (item := self._queue.get()) is not None:
            batch, untold = item
            note = f"{self._note(untold)}\n".encode() if untold else b""
            try:
                self._reopen_if_moved()
                _write_all(self._file, note + batch)
                failing = False
            except OSError as error:
                with self._lock:
                    self._lose(batch)
                    self._untold += untold
                if not failing:
                    print(f"the decision log {self._path} cannot be written: {error}", file=sys.stderr)
                failing = True
            with self._lock:
                self._behind -= min(len(batch), self._behind)
        os.close(self._file)

    def _reopen_if_moved(self) -> None:
        if self._path == "-":
            return
        try:
            if os.path.sameopenfile(self._file, there := self._open()):
                os.close(there)
                return
        except OSError:
            return
        os.close(self._file)
        self._file = there


def _write_all(file: int, data: bytes) -> None:
    while data:
        data = data[os.write(file, data) :]
