"""The published package of CHAPPS 0.5, in an environment of its own, with its database and its Redis."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import venv
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.support.paths import ROOT
from tests.support.policy_client import PolicyClient
from tests.support.servers.common import Process, free_port, listening, missing, wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.sql import MariaDB

_PROGRAM = Path(__file__).with_name("chapps05_program.py")
_HOME = ROOT / ".chapps-0.5.18"
_REQUIREMENTS = (
    "redis==8.1.0",
    "expiring-dict==1.1.2",
    "validators==0.36.0",
    "email-validator==2.4.0",
    "python-pidfile==3.1.1",
    "pydantic==1.10.27",
    "SQLAlchemy==1.4.54",
    "sqlmodel==0.0.11",
    "typer==0.28.0",
    "colorama==0.4.6",
    "shellingham==1.5.4",
    "alembic==1.19.2",
    "dnspython==2.9.2",
    "PyMySQL==1.2.4",
)
# mysqlclient, which it requires, has to be compiled. PyMySQL has the same interface.
_STAND_IN = "import pymysql\n\npymysql.install_as_MySQLdb()\n"


@cache
def installed() -> Path:
    """Return the Python of the environment; install it once for all runs.

    :raises unittest.SkipTest: if the package index cannot be reached; with ``CI=true`` the test fails instead.
    """
    python = _HOME / "bin" / "python"
    _HOME.mkdir(exist_ok=True)
    with (_HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_HOME / "made").exists():
            venv.create(_HOME, with_pip=True)
            pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            # Without what it requires for its HTTP API, and mysqlclient.
            for command in ([*pip, "--no-deps", "chapps==0.5.18"], [*pip, *_REQUIREMENTS]):
                done = subprocess.run(command, capture_output=True, text=True, timeout=300)
                if done.returncode:
                    raise missing(f"CHAPPS 0.5.18 cannot be installed: {done.stderr[-300:]}")
            [packages] = (_HOME / "lib").glob("python*/site-packages")
            (packages / "MySQLdb.py").write_text(_STAND_IN)
            (_HOME / "made").touch()
    return python


class Chapps05:
    """CHAPPS 0.5 with a database on a server, and a Redis.

    :param database: its name; a new, empty one if it is not given.
    :ivar config: its chapps.ini.
    """

    def __init__(self, folder: Path, server: MariaDB, redis: RedisProcess, database: str = "") -> None:
        self._python = installed()
        self._folder = folder
        self.config = folder / "old.ini"
        self.server = server
        self.redis = redis
        self.database = database or server.new_database()
        self.ports = {"outbound": free_port(), "greylisting": free_port()}
        self._run("left")
        self._configure()

    def _configure(self) -> None:
        """Change what has to be changed in the file that it writes by itself."""
        listening_on = {
            "OutboundQuotaPolicy": self.ports["outbound"],
            "SenderDomainAuthPolicy": self.ports["outbound"],
            "GreylistingPolicy": self.ports["greylisting"],
        }
        lines, section = [], ""
        changes: dict[tuple[str, str], object] = {
            **{(name, "listen_address"): "127.0.0.1" for name in listening_on},
            **{(name, "listen_port"): port for name, port in listening_on.items()},
            ("PolicyConfigAdapter", "db_host"): "127.0.0.1",
            ("PolicyConfigAdapter", "db_port"): self.server.port,
            ("PolicyConfigAdapter", "db_name"): self.database,
            ("PolicyConfigAdapter", "db_pass"): "secret",
            ("Redis", "server"): "127.0.0.1",
            ("Redis", "port"): self.redis.port,
        }
        for line in self.config.read_text().splitlines():
            section = line[1:-1] if line.startswith("[") else section
            name = line.partition(" = ")[0]
            lines.append(f"{name} = {changes[section, name]}" if (section, name) in changes else line)
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    def fill(self, rows: Mapping[str, Any]) -> None:
        """Create the tables, and rows: ``quotas``, ``domains``, ``emails`` and ``users`` by name."""
        self._run("fill", text=json.dumps(rows))

    def left(self, *users: str) -> dict[str, int]:
        """Return what is left of the quotas of users, by their logins; at least 0 is not granted."""
        found: dict[str, int] = json.loads(self._run("left", *users))
        return found

    @contextmanager
    def serving(self, behind: float = 0.0) -> Iterator[Chapps05]:
        """Run its service.

        :param behind: seconds by which the clock of its policies is behind.
        """
        command = [str(self._python), str(_PROGRAM), "serve", str(behind)]
        process = Process(command, self._folder / "chapps05.log", env=self._environment, cwd=self._folder)
        try:
            wait_until(lambda: all(map(listening, self.ports.values())) or process.popen.poll() is not None, "0.5")
            yield self
        finally:
            process.stop()

    def client(self, listener: str = "outbound") -> PolicyClient:
        """Return a connection to one of its listeners."""
        return PolicyClient(("127.0.0.1", self.ports[listener]))

    @property
    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "CHAPPS_CONFIG": str(self.config)}

    def _run(self, *arguments: str, text: str = "") -> str:
        command = [str(self._python), str(_PROGRAM), *arguments]
        done = subprocess.run(
            command, capture_output=True, text=True, input=text, timeout=200, env=self._environment, cwd=self._folder
        )
        if done.returncode:
            raise RuntimeError(f"{arguments} of CHAPPS 0.5 ended with {done.returncode}: {done.stderr[-3000:]}")
        return done.stdout


def chapps_cli(*arguments: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``chapps-cli`` as a program.

    :param config: of ``$CHAPPS_CONFIG``.
    """
    command = [sys.executable, "-m", "chapps_tw.application.admin", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CHAPPS_CONFIG": str(config or "")}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT, env=environment)
