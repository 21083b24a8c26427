"""A file that lines are appended to without ever holding up the reactor."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from threading import Lock, Thread

from chapps_tw.security.private_files import explain

# What may wait while the file cannot be written; more is dropped, and its amount told.
MAX_BEHIND = 16 * 1024 * 1024

CLOSE_SECONDS = 2.0
_FLUSH_TICK = 0.002

# In place of a path.
STANDARD_OUTPUT = "-"


class LogFile:
    """Appends batches of lines to a file, in a thread of its own.

    A file that is moved away (logrotate) or deleted is opened anew; while that cannot be done, lines go on into
    the one that was moved. What cannot be written is dropped, as is what waits beyond :data:`MAX_BEHIND` bytes;
    a line that says how much was lost takes its place. No line is continued in the middle.

    :ivar lost: lines that were lost since the start.
    :param path: the file, made with mode 0640 when it is not there; ``-`` is standard output.
    :param note: makes that line, of how many were lost.
    :param report: is told, in a sentence, when the file cannot be used as it should, and when it can again. Called
        in the thread, and by the methods.
    """

    def __init__(self, path: str, note: Callable[[int], str], report: Callable[[str], None]) -> None:
        self.lost = 0
        self._path = path
        self._note = note
        self._report = report
        self._name = "the log on standard output" if path == STANDARD_OUTPUT else f"the decision log {path}"
        # At the beginning of a sentence.
        self._sentence = f"T{self._name[1:]}"
        self._problem = ""
        # -1: there is none.
        self._file = -1
        # Whether the file ends within a line.
        self._torn = False
        self._queue: SimpleQueue[tuple[bytes, int] | None] = SimpleQueue()
        self._lock = Lock()
        self._behind = 0
        self._untold = 0
        # Whether the last batch found no room.
        self._slow = False
        self._thread = Thread(target=self._run, name="decision log", daemon=True)

    def open(self) -> None:
        """Open the file, and begin to write what is brought.

        :raises OSError: when it cannot be opened.
        """
        if self._path == STANDARD_OUTPUT:
            self._file = _standard_output()
        else:
            self._open()
        self._thread.start()

    def write(self, batch: bytes) -> None:
        """Append some lines, soon. Never blocks, never raises."""
        with self._lock:
            slow, was_slow = self._behind + len(batch) > MAX_BEHIND, self._slow
            self._slow = slow
            if slow:
                self._lose(batch.count(b"\n"))
            else:
                self._behind += len(batch)
                self._queue.put((batch, self._untold))
                self._untold = 0
        if slow and not was_slow:
            self._report(f"{self._sentence} is not written as fast as lines come: some are lost.")

    def open_again(self) -> None:
        """Look now whether the file was moved away, and not with the next lines."""
        self._queue.put((b"", 0))

    def flush(self, seconds: float) -> float:
        """Wait until everything is written, for so long at most; returns what is left of that."""
        while self._behind and seconds > 0:
            time.sleep(_FLUSH_TICK)
            seconds -= _FLUSH_TICK
        return max(0.0, seconds)

    def close(self) -> None:
        """Write what waits, and close. Gives up after two seconds."""
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)
        if self._behind:
            self._report(f"The last {self._behind} bytes of {self._name} were not written in time.")
        if self._untold:
            self._report(f"The last {self._untold} lines of {self._name} were lost.")

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._untold += lines

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            batch, untold = item
            note = f"{self._note(untold)}\n".encode() if untold else b""
            problem = self._follow()
            written, error = self._append(note + batch)
            if error and self._file >= 0:
                problem = f"{self._sentence} cannot be written: {explain(self._path, error)}."
            with self._lock:
                if written < len(note):
                    self._untold += untold
                self._lose(batch.count(b"\n", max(0, written - len(note))))
                self._behind -= len(batch)
            self._tell(problem)
        if self._file >= 0:
            os.close(self._file)

    def _tell(self, problem: str) -> None:
        """Report what has changed."""
        if problem != self._problem:
            self._problem = problem
            self._report(problem or f"{self._sentence} is written again.")

    def _follow(self) -> str:
        """Open the file anew where the one that is open is not there any more.

        :return: why that cannot be done, a sentence; ``""`` where all is well.
        """
        if self._path == STANDARD_OUTPUT:
            return ""
        with suppress(OSError):
            if os.path.samestat(os.stat(self._path), os.fstat(self._file)):
                return ""
        try:
            self._open()
        except OSError as error:
            problem = f"{self._sentence} cannot be opened anew: {explain(self._path, error)}"
            if self._file >= 0 and os.fstat(self._file).st_nlink:
                return f"{problem}. Meanwhile lines go on into the file that was moved away."
            self._use(-1)
            return f"{problem}. Meanwhile lines are lost."
        return ""

    def _open(self) -> None:
        # A pipe that nobody reads would hold up whoever opens it.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
        self._use(os.open(self._path, flags, 0o640))
        os.set_blocking(self._file, True)
        self._torn = _is_torn(self._path)

    def _use(self, file: int) -> None:
        if self._file >= 0:
            os.close(self._file)
        self._file = file

    def _append(self, data: bytes) -> tuple[int, OSError | None]:
        """Write at the end of the file.

        :return: how many bytes of whole lines were written, and why not all.
        """
        start = b"\n" if self._torn else b""
        data = start + data
        done = 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
        except OSError as error:
            whole = data.rfind(b"\n", 0, done) + 1
            if done:
                self._torn = done > whole and not self._take_back(done - whole)
            return max(0, whole - len(start)), error
        self._torn = False
        return done - len(start), None

    def _take_back(self, size: int) -> bool:
        """Cut off the end of the file; whether that could be done: not of a pipe, nor of a file for appending alone."""
        if self._path == STANDARD_OUTPUT:
            # Others write there as well.
            return False
        with suppress(OSError):
            os.ftruncate(self._file, os.fstat(self._file).st_size - size)
            return True
        return False


def goes_nowhere() -> bool:
    """Whether what is written to standard output is thrown away."""
    return os.path.samestat(os.fstat(1), os.stat(os.devnull))


def _standard_output() -> int:
    # Where it was closed at the start, its number is by now that of something else.
    if sys.__stdout__ is None:
        raise OSError(errno.EBADF, "there is no standard output")
    file = os.dup(1)
    os.set_blocking(file, True)
    return file


def _is_torn(path: str) -> bool:
    """Whether a file ends within a line: the process that wrote it was killed, or had no room any more."""
    with suppress(OSError):
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) != b"\n"
    return False
