"""A connection pool with a strict size limit."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Any, Final

from sqlalchemy import Pool
from sqlalchemy.exc import TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from chapps_tw.database.errors import clear_tracebacks

# After the server refused a connection: seconds to wait for an open one before another attempt.
SHARE_SECONDS: Final = 0.25
_GENERATION: Final = "chapps_generation"


class BoundedPool(Pool):
    """At most ``pool_size`` connections, including disposed ones until they are closed.

    SQLAlchemy replaces its own pool when it is disposed of, and leaves checked-out connections to the garbage
    collector. This pool closes them when they are returned, and counts them until then.

    A server may allow fewer connections. If it refuses one while others are open, the caller waits for one of those.

    :param pool_size: maximum number of connections.
    :param timeout: seconds to wait for a free connection.
    """

    def __init__(self, creator: Callable[..., Any], pool_size: int, timeout: float, **options: Any) -> None:
        super().__init__(creator, **options)
        self._size = pool_size
        self._timeout = timeout
        self._free = Condition()
        self._idle: list[ConnectionPoolEntry] = []
        # Open or being opened.
        self._open = 0
        self._generation = 0
        self._refused = False

    def checkedout(self) -> int:
        """Return the number of connections in use."""
        with self._free:
            return self._open - len(self._idle)

    def connect(self) -> PoolProxiedConnection:
        """Check out a connection; closing it returns it to the pool.

        :raises sqlalchemy.exc.TimeoutError: if none becomes free in time.
        :raises Exception: the error of the driver, if no connection is open and none can be opened.
        """
        while True:
            try:
                return super().connect()
            except TimeoutError:
                raise
            except Exception as error:
                # Each failure leaves one connection fewer, so the loop ends.
                if not self._wait_for_open():
                    raise
                clear_tracebacks(error)

    def _wait_for_open(self) -> bool:
        """Wait for an open connection after one was refused; return whether one is free."""
        with self._free:
            self._refused = True
            self._free.wait_for(lambda: self._idle or not self._open, self._timeout)
            return bool(self._idle)

    def _do_get(self) -> ConnectionPoolEntry:
        with self._free:
            if not self._free.wait_for(self._available, SHARE_SECONDS if self._refused else self._timeout):
                self._refused = False
                if not self._free.wait_for(self._available, self._timeout):
                    raise TimeoutError("All connections are in use.")
            entry = self._idle.pop() if self._idle else None
            self._open += not entry
            generation = self._generation
        entry = entry or self._make()
        assert entry.record_info is not None
        entry.record_info[_GENERATION] = generation
        return entry

    def _available(self) -> bool:
        return bool(self._idle) or (self._open < self._size and not (self._open and self._refused))

    def _make(self) -> ConnectionPoolEntry:
        try:
            return self._create_connection()
        except BaseException:
            self._gone()
            raise

    def _gone(self) -> None:
        with self._free:
            self._open -= 1
            self._refused = False
            self._free.notify_all()

    def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
        assert record.record_info is not None
        with self._free:
            kept = record.dbapi_connection is not None and record.record_info[_GENERATION] == self._generation
            if kept:
                self._idle.append(record)
                self._free.notify()
        if not kept:
            self._close(record)

    def _close(self, record: ConnectionPoolEntry) -> None:
        try:
            record.close()
        finally:
            self._gone()

    def dispose(self) -> None:
        """Close all connections: idle ones now, others when they are returned."""
        with self._free:
            idle, self._idle = self._idle, []
            self._generation += 1
        for entry in idle:
            self._close(entry)

    def recreate(self) -> BoundedPool:
        """Return this pool itself, since disposed connections count until they are closed."""
        return self

    def status(self) -> str:
        """Return a line for SQLAlchemy's log."""
        return f"{self._open} of {self._size} connections, {len(self._idle)} of them idle"
