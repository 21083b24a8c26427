"""A run of the tests that is ended by any signal leaves no server and no file behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import guard
from tests.support.paths import ROOT
from tests.support.servers.common import program, wait_until

RUN = """
import os, signal, sys, tempfile
from pathlib import Path
from tests.support import guard
guard.begin()
from tests.support.servers.postfix import Postfix
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import Service
from tests.support.servers.sql import MariaDB, PostgreSQL
servers = [RedisProcess(Path(tempfile.mkdtemp())).start(), Service().start(), PostgreSQL(), MariaDB()]
for server in servers[2:]:
    server.start()
if os.getuid() == 0:
    servers.append(Postfix({}))
print(os.environ[guard.MARK], flush=True)
signal.pause()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_it(number: int) -> None:
    for name in ("redis-server", "postgres", "mariadbd"):
        program(name, *map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
    run = subprocess.Popen([sys.executable, "-c", RUN], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    mark = run.stdout.readline().strip()
    left = guard.family(guard.marked(mark))
    names = {name for each in left if (name := _name_of(each))}
    assert {"redis-server", "postgres", "mariadbd", "twistd"} <= names, names
    assert os.getuid() != 0 or "master" in names, names
    run.send_signal(number)
    run.wait()
    wait_until(lambda: not any(map(_name_of, left)), "the end of all servers")
    wait_until(lambda: not Path(mark).exists(), "the end of all files")


def _name_of(process: int) -> str:
    """The name of a process, empty when it has ended, also where nobody has asked how."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return ""
    return "" if "\nState:\tZ" in status else status.partition("Name:\t")[2].partition("\n")[0]
