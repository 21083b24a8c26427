"""Helpers for all test servers: find programs and ports, start, wait, stop."""

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

# Below the ephemeral ports, which an outgoing connection could take before the port is used.
_FIRST, _EACH, _SHARES = 12_000, 1_250, 16

_PLACES = "/usr/sbin:/usr/local/sbin:/sbin:/usr/lib/postfix/sbin"


def program(*names: str) -> str:
    """Return the path of the first program that is installed.

    :raises unittest.SkipTest: if none is; with ``CI=true`` the test fails instead.
    """
    for name in names:
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + _PLACES) or (
            name if os.access(name, os.X_OK) else None
        )
        if found:
            return found
    raise missing(" or ".join(names) + " is not installed")


def missing(why: str) -> Exception:
    """Return the exception for a test whose server is not installed."""
    if os.environ.get("CI") == "true":
        return RuntimeError(f"{why}, and CI must have it")
    return unittest.SkipTest(why)


@cache
def require_namespaces() -> None:
    """:raises unittest.SkipTest: if this process may not mount anything, as in many containers."""
    probe = [program("unshare"), "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        raise unittest.SkipTest("only root can mount in a namespace of its own, and not in every container")


@cache
def _share() -> tuple[socket.socket, cycle[int]]:
    """Return a socket that reserves a range of ports while this process lives, and these ports.

    :raises RuntimeError: if too many test runs are active.
    """
    for share in range(_SHARES):
        lock = socket.socket(socket.AF_UNIX)
        try:
            # An abstract address: it belongs to the network namespace, as ports do, and is freed when the process ends.
            lock.bind(f"\0chapps-tests-{share}")
        except OSError:
            lock.close()
            continue
        # Start anywhere in it: servers of the previous run may take a moment to end.
        start, first = random.randrange(_EACH), _FIRST + share * _EACH
        return lock, cycle([*range(first + start, first + _EACH), *range(first, first + start)])
    raise RuntimeError("other test runs have all the ports of this machine")


def free_port() -> int:
    """Return a loopback port that is free, and was not returned before in this run.

    :raises RuntimeError: if all are in use.
    """
    _, ports = _share()
    for port in islice(ports, _EACH):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("no port is free on this machine")


# Timeout in seconds for events that must happen, generous enough for a busy machine.
HANGS = 200.0


def wait_until(true: Callable[[], object], what: str, seconds: float = HANGS) -> None:
    """Wait until a condition is true.

    :raises TimeoutError: naming ``what``.
    """
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not happen in {seconds:g} s")
        time.sleep(0.02)


def listening(port: int) -> bool:
    """Return whether a loopback port accepts connections."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


# Processes started since the last report, or still running: a failure shows their logs.
took_part: list[Process] = []


class Process:
    """A child process with its output in a file."""

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
        """Return the end of its output, even if the file was removed after it stopped."""
        with suppress(OSError):
            self._last_words = "\n".join(self.output().splitlines()[-lines:])
        return self._last_words

    def signal(self, number: int) -> None:
        if self.popen.poll() is None:
            self.popen.send_signal(number)

    def stop(self, number: int = SIGTERM, seconds: float = 10.0) -> int:
        """Stop it; return its exit code, negative for a signal."""
        self.signal(SIGCONT)
        self.signal(number)
        try:
            return int(self.popen.wait(seconds))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return int(self.popen.wait())
        finally:
            self.last_words()
