"""The service as users run it: ``twistd`` in a separate process."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from chapps_tw.application.admin import set_up
from chapps_tw.config.load import load
from tests.support.empty_book import copy_empty_book
from tests.support.paths import ROOT
from tests.support.policy_client import PolicyClient
from tests.support.servers.common import HANGS, Process, free_port, listening, wait_until

Options = Mapping[str, Mapping[str, object]]

# Generous timeouts, for tests in which no answer may time out on a slow machine.
PATIENT: Options = {"CHAPPS": {"request_timeout": 30}}

# The default listeners, and the section that configures each.
_LISTENERS = {"outbound": "OutboundQuotaPolicy", "greylisting": "GreylistingPolicy", "inbound": "SPFEnforcementPolicy"}
# The one of RateLimitPolicy, which is there if there is a section [Limit NAME].
_LIMITS = "limits"

# Its exit codes after a normal stop: twistd ends by the signal.
CLEAN = (0, -signal.SIGTERM)

_ESTABLISHED = "01"  # in /proc/net/tcp


class Service:
    """A service with its files in a temporary directory.

    :param options: of chapps.ini, by section and name; they override the defaults here.
    :param directory: with the files of an earlier service; ``None`` for a new one.
    :param first_start: whether it finds no database, and creates one; otherwise a new one has an empty database.
    """

    def __init__(
        self, options: Options | None = None, directory: Path | None = None, *, first_start: bool = False
    ) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="chapps-"))
        if directory is None and not first_start:
            copy_empty_book(self.directory / "chapps.sqlite3")
        self.config = self.directory / "chapps.ini"
        self.ports = {name: free_port() for name in (*_LISTENERS, _LIMITS, "api")}
        self._options = _merged(self._own_options(), options or {})
        self._process: Process | None = None
        self.write_config()

    def _own_options(self) -> Options:
        listeners = {section: {"listen_port": self.ports[name]} for name, section in _LISTENERS.items()}
        return {
            **listeners,
            "RateLimitPolicy": {"listen_port": self.ports[_LIMITS]},
            "CHAPPS": {"data_dir": self.directory},
            "API": {"listen": f"tcp:{self.ports['api']}:interface=127.0.0.1"},
            "Log": {"file": self.directory / "decisions.log"},
        }

    def write_config(self, options: Options | None = None) -> None:
        """Write chapps.ini, with some options changed."""
        self._options = _merged(self._options, options or {})
        lines = []
        for section, values in self._options.items():
            lines.append(f"[{section}]")
            lines += [f"{name} = {value}" for name, value in values.items()]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o600)

    # --- the process ---

    def start(self, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **popen: Any) -> Service:
        """Start it, and wait until all its TCP listeners accept connections.

        :param prefix: of the command line: a program that runs it.
        :raises RuntimeError: with its log, if it ends instead.
        """
        self.launch(environment, prefix, **popen)
        wait_until(lambda: self.has_ended or self.is_listening, "the service listening")
        if self.has_ended:
            raise RuntimeError(f"the service did not start:\n{self.log()}")
        return self

    def set_up_database(self) -> Service:
        """Create the tables on a database server with ``admin db-setup``."""
        set_up(load(str(self.config)))
        return self

    def wait_ready(self) -> Service:
        """Wait until it is ready (``/ready``)."""
        wait_until(lambda: self.http("/ready")[0] == 200, "the service ready")
        return self

    def launch(self, environment: Mapping[str, str] | None = None, prefix: Sequence[str] = (), **popen: Any) -> Process:
        """Start it without waiting."""
        twistd = Path(sys.executable).with_name("twistd")
        command = [*prefix, str(twistd), "-n", "--pidfile=", "chapps", "--config", str(self.config)]
        env = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}
        self._process = Process(command, self.directory / "service.log", cwd=ROOT, env=env, **popen)
        return self._process

    @property
    def is_listening(self) -> bool:
        return all(listening(self.ports[name]) for name in self._listening_names())

    def _listening_names(self) -> Sequence[str]:
        silent = {name for name, section in _LISTENERS.items() if "listen" in self._options.get(section, {})}
        if any(section.startswith("Listener ") for section in self._options):
            silent = {*_LISTENERS, _LIMITS}
        if not any(section.startswith("Limit ") for section in self._options):
            silent.add(_LIMITS)
        if self._options["API"]["listen"] != f"tcp:{self.ports['api']}:interface=127.0.0.1":
            silent.add("api")
        return [name for name in self.ports if name not in silent]

    @property
    def has_ended(self) -> bool:
        return bool(self._running.popen.poll() is not None)

    @property
    def pid(self) -> int:
        return int(self._running.popen.pid)

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("the service was not started")
        return self._process

    def memory(self) -> int:
        """Its resident memory in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self) -> float:
        """The CPU time that it has used, with all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_connections(self, listener: str = "outbound") -> set[str]:
        """Return the clients connected to a listener, as hexadecimal address and port."""
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = f":{self.ports[listener]:04X}"
        return {row[2] for row in rows if row[1].endswith(ours) and row[3] == _ESTABLISHED}

    def signal(self, number: int) -> None:
        self._running.signal(number)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self._running.stop(signal.SIGKILL)

    def stop(self) -> int:
        """Stop it (SIGTERM); return its exit code."""
        return self._running.stop() if self._process else 0

    def remove(self) -> None:
        """Stop it and remove its files."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    # --- output ---

    def log(self, awaited: str = "", times: int = 1) -> str:
        """Return the log of twistd, which a thread writes, once it contains ``awaited`` at least ``times`` times."""
        path = self.directory / "service.log"

        def text() -> str:
            return path.read_text("utf-8", "replace") if path.exists() else ""

        wait_until(lambda: not awaited or text().count(awaited) >= times, f"{awaited!r} in the log")
        return text()

    def decisions(self) -> str:
        """Return the decision log."""
        return (self.directory / "decisions.log").read_text("utf-8", "replace")

    @property
    def token(self) -> str:
        return (self.directory / "api-token").read_text().strip()

    def client(self, listener: str = "outbound", timeout: float = HANGS) -> PolicyClient:
        """Return a new connection to one of its policy listeners."""
        return PolicyClient(("127.0.0.1", self.ports[listener]), timeout)

    def endpoint(self, listener: str = "outbound") -> str:
        """Return the address of a policy listener in the notation of Postfix."""
        return f"inet:127.0.0.1:{self.ports[listener]}"

    def http(self, path: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
        """Send an HTTP request; return status and decoded JSON."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"http://127.0.0.1:{self.ports['api']}{path}"
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, data, headers, method=method), timeout=HANGS
            ) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def http_text(self, path: str) -> str:
        """Return the text of an HTTP answer that is not JSON, such as the metrics."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['api']}{path}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=HANGS) as reply:
            return str(reply.read().decode())

    def remaining(self, user: str) -> int:
        """Return the remaining quota of a user, from ``/live/quota/``."""
        status, reply = self.http(f"/live/quota/0?name={user}")
        if status != 200:
            raise AssertionError(f"/live/quota/ answered {status}: {reply}")
        return int(reply["response"])

    # --- the book ---

    @property
    def database(self) -> str:
        """The URL of its SQLite file."""
        return f"sqlite:///{self.directory}/chapps.sqlite3"

    def add_user(self, name: str, quota: int, domains: Sequence[str] = (), emails: Sequence[str] = ()) -> None:
        """Add a user to the book. Call it after the service has created its database."""
        with Book(self.database) as book:
            book.user(name, quota, domains, emails)

    def add_domain(self, name: str, greylist: bool = False, check_spf: bool = False) -> None:
        """Add a recipient domain with its flags to the book."""
        with Book(self.database) as book:
            book.domain(name, greylist, check_spf)


class Book:
    """Writes directly to a database, in one transaction."""

    def __init__(self, url: str) -> None:
        self._engine = create_engine(url, poolclass=NullPool)

    def __enter__(self) -> Book:
        self._connection = self._engine.connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._connection.commit()
        self._connection.close()

    def user(self, name: str, quota: int, domains: Sequence[str] = (), emails: Sequence[str] = ()) -> None:
        """Add a user, and what is linked to the user."""
        user = self._entry("users", name=name)
        self._link("quota_user", user, quota_id=self._entry("quotas", quota=quota, name=f"{quota} a day"))
        for domain in domains:
            self._link("domain_user", user, domain_id=self.domain(domain))
        for email in emails:
            self._link("email_user", user, email_id=self._entry("emails", name=email))

    def domain(self, name: str, greylist: bool = False, check_spf: bool = False) -> int:
        """Add a domain unless it exists; return its id."""
        return self._entry("domains", name=name, greylist=greylist, check_spf=check_spf)

    def _entry(self, table: str, **row: object) -> int:
        key = next(iter(row))
        find = text(f"SELECT id FROM {table} WHERE {key} = :{key}")
        found = self._connection.execute(find, row).scalar()
        if found is None:
            self._insert(table, row)
            found = self._connection.execute(find, row).scalar_one()
        return int(found)

    def _link(self, table: str, user: int, **other: int) -> None:
        self._insert(table, {"user_id": user, **other})

    def _insert(self, table: str, row: Mapping[str, object]) -> None:
        holders = ", ".join(f":{name}" for name in row)
        self._connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({holders})"), row)


@cache
def shared_service() -> Service:
    """Return a service with the default options, shared by all tests of this run that do not disturb it.

    Tests use unique names in its book and in requests: see :func:`new_name`.
    """
    service = Service(PATIENT, first_start=True)
    atexit.register(service.remove)
    return service.start().wait_ready()


def started(test: unittest.TestCase, options: Options | None = None) -> Service:
    """Return a service for the duration of a test. ann has a large quota, and may send as example.com."""
    service = Service(options)
    test.addCleanup(service.remove)
    service.start().wait_ready()
    service.add_user("ann", 100_000, ["example.com"])
    return service


def new_name(stem: str) -> str:
    """Return a name that is unique in this run."""
    return f"{stem}{next(_names)}"


_names = count(1)


def _merged(first: Options, second: Options) -> dict[str, dict[str, object]]:
    sections = [*first, *(section for section in second if section not in first)]
    return {section: {**first.get(section, {}), **second.get(section, {})} for section in sections}
