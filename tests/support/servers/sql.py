"""Private database servers: PostgreSQL and MariaDB, each with its own data directory."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import glob
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pymysql

from chapps_tw.config.settings import PolicyConfigAdapter
from tests.support.guard import family
from tests.support.servers.common import Process, free_port, listening, program, wait_until


def _as(user: str) -> dict[str, Any]:
    """Return options to run a process as another user if the tests run as root, which both servers reject."""
    return {"user": user, "group": user, "extra_groups": [], "cwd": "/"} if os.getuid() == 0 else {}


def _newest(pattern: str) -> list[str]:
    return sorted(glob(pattern), reverse=True)


class _Server:
    """The base of both servers.

    :ivar port: TCP port on 127.0.0.1.
    :ivar socket: the value of ``db_host`` for a unix socket.
    """

    kind: ClassVar[str]
    owner: ClassVar[str]

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix=f"{self.kind}-"))
        self.port = free_port()
        self.socket = str(self.directory)
        self.data = self.directory / "data"
        if os.getuid() == 0:
            shutil.chown(self.directory, self.owner)
        self._process: Process | None = None
        self._databases = 0

    def start(self) -> None:
        raise NotImplementedError

    def ensure(self) -> None:
        """Start it unless it is running."""
        if self._process is None or self._process.popen.poll() is not None:
            self.start()

    def connected(self) -> bool:
        raise NotImplementedError

    def execute(self, statement: str, database: str = "") -> list[tuple[object, ...]]:
        """Run a statement as the administrator, in its own transaction."""
        raise NotImplementedError

    def adapter(self, database: str, *, unix: bool = False, pool_size: int = 8) -> PolicyConfigAdapter:
        """Return the configuration of the service for a database on this server. The password is ``secret``."""
        return PolicyConfigAdapter(
            adapter=self.kind,
            db_host=self.socket if unix else "127.0.0.1",
            db_port=self.port,
            db_name=database,
            db_user="chapps",
            pool_size=pool_size,
        )

    def new_database(self) -> str:
        """Create an empty database; return its name."""
        self._databases += 1
        name = f"book{self._databases}"
        self._create(name)
        return name

    def _create(self, name: str) -> None:
        raise NotImplementedError

    def _launch(self, command: list[str]) -> None:
        process = self._process = Process(command, self.directory / "log", **_as(self.owner))
        wait_until(lambda: self.connected() or process.popen.poll() is not None, f"{self.kind} answering")
        if process.popen.poll() is not None:
            raise RuntimeError(f"{self.kind} did not start: {process.output()}")

    def signal(self, number: int) -> None:
        """Send a signal to all processes of the server; those of PostgreSQL are in different process groups."""
        if self._process is not None and self._process.popen.poll() is None:
            for process in family([self._process.popen.pid]):
                with suppress(ProcessLookupError):
                    os.kill(process, number)

    def pause(self) -> None:
        """Suspend it: connections stay open, and are still accepted, but it does not respond."""
        self.signal(signal.SIGSTOP)
        wait_until(self._stands_still, f"{self.kind} standing still")

    def _stands_still(self) -> bool:
        """Return whether each of its threads is stopped, or a zombie."""
        assert self._process is not None
        for process in family([self._process.popen.pid]):
            for thread in Path(f"/proc/{process}/task").glob("*/stat"):
                with suppress(OSError):
                    if thread.read_text().rpartition(")")[2].split()[0] not in "TZ":
                        return False
        return True

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        self.resume()
        self.signal(signal.SIGKILL)
        if self._process is not None:
            self._process.popen.wait(10)
            self._process = None

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class PostgreSQL(_Server):
    kind = "postgresql"
    owner = "postgres"

    def __init__(self) -> None:
        initdb = program("initdb", *_newest("/usr/lib/postgresql/*/bin/initdb"))
        self._server = program("postgres", str(Path(initdb).parent / "postgres"))
        super().__init__()
        # In the locale C, the database folds only ASCII letters.
        command = [initdb, "-D", str(self.data), "-U", "admin", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(command, check=True, capture_output=True, **_as(self.owner))
        rules = self.data / "pg_hba.conf"
        rules.write_text("local all all trust\nhost all admin all trust\nhost all all all scram-sha-256\n")

    def start(self) -> None:
        # A killed server leaves its lock files behind.
        for lock in (self.data / "postmaster.pid", *self.directory.glob(".s.PGSQL.*")):
            lock.unlink(missing_ok=True)
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "off",
            "max_connections": 60,
            "shared_buffers": "16MB",
            "autovacuum": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._launch([self._server, "-D", str(self.data), *options])
        self.execute(
            "DO $$BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'chapps')"
            " THEN CREATE ROLE chapps LOGIN PASSWORD 'secret'; END IF; END$$"
        )

    def connected(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, database: str = "") -> list[tuple[object, ...]]:
        with psycopg.connect(
            host=self.socket, port=self.port, user="admin", dbname=database or "postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _create(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {name} OWNER chapps")


class MariaDB(_Server):
    kind = "mariadb"
    owner = "mysql"

    def __init__(self) -> None:
        installer = program("mariadb-install-db", "mysql_install_db")
        self._server = program("mariadbd", "mysqld")
        super().__init__()
        self.socket = str(self.directory / "mariadb.sock")
        command = [installer, "--no-defaults", f"--datadir={self.data}", "--skip-test-db"]
        command += ["--auth-root-authentication-method=normal", "--innodb-log-file-size=8M", "--skip-name-resolve"]
        subprocess.run(command, check=True, capture_output=True, **_as(self.owner))

    def start(self) -> None:
        settings = {
            "datadir": self.data,
            "socket": self.socket,
            "port": self.port,
            "bind-address": "127.0.0.1",
            "pid-file": self.directory / "pid",
            # Written at each commit, but not flushed to disk: commits survive a kill.
            "innodb-flush-log-at-trx-commit": 2,
            "innodb-buffer-pool-size": "32M",
            "innodb-log-file-size": "8M",
            "performance-schema": "OFF",
        }
        self._launch([self._server, "--no-defaults", *(f"--{name}={value}" for name, value in settings.items())])
        self.execute("CREATE USER IF NOT EXISTS chapps@'%' IDENTIFIED BY 'secret'")
        self.execute("CREATE USER IF NOT EXISTS chapps@localhost IDENTIFIED BY 'secret'")

    def connected(self) -> bool:
        try:
            self.execute("SELECT 1")
        except pymysql.OperationalError:
            return False
        return True

    def execute(self, statement: str, database: str = "") -> list[tuple[object, ...]]:
        connection = pymysql.connect(unix_socket=self.socket, user="root", database=database or None, autocommit=True)
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def _create(self, name: str) -> None:
        self.execute(f"CREATE DATABASE {name}")
        for host in ("'%'", "localhost"):
            self.execute(f"GRANT ALL ON {name}.* TO chapps@{host}")


class PgBouncer:
    """PgBouncer in front of a PostgreSQL server; other settings are those of the Debian package.

    :param mode: ``session`` or ``transaction``: how long a client keeps its server connection.
    :param size: server connections per user and database.
    """

    def __init__(self, server: PostgreSQL, mode: str, size: int) -> None:
        command = program("pgbouncer")
        self.directory = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self.port = free_port()
        users, file = self.directory / "users", self.directory / "pgbouncer.ini"
        users.write_text('"chapps" "secret"\n')
        file.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {self.port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
            f"pool_mode = {mode}\ndefault_pool_size = {size}\nserver_login_retry = 0.2\n"
        )
        if os.getuid() == 0:
            for path in (self.directory, users, file):
                shutil.chown(path, server.owner)
        self.process = Process([command, str(file)], self.directory / "log", **_as(server.owner))
        wait_until(lambda: listening(self.port), "PgBouncer listening")

    def stop(self) -> None:
        self.process.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def running(server: type[PostgreSQL] | type[MariaDB]) -> Iterator[PostgreSQL | MariaDB]:
    """Yield a server that runs for the duration of the context."""
    instance = server()
    try:
        instance.start()
        yield instance
    finally:
        instance.stop()
