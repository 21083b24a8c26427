"""The connections to the database: never more than there may be, whatever becomes of them."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition
from typing import Any, Final

from sqlalchemy import Pool
from sqlalchemy.exc import TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from chapps_tw.database.errors import let_go

# After a connection was refused, those that work are waited for so long before a further one is tried.
SHARE_SECONDS: Final = 0.25
_LENT: Final = "chapps_lent"


class BoundedPool(Pool):
    """At most ``pool_size`` connections, the ones that were thrown away among them until they are closed.

    SQLAlchemy's own pool begins anew when it is thrown away, and leaves a connection that is in use then to the
    garbage collector. This one closes it when it comes back, and counts it until then.

    A server may allow fewer. A further connection that it refuses is no failure while others work: one of those is
    waited for.

    :param pool_size: connections.
    :param timeout: seconds that a free one is waited for.
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
        """Lend a connection; it comes back when it is closed.

        :raises sqlalchemy.exc.TimeoutError: when none is free in time.
        :raises Exception: what the driver raises when there is no connection, and none can be made.
        """
        while True:
            try:
                return super().connect()
            except TimeoutError:
                raise
            except Exception as error:
                # Each time around there is one less, so it comes to an end.
                if not self._another():
                    raise
                let_go(error)

    def _another(self) -> bool:
        """Wait for another connection after one was refused; whether there is one."""
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
        entry.record_info[_LENT] = generation
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
            kept = record.dbapi_connection is not None and record.record_info[_LENT] == self._generation
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
        """Throw all connections away: the idle ones now, the others when they come back."""
        with self._free:
            idle, self._idle = self._idle, []
            self._generation += 1
        for entry in idle:
            self._close(entry)

    def recreate(self) -> BoundedPool:
        """The same: what was thrown away counts until it is closed."""
        return self

    def status(self) -> str:
        """One line for SQLAlchemy's own log."""
        return f"{self._made} of {self._size} connections, {len(self._idle)} of them idle"
