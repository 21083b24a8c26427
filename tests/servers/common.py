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
from itertools import cycle, islice
from pathlib import Path
from signal import SIGCONT, SIGTERM

# Below those that outgoing connections take for themselves between the look and the use; apart for each worker, and
# begun anywhere, for other runs on this machine.
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 4
_FIRST, _EACH = 12_000 + 5_000 * _WORKER, 5_000
_START = random.randrange(_EACH)
_PORTS: cycle[int] = cycle([*range(_FIRST + _START, _FIRST + _EACH), *range(_FIRST, _FIRST + _START)])

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


def free_port() -> int:
    """A loopback port that nobody listens on, and that was not given to another server of this run.

    :raises RuntimeError: when thousands in a row are taken.
    """
    for port in islice(_PORTS, _EACH):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free on this machine")


def wait_until(true: Callable[[], object], what: str, seconds: float = 60.0) -> None:
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


class Process:
    """A child process with its output in a file, stopped for certain at the end."""

    def __init__(self, command: list[str], log: Path, **options: object) -> None:
        self.log = log
        with log.open("ab") as output:
            self.popen = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload]

    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

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
