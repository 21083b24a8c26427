"""A connection pool whose size is a strict limit."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Any, Final

from sqlalchemy import Pool
from sqlalchemy.exc import TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from chapps_tw.database.errors import let_go

# After the server refused a connection, how long to wait for an open one before another is tried.
SHARE_SECONDS: Final = 0.25
_GENERATION: Final = "chapps_generation"


class BoundedPool(Pool):
    """At most ``pool_size`` connections, counting those that are disposed of until they are closed.

    SQLAlchemy's own pool is replaced when it is disposed of, and leaves connections that are checked out to the
    garbage collector. This one closes them when they are returned, and counts them until then.

    A server may allow fewer. When it refuses a connection while others are open, the caller waits for one of those.

    :param pool_size: connections.
    :param timeout: seconds to wait for a free one.
    """

    def __init__(self, creator: Callable[..., Any], pool_size: int, timeout: float, **options: Any) -> None:
        super().__init__(creator, **options)
        self._size = pool_size
        self._timeout = timeout
        self._free = Condition()
        self._idle: list[ConnectionPoolEntry] = []
        # Open, or being opened.
        self._made = 0
        self._generation = 0
        self._refused = False

    def checkedout(self) -> int:
        """How many are in use."""
        with self._free:
            return self._made - len(self._idle)

    def connect(self) -> PoolProxiedConnection:
        """Check out a connection; closing it returns it.

        :raises sqlalchemy.exc.TimeoutError: when none is free in time.
        :raises Exception: what the driver raises when there is no open connection, and none can be opened.
        """
        while True:
            try:
                return super().connect()
            except TimeoutError:
                raise
            except Exception as error:
                # Each iteration has one connection less, so the loop ends.
                if not self._another():
                    raise
                let_go(error)

    def _another(self) -> bool:
        """Wait for an open connection after one was refused; returns whether one is free."""
        with self._free:
            self._refused = True
            self._free.wait_for(lambda: self._idle or not self._made, self._timeout)
            return bool(self._idle)

    def _do_get(self) -> ConnectionPoolEntry:
        with self._free:
            if not self._free.wait_for(self._available, SHARE_SECONDS if self._refused else self._timeout):
                self._refused = False
                if not self._free.wait_for(self._available, self._timeout):
                    raise TimeoutError("All connections are in use.")
            entry = self._idle.pop() if self._idle else None
            self._made += not entry
            generation = self._generation
        entry = entry or self._make()
        assert entry.record_info is not None
        entry.record_info[_GENERATION] = generation
        return entry

    def _available(self) -> bool:
        return bool(self._idle) or (self._made < self._size and not (self._made and self._refused))

    def _make(self) -> ConnectionPoolEntry:
        try:
            return self._create_connection()
        except BaseException:
            self._gone()
            raise

    def _gone(self) -> None:
        with self._free:
            self._made -= 1
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
        """Close all connections: the idle ones now, the others when they are returned."""
        with self._free:
            idle, self._idle = self._idle, []
            self._generation += 1
        for entry in idle:
            self._close(entry)

    def recreate(self) -> BoundedPool:
        """This pool: what was disposed of counts until it is closed."""
        return self

    def status(self) -> str:
        """One line for SQLAlchemy's own log."""
        return f"{self._made} of {self._size} connections, {len(self._idle)} of them idle"
