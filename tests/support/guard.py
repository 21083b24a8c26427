"""What ends everything that a test process has started, however that process itself ends.

A process of its own that waits for the end of a pipe. It finds what is left by a mark in the environment, which
all that was started has inherited, and ends that and all that descends from it, whatever signal ended the tests.
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
    """Mark what this process starts from now on, give it a directory for its files, and have both ended with it."""
    directory = tempfile.mkdtemp(prefix="chapps-tests-", dir="/tmp")
    # As /tmp: servers that run as other users have their files in it.
    Path(directory).chmod(0o1777)
    tempfile.tempdir = os.environ["TMPDIR"] = directory
    os.environ.pop(MARK, None)
    # Its standard input ends when this process does. A session of its own keeps signals of a terminal from it.
    command = [sys.executable, "-m", "tests.support.guard", directory]
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd=ROOT))
    os.environ[MARK] = directory


def marked(mark: str) -> list[int]:
    """The processes that have inherited a mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def family(processes: list[int]) -> list[int]:
    """Processes and all that descend from them, oldest first."""
    found = list(processes)
    for parent in found:
        with suppress(OSError):
            for children in Path(f"/proc/{parent}/task").glob("*/children"):
                found += [child for child in map(int, children.read_text().split()) if child not in found]
    return found


def end(mark: str) -> list[int]:
    """End all that is left of what was marked; returns what that was."""
    ended: list[int] = []
    # Once more as long as there is something: it may have been starting another.
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
