"""The SQLAlchemy engine, with timeouts for all blocking calls."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry

from chapps_tw.config.settings import ConfigError, PolicyConfigAdapter
from chapps_tw.database.pool import BoundedPool
from chapps_tw.database.text import FOLD_CASE
from chapps_tw.security import sqlite_files

CONNECT_SECONDS: Final = 2
STATEMENT_SECONDS: Final = 5
# Less than STATEMENT_SECONDS, so that waiting for another writer does not count as a failure.
LOCK_SECONDS: Final = 3
# Between two statements of a transaction: a node that hangs during a change blocks the changes of others.
IDLE_SECONDS: Final = 10
# A server or a firewall may drop connections that are idle for longer.
RECYCLE_SECONDS: Final = 1800

# An execution option: the transaction writes.
WRITES: Final = "chapps_writes"

_DRIVERS: Final = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "mariadb": "mysql+pymysql",
    "mysql": "mysql+pymysql",
}
_POOL_LOG: Final = "chapps"
_PORTS: Final = {"postgresql": 5432, "mariadb": 3306, "mysql": 3306}


def database_url(adapter: PolicyConfigAdapter, password: str, data_dir: str) -> URL:
    """Return the URL of the database. Its string form hides the password.

    :param data_dir: directory of the SQLite file, if ``db_name`` is not an absolute path.
    :raises ConfigError: if ``db_url`` is invalid, or names an unsupported database.
    """
    if adapter.db_url:
        try:
            return own_url(adapter.db_url)
        except ValueError as error:
            raise ConfigError([f"[PolicyConfigAdapter] db_url {error}."]) from None
    driver = _DRIVERS[adapter.adapter]
    if adapter.adapter == "sqlite":
        return URL.create(driver, database=str(Path(data_dir, _file_name(adapter.db_name)).absolute()))
    where: dict[str, Any] = {"host": adapter.db_host, "port": adapter.db_port or _PORTS[adapter.adapter]}
    if adapter.db_host.startswith("/"):
        where = {"query": _socket(adapter)}
    return URL.create(
        driver, username=adapter.db_user or None, password=password or None, database=adapter.db_name, **where
    )


def _file_name(name: str) -> str:
    return name if Path(name).is_absolute() else f"{name}.sqlite3"


def _socket(adapter: PolicyConfigAdapter) -> dict[str, str]:
    if adapter.adapter != "postgresql":
        return {"unix_socket": adapter.db_host}
    # libpq takes the directory, and derives the name of the socket from the port.
    directory, _, port = adapter.db_host.partition("/.s.PGSQL.")
    return {"host": directory, "port": port or str(adapter.db_port or _PORTS["postgresql"])}


def own_url(text: str) -> URL:
    """Return the URL for ``db_url``, with our driver.

    :raises ValueError: if it is invalid or unsupported; the message says what is required, without the password.
    """
    remedy = "must be an SQLAlchemy URL that begins with sqlite://, postgresql:// or mariadb://"
    try:
        url = make_url(str(text))
        driver = _DRIVERS[url.get_backend_name()]
    except (ArgumentError, ValueError, KeyError):
        # The cause may contain the password.
        raise ValueError(remedy) from None
    if driver == _DRIVERS["sqlite"] and url.database in (None, "", ":memory:"):
        raise ValueError("must name a file: sqlite:////var/lib/chapps/chapps.sqlite3")
    return url.set(drivername=driver)


def make_engine(adapter: PolicyConfigAdapter, password: str, data_dir: str, fold_case: bool = True) -> Engine:
    """Return an engine with at most ``pool_size`` connections and a timeout for every call.

    Creates the SQLite file, readable by its owner only. Does not connect to a server yet.

    :param fold_case: whether names are case-insensitive.
    :raises ConfigError: see :func:`database_url`.
    :raises OSError: if the SQLite file cannot be created.
    """
    url = database_url(adapter, password, data_dir)
    backend = url.get_backend_name()
    if backend == "sqlite":
        sqlite_files.create(str(url.database))
    # Parameters in db_url take precedence.
    arguments = {name: value for name, value in _connect_arguments(backend).items() if name not in url.query}
    engine = create_engine(
        url,
        poolclass=BoundedPool,
        pool_size=adapter.pool_size,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=backend != "sqlite",
        pool_recycle=-1 if backend == "sqlite" else RECYCLE_SECONDS,
        connect_args=arguments,
        hide_parameters=True,
        execution_options={FOLD_CASE: fold_case},
        pool_logging_name=_POOL_LOG,
    )
    # The error of a broken connection is raised to the caller; the pool would log its traceback too.
    logging.getLogger(f"{BoundedPool.__module__}.{BoundedPool.__name__}.{_POOL_LOG}").setLevel(logging.CRITICAL)
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        _follow_file(engine, str(url.database))
    if backend == "postgresql" and "options" not in url.query:
        event.listen(engine, "begin", _limit_postgresql)
    return engine


def _connect_arguments(backend: str) -> dict[str, Any]:
    if backend == "sqlite":
        return {"check_same_thread": False}
    if backend == "postgresql":
        return {
            "connect_timeout": CONNECT_SECONDS,
            "tcp_user_timeout": STATEMENT_SECONDS * 1000,
            "keepalives_idle": STATEMENT_SECONDS,
            "keepalives_interval": 1,
            "keepalives_count": 3,
            "application_name": "chapps-tw",
            # Even for SQL_ASCII, so that schema.check() can report it.
            "client_encoding": "utf8",
            # Behind a connection pooler, a statement may run on another connection than the one that prepared it.
            "prepare_threshold": None,
        }
    return {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": STATEMENT_SECONDS,
        "write_timeout": STATEMENT_SECONDS,
        # To MySQL, which has no such timeout, the second one is a comment.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}"
        f" /*M!100300 , idle_transaction_timeout = {IDLE_SECONDS} */",
    }


def _limit_postgresql(connection: Connection) -> None:
    # Not per session: behind a connection pooler, sessions are shared with other clients.
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = '{seconds}s'" for name, seconds in limits.items()))


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Otherwise the driver delays BEGIN and makes it DEFERRED, and concurrent writers lose updates.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {STATEMENT_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    sqlite_files.write_ahead(connection)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _follow_file(engine: Engine, path: str) -> None:
    """Reconnect if the file was replaced, and fail if it does not exist.

    SQLite itself would continue with the deleted file, or create an empty one.
    """

    def identity() -> tuple[int, int]:
        status = os.stat(path)
        return status.st_dev, status.st_ino

    opened: list[sqlite_files.OpenedFile] = []
    lock = Lock()

    def note(_dialect: object, record: ConnectionPoolEntry, *_arguments: object) -> None:
        record.info["file"] = identity()
        with lock:
            if opened and not opened[-1].is_there:
                opened.pop().remove_log()

    def remember(_connection: object, _record: ConnectionPoolEntry) -> None:
        with lock:
            opened[:] = [sqlite_files.OpenedFile(path)]

    def compare(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info["file"] != identity():
            raise DisconnectionError("The file was replaced.")

    event.listen(engine, "do_connect", note)
    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", compare)


class ConnectionAborter:
    """Unblocks threads that wait for a server that does not respond.

    If the server hangs but its kernel still acknowledges packets, libpq waits forever, and PyMySQL for five seconds.
    Meanwhile the connection is not available to probes. Shutting down the socket from another thread ends the wait.
    SQLite has its own timeout. Each socket is duplicated here, so that its descriptor is not reused before then.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sockets: dict[int, socket.socket] = {}
        if engine.dialect.name != "sqlite":
            event.listen(engine, "connect", self._hold)
            event.listen(engine, "close", self._release)
            event.listen(engine, "close_detached", self._release_detached)

    def _hold(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        # PyMySQL does not expose its socket.
        end = connection if hasattr(connection, "fileno") else connection._sock
        self._sockets[id(connection)] = socket.socket(fileno=os.dup(end.fileno()))

    def _release_detached(self, connection: Any) -> None:
        held = self._sockets.pop(id(connection), None)
        if held:
            held.close()

    def _release(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        self._release_detached(connection)

    def abort_all(self) -> None:
        """Shut down every connection, and dispose of the pool."""
        sockets, self._sockets = self._sockets, {}
        for held in sockets.values():
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()
        self._engine.dispose()
