"""What all test servers share: finding programs and ports, starting, waiting, stopping."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import time
import unittest
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from itertools import cycle, islice
from pathlib import Path
from signal import SIGCONT, SIGTERM

# Below those that outgoing connections take for themselves between the look and the use.
_FIRST, _EACH, _SHARES = 12_000, 1_250, 16

_PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/lib/postfix/sbin"


def program(*names: str) -> str:
    """The path of the first program that is installed.

    :raises unittest.SkipTest: when none is; with ``CI=true`` that is a failure instead.
    """
    for name in names:
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + _PLACES) or (
            name if os.access(name, os.X_OK) else None
        )
        if found:
            return found
    raise missing(" or ".join(names) + " is not installed")


def missing(why: str) -> Exception:
    """The exception for a test whose server cannot be had here."""
    if os.environ.get("CI") == "true":
        return RuntimeError(f"{why}, and CI must have it")
    return unittest.SkipTest(why)


@cache
def _share() -> tuple[socket.socket, cycle[int]]:
    """The ports of this process, and what keeps them from all others on this machine while it lives.

    :raises RuntimeError: when too many test runs are under way.
    """
    for share in range(_SHARES):
        lock = socket.socket(socket.AF_UNIX)
        try:
            # An abstract name: it belongs to the network as ports do, and is free again when the process ends.
            lock.bind(f"\0chapps-tests-{share}")
        except OSError:
            lock.close()
            continue
        # Begun anywhere: what the run before has left may take a moment to end.
        start, first = random.randrange(_EACH), _FIRST + share * _EACH
        return lock, cycle([*range(first + start, first + _EACH), *range(first, first + start)])
    raise RuntimeError("other test runs have all the ports of this machine")


def free_port() -> int:
    """A loopback port that nobody listens on, and that was not given to another server of this run.

    :raises RuntimeError: when all are taken.
    """
    _, ports = _share()
    for port in islice(ports, _EACH):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free on this machine")


# Seconds after which what did not happen does not come any more, on however busy a machine.
HANGS = 200.0


def wait_until(true: Callable[[], object], what: str, seconds: float = HANGS) -> None:
    """Wait until something is so.

    :raises TimeoutError: naming ``what``.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:g} s")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# What was started since the last look, or still runs: whose logs a failure wants.
took_part: list[Process] = []


class Process:
    """A child process with its output in a file, stopped for certain at the end."""

    def __init__(self, command: list[str], log: Path, **options: object) -> None:
        self.log = log
        self.command = command
        with log.open("ab") as output:
            self.popen = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        self._last_words = ""
        took_part.append(self)

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def last_words(self, lines: int = 60) -> str:
        """The end of its output, also when the file is gone since it was stopped."""
        with suppress(OSError):
            self._last_words = "\n".join(self.output().splitlines()[-lines:])
        return self._last_words

    def signal(self, number: int) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self, number: int = SIGTERM, seconds: float = 10.0) -> int:
        """End it; returns its exit code, negative for a signal."""
        self.signal(SIGCONT)
        self.signal(number)
        try:
            return int(self.popen.wait(seconds))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return int(self.popen.wait())
        finally:
            self.last_words()
