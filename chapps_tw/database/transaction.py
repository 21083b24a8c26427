"""Changes of the book: one transaction each, one writer at a time, with a known outcome."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chapps_tw.database.engine import WRITES
from chapps_tw.database.errors import code, reason
from chapps_tw.database.models import metadata
from chapps_tw.database.outbox import append
from chapps_tw.interfaces.book import BookConflict, BookUnavailable, ChangeUncertain, StaleKeys

R = TypeVar("R")

ATTEMPTS: Final = 3

# SQLite has waited for its busy timeout by then.
_BUSY: Final = "SQLITE_BUSY"

_OTHERS: Final = "Another client is changing the database"

# PostgreSQL: serialization failure, deadlock, lock not available. MariaDB: lock wait timeout, deadlock,
# record has changed since last read. SQLite: busy timeout.
_CONTENTION: Final = frozenset(("40001", "40P01", "55P03", 1205, 1213, 1020, _BUSY))
# PostgreSQL; MariaDB: a server, a transaction, a storage engine.
_READ_ONLY: Final = frozenset(("25006", 1290, 1792, 1836))
_UNIQUE: Final = frozenset(("23505", 1062, "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"))
_FOREIGN_KEY: Final = frozenset(("23503", 1452, "SQLITE_CONSTRAINT_FOREIGNKEY"))


_SEQUENCE_BEHIND: Final = (
    "The id sequence of {table} is behind its rows, so that no row can be added. Its administrator must run "
    "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
)


class Stored(NamedTuple, Generic[R]):
    """A committed change.

    :ivar value: its result.
    :ivar stale: keys of the cached values that it makes stale.
    :ivar rows: ids of its rows in the outbox.
    """

    value: R
    stale: StaleKeys
    rows: tuple[str, ...]


class Permit:
    """Arbitrates between the thread that commits and the caller that gives up.

    The first one wins, so a change that was reported as failed is never stored.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._committing = False
        self._given_up = False

    def commit(self) -> None:
        """Begin to commit: from now on, the caller waits for the outcome.

        :raises BookUnavailable: if the caller has given up.
        """
        with self._lock:
            if self._given_up:
                raise BookUnavailable("The change took too long and was rolled back")
            self._committing = True

    def give_up(self) -> bool:
        """Return whether the caller may give up: the change will not be committed."""
        with self._lock:
            self._given_up = self._given_up or not self._committing
            return self._given_up


def transact(
    engine: Engine, work: Callable[[Connection], tuple[R, StaleKeys]], permit: Permit, taken: str
) -> Stored[R]:
    """Apply a change in a transaction; retry it after a conflict with another writer.

    The stale keys are added to the invalidation outbox in the same transaction.

    :param work: applies the change; returns its result and the stale keys.
    :param taken: the sentence for a unique key that is taken.
    :raises BookConflict: if a unique key is taken, or a value does not fit.
    :raises BookUnavailable: if other writers hold the lock, the caller has given up, the database is read-only, or its
        id sequence is behind. Lookups may still work.
    :raises ChangeUncertain: if the connection was lost during the commit.
    :raises sqlalchemy.exc.SQLAlchemyError: if the database is unavailable.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with engine.connect().execution_options(**{WRITES: True}) as connection:
            try:
                return _once(connection, work, permit)
            except DBAPIError as error:
                kind, last = code(error), reason(error)
                _require_retryable(engine, error, taken)
        if kind == _BUSY:
            break
        if kind in _READ_ONLY:
            # After a failover, the connections may still lead to the former primary.
            engine.dispose()
        if attempt == ATTEMPTS and kind in _UNIQUE | _FOREIGN_KEY:
            raise BookConflict(f"Another client is changing the same links: {last}")
    raise BookUnavailable(f"{'The database is read-only' if kind in _READ_ONLY else _OTHERS}: {last}")


def _require_retryable(engine: Engine, error: DBAPIError, taken: str) -> None:
    """Raise the exception of :func:`transact` for an error that a retry would not cure."""
    kind = code(error)
    if kind in _UNIQUE and (table := _ids_of(error)):
        raise BookUnavailable(_SEQUENCE_BEHIND.format(table=table)) from None
    if kind in _UNIQUE and not _of_link(error):
        raise BookConflict(taken) from None
    if isinstance(error.orig, engine.dialect.loaded_dbapi.DataError):
        raise BookConflict(f"The database rejects this value: {reason(error)}") from None
    if kind not in _CONTENTION | _UNIQUE | _FOREIGN_KEY | _READ_ONLY:
        raise _refusal(error) from None


def _refusal(error: DBAPIError) -> Exception:
    """Return the exception for a failed change. Only a lost connection means that lookups fail too."""
    if error.connection_invalidated:
        return error
    why = _OTHERS if code(error) in _CONTENTION else "The database rejected the change"
    return BookUnavailable(f"{why}: {reason(error)}")


def _once(connection: Connection, work: Callable[[Connection], tuple[R, StaleKeys]], permit: Permit) -> Stored[R]:
    connection.begin()
    lock(connection)
    value, stale = work(connection)
    rows = append(connection, stale)
    permit.commit()
    try:
        connection.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise ChangeUncertain(reason(error), stale) from None
        raise
    return Stored(value, stale, rows)


def write(engine: Engine, work: Callable[[Connection], R]) -> R:
    """Run a transaction that is not a change of the book, and so does not take its lock; return its result.

    :raises BookUnavailable: if another writer holds a lock, or the database is read-only.
    :raises sqlalchemy.exc.SQLAlchemyError: if the database is unavailable.
    """
    with engine.connect().execution_options(**{WRITES: True}) as connection:
        try:
            with connection.begin():
                return work(connection)
        except DBAPIError as error:
            raise _refusal(error) from None


def lock(connection: Connection) -> None:
    """Wait until no other change is running, on any node.

    The stale keys of a change depend on links that another one may be changing. SQLite allows only one writer anyway;
    on the others, writers queue for a row lock.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT version_num FROM alembic_version FOR UPDATE"))


def _ids_of(error: DBAPIError) -> str:
    """Return the table whose PostgreSQL sequence yielded an id that is in use; ``""`` for other errors.

    Rows that were copied in with their ids leave the sequence behind.
    """
    report = getattr(error.orig, "diag", None)
    constraint, table = getattr(report, "constraint_name", None), getattr(report, "table_name", None)
    return str(table) if table in metadata.tables and constraint in (f"pk_{table}", f"{table}_pkey") else ""


def _of_link(error: DBAPIError) -> bool:
    """Return whether the link exists already: another client added it, since our changes check first."""
    return any(table in str(error.orig) for table in ("domain_user", "email_user", "quota_user"))
