"""The SQLAlchemy engine, with timeouts for everything that may block a thread."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path
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
# Less than STATEMENT_SECONDS, so that waiting for another writer is not taken for a failure.
LOCK_SECONDS: Final = 3
# Of a transaction between two statements: a node that stops during a change blocks the changes of others.
IDLE_SECONDS: Final = 10
# A server or a firewall in between may drop what is idle for longer.
RECYCLE_SECONDS: Final = 1800

# An execution option: the transaction is going to write.
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
    """Where the database is. The text of the result hides the password.

    :param data_dir: where the file of SQLite is when ``db_name`` is no absolute path.
    :raises ConfigError: when ``db_url`` cannot be read, or names another kind of database.
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
    # libpq wants the directory, and makes the name of the socket from the port.
    directory, _, port = adapter.db_host.partition("/.s.PGSQL.")
    return {"host": directory, "port": port or str(adapter.db_port or _PORTS["postgresql"])}


def own_url(text: str) -> URL:
    """What ``db_url`` means.

    :raises ValueError: when that is no database of ours; says what it must be, and does not show the password.
    """
    remedy = "must be an SQLAlchemy URL that begins with sqlite://, postgresql:// or mariadb://"
    try:
        url = make_url(str(text))
        driver = _DRIVERS[url.get_backend_name()]
    except (ArgumentError, ValueError, KeyError):
        # The cause may show the password.
        raise ValueError(remedy) from None
    if driver == _DRIVERS["sqlite"] and url.database in (None, "", ":memory:"):
        raise ValueError("must name a file: sqlite:////var/lib/chapps/chapps.sqlite3")
    return url.set(drivername=driver)


def make_engine(adapter: PolicyConfigAdapter, password: str, data_dir: str, fold_case: bool = True) -> Engine:
    """The engine: at most ``pool_size`` connections, each call on them bounded in time.

    The file of SQLite is created, readable by its owner alone. A server is not connected to yet.

    :param fold_case: whether names that differ in letter case alone are one.
    :raises ConfigError: see :func:`database_url`.
    :raises OSError: when the file of SQLite cannot be created.
    """
    url = database_url(adapter, password, data_dir)
    backend = url.get_backend_name()
    if backend == "sqlite":
        sqlite_files.create(str(url.database))
    # What the administrator put into db_url wins.
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
    # The caller gets the error of a broken connection; the pool would log its traceback as well.
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
            # Also of a database without an encoding, so that it can be told that it has none.
            "client_encoding": "utf8",
            # Connection poolers give a statement to another connection than prepared it.
            "prepare_threshold": None,
        }
    return {
        "charset": "utf8mb4",
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": STATEMENT_SECONDS,
        "write_timeout": STATEMENT_SECONDS,
        # MySQL takes the second one for a comment: it has no such limit.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {LOCK_SECONDS}"
        f" /*M!100300 , idle_transaction_timeout = {IDLE_SECONDS} */",
    }


def _limit_postgresql(connection: Connection) -> None:
    # Not for the session: behind a connection pooler the next transaction may be in another, and others get this one.
    limits = {
        "statement_timeout": STATEMENT_SECONDS,
        "lock_timeout": LOCK_SECONDS,
        "idle_in_transaction_session_timeout": IDLE_SECONDS,
    }
    connection.exec_driver_sql("; ".join(f"SET LOCAL {name} = '{seconds}s'" for name, seconds in limits.items()))


def _set_up_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # Otherwise the driver begins a transaction late, as a reader, and writers lose updates.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {STATEMENT_SECONDS * 1000}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")
    sqlite_files.write_ahead(connection)


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _follow_file(engine: Engine, path: str) -> None:
    """Reconnect when the file was replaced, and fail when it does not exist.

    SQLite itself would go on with the deleted file, or create an empty one.
    """

    def identity() -> tuple[int, int]:
        status = os.stat(path)
        return status.st_dev, status.st_ino

    def note(_dialect: object, record: ConnectionPoolEntry, *_arguments: object) -> None:
        record.info["file"] = identity()

    def compare(_connection: object, record: ConnectionPoolEntry, _proxy: object) -> None:
        if record.info["file"] != identity():
            raise DisconnectionError("The file was replaced.")

    event.listen(engine, "do_connect", note)
    event.listen(engine, "checkout", compare)


class ConnectionAborter:
    """Unblocks threads that wait for a server which does not answer.

    libpq waits for ever when the server hangs but its kernel acknowledges, PyMySQL for five seconds. Meanwhile the
    connection is not free for probes. Shutting the socket down from another thread ends the wait; SQLite has a timeout
    of its own. Each connection's socket is duplicated here, so that its descriptor is not reused before that.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sockets: dict[int, socket.socket] = {}
        if engine.dialect.name != "sqlite":
            event.listen(engine, "connect", self._hold)
            event.listen(engine, "close", self._let_go)
            event.listen(engine, "close_detached", self._let_go_detached)

    def _hold(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        # PyMySQL has no public way to it.
        end = connection if hasattr(connection, "fileno") else connection._sock
        self._sockets[id(connection)] = socket.socket(fileno=os.dup(end.fileno()))

    def _let_go_detached(self, connection: Any) -> None:
        held = self._sockets.pop(id(connection), None)
        if held:
            held.close()

    def _let_go(self, connection: Any, _entry: ConnectionPoolEntry) -> None:
        self._let_go_detached(connection)

    def abort_all(self) -> None:
        """Shut every connection down, and dispose of the pool."""
        sockets, self._sockets = self._sockets, {}
        for held in sockets.values():
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()
        self._engine.dispose()
