"""Kills all processes that a test process has started, however it ends.

A separate process waits for the end of a pipe, and so survives any signal that ends the tests. It then finds the
remaining processes by a variable in the environment, which they inherited, and kills them and their descendants.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.support.paths import ROOT

MARK = "TESTS_OF_CHAPPS"

_guards: list[subprocess.Popen[bytes]] = []


def begin() -> None:
    """Mark processes started from now on, and create a temporary directory. Both end with this process."""
    directory = tempfile.mkdtemp(prefix="chapps-tests-", dir="/tmp")
    # The mode of /tmp, since servers that run as other users store files in it.
    Path(directory).chmod(0o1777)
    tempfile.tempdir = os.environ["TMPDIR"] = directory
    os.environ.pop(MARK, None)
    # Its standard input is closed when this process ends. A new session protects it from signals of a terminal.
    command = [sys.executable, "-m", "tests.support.guard", directory]
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT))
    os.environ[MARK] = directory


def marked(mark: str) -> list[int]:
    """Return the processes that have inherited a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def family(processes: list[int]) -> list[int]:
    """Return processes and all their descendants, oldest first."""
    found = list(processes)
    for parent in found:
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [child for child in map(int, children.read_text().split()) if child not in found]
    return found


def end(mark: str) -> list[int]:
    """Kill all remaining processes with a mark; return them."""
    ended: list[int] = []
    # Repeat while any is left: one may just have started another.
    while left := family(marked(mark)):
        ended += left
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    return ended


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end(sys.argv[1])
    shutil.rmtree(sys.argv[1], ignore_errors=True)
