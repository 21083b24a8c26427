"""A log file that is written by a thread, so that it never blocks the reactor."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import RLock, Thread

from chapps_tw.security.private_files import explain

# Maximum size of the queue in bytes. When it is full, lines are dropped and counted.
MAX_PENDING = 16 * 1024 * 1024

CLOSE_SECONDS = 2.0
_FLUSH_TICK = 0.002

# As a path, this is standard output.
STANDARD_OUTPUT = "-"


class LogFile:
    """Appends batches of lines to a file, in its own thread.

    A file that was renamed (logrotate) or deleted is reopened. If that fails, lines are still written to the renamed
    file. Lines that cannot be written are dropped, as are lines beyond :data:`MAX_PENDING` bytes; a line with their
    number replaces them. A partially written line is never continued by another one.

    :ivar lost: number of lines lost since the start.
    :param path: the file, created with mode 0640 if it does not exist; ``-`` is standard output.
    :param note: formats the line with the number of lost lines.
    :param report: called with a sentence when a problem with the file begins or ends; by the thread and by methods.
    """

    def __init__(self, path: str, note: Callable[[int], str], report: Callable[[str], None]) -> None:
        self.lost = 0
        self._path = path
        self._note = note
        self._report = report
        self._name = "the log on standard output" if path == STANDARD_OUTPUT else f"the decision log {path}"
        # For the start of a sentence.
        self._capitalized_name = f"T{self._name[1:]}"
        self._problem = ""
        # File descriptor, -1 if the file is not open.
        self._file = -1
        # Whether the file ends with an incomplete line.
        self._incomplete = False
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        # A finalizer that runs in the middle of write() may log something: the thread must not wait for itself.
        self._lock = RLock()
        # Bytes in the queue.
        self._pending = 0
        # Lost lines that no line in the file reports yet.
        self._unreported = 0
        # Whether the last batch did not fit into the queue.
        self._full = False
        self._thread = Thread(target=self._run, name="decision log", daemon=True)

    def open(self) -> None:
        """Open the file and start the thread.

        :raises OSError: if the file cannot be opened.
        """
        if self._path == STANDARD_OUTPUT:
            self._file = _standard_output()
        else:
            self._open()
        self._thread.start()

    def write(self, batch: bytes) -> None:
        """Queue lines for the thread. Never blocks, never raises."""
        size = len(batch)
        with self._lock:
            full, was_full = self._pending + size > MAX_PENDING, self._full
            self._full = full
            if full:
                self._lose(batch.count(b"\n"))
            else:
                self._pending += size
                unreported, self._unreported = self._unreported, 0
                self._queue.put((batch, unreported))
        if full and not was_full:
            self._report(f"{self._capitalized_name} is too slow: lines are lost.")

    def reopen(self) -> None:
        """Check now whether the file was renamed, instead of with the next lines."""
        self._queue.put((b"", 0))

    def flush(self, timeout: float) -> float:
        """Wait until the queue is written, or until the timeout. Return the remaining seconds."""
        while self._pending and timeout > 0:
            time.sleep(_FLUSH_TICK)
            timeout -= _FLUSH_TICK
        return max(0.0, timeout)

    def close(self) -> None:
        """Write the queue and close the file, within :data:`CLOSE_SECONDS`."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._pending:
            self._report(f"The last {self._pending} bytes of {self._name} were not written in time.")
        if self._unreported:
            self._report(f"The last {self._unreported} lines of {self._name} were lost.")

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._unreported += lines

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch, unreported = item
            note = f"{self._note(unreported)}\n".encode() if unreported else b""
            problem = self._follow()
            written, error = self._append(note + batch)
            if error and self._file >= 0:
                problem = f"{self._capitalized_name} cannot be written: {explain(self._path, error)}."
            size, lost = len(batch), batch.count(b"\n", max(0, written - len(note)))
            with self._lock:
                if written < len(note):
                    self._unreported += unreported
                self._lose(lost)
                self._pending -= size
            self._report_change(problem)
        if self._file >= 0:
            os.close(self._file)

    def _report_change(self, problem: str) -> None:
        """Report a problem that is new, or the end of one."""
        if problem != self._problem:
            self._problem = problem
            self._report(problem or f"{self._capitalized_name} is written again.")

    def _follow(self) -> str:
        """Reopen the file if it was renamed or deleted.

        :return: the problem, in a sentence; ``""`` if there is none.
        """
        if self._path == STANDARD_OUTPUT:
            return ""
        with suppress(OSError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                return ""
        try:
            self._open()
        except OSError as error:
            problem = f"{self._capitalized_name} cannot be reopened: {explain(self._path, error)}"
            if self._file >= 0 and os.fstat(self._file).st_nlink:
                return f"{problem}. Until then, lines are written to the renamed file."
            self._use(-1)
            return f"{problem}. Until then, lines are lost."
        return ""

    def _open(self) -> None:
        # Without O_NONBLOCK, opening a pipe without a reader blocks.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._use(os.open(self._path, flags, 0o640))
        os.set_blocking(self._file, True)
        self._incomplete = _ends_with_incomplete_line(self._path)

    def _use(self, file: int) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def _append(self, data: bytes) -> tuple[int, OSError | None]:
        """Append to the file.

        :return: the number of bytes of complete lines that were written, and the error if not all were.
        """
        start = b"\n" if self._incomplete else b""
        data = start + data
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            whole = data.rfind(b"\n", 0, done) + 1
            if done:
                self._incomplete = done > whole and not self._truncate(done - whole)
            return max(0, whole - len(start)), error
        self._incomplete = False
        return done - len(start), None

    def _truncate(self, size: int) -> bool:
        """Remove bytes from the end of the file. Return False if that is not possible: a pipe, an append-only file."""
        if self._path == STANDARD_OUTPUT:
            # Other processes may write there too.
            return False
        with suppress(OSError):
            os.ftruncate(self._file, os.fstat(self._file).st_size - size)
            return True
        return False


def is_standard_output_discarded() -> bool:
    """Whether standard output is ``/dev/null``."""
    return os.path.samestat(os.fstat(1), os.stat(os.devnull))


def _standard_output() -> int:
    # If standard output was closed at the start, another file may use descriptor 1.
    if sys.__stdout__ is None:
        raise OSError(errno.EBADF, "there is no standard output")
    file = os.dup(1)
    os.set_blocking(file, True)
    return file


def _ends_with_incomplete_line(path: str) -> bool:
    """Whether a file ends with an incomplete line: the writing process was killed, or the disk was full."""
    with suppress(OSError):
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
    return False
