"""One change of the book: one transaction, one writer at a time, and an outcome that is known."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Final, Generic, NamedTuple, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from chapps_tw.database.engine import WRITES
from chapps_tw.database.errors import code, reason
from chapps_tw.database.models import TABLES
from chapps_tw.database.outbox import append
from chapps_tw.interfaces.book import BookConflict, BookUnavailable, ChangeUncertain, StaleKeys

R = TypeVar("R")

ATTEMPTS: Final = 3

# SQLite has waited long enough by then.
_BUSY: Final = "SQLITE_BUSY"

_OTHERS: Final = "Another client is changing the database"

# PostgreSQL: serialization failure, deadlock, lock not available. MariaDB: lock wait timeout, deadlock,
# record changed since it was read. SQLite: another writer was not done in time.
_CONTENTION: Final = frozenset(("40001", "40P01", "55P03", 1205, 1213, 1020, _BUSY))
# PostgreSQL; MariaDB: a server, a transaction, a storage engine.
_READ_ONLY: Final = frozenset(("25006", 1290, 1792, 1836))
_UNIQUE: Final = frozenset(("23505", 1062, "SQLITE_CONSTRAINT_UNIQUE", "SQLITE_CONSTRAINT_PRIMARYKEY"))
_FOREIGN_KEY: Final = frozenset(("23503", 1452, "SQLITE_CONSTRAINT_FOREIGNKEY"))


_BEHIND: Final = (
    "The id sequence of {table} is behind its rows, so that no row can be added. Its administrator must run "
    "SELECT setval(pg_get_serial_sequence('{table}', 'id'), (SELECT max(id) FROM {table}))"
)


class Stored(NamedTuple, Generic[R]):
    """A change that is committed.

    :ivar value: its result.
    :ivar stale: keys of the cached values that it made stale.
    :ivar rows: ids of the rows of the outbox that list them.
    """

    value: R
    stale: StaleKeys
    rows: tuple[str, ...]


class Permit:
    """Decides between the thread that wants to commit and the waiter that wants to give up.

    The first decides, so a change that its waiter was told had failed is never stored.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._committing = False
        self._given_up = False

    def commit(self) -> None:
        """From here on the outcome is waited for.

        :raises BookUnavailable: when the waiter has gone.
        """
        with self._lock:
            if self._given_up:
                raise BookUnavailable("The change took too long and was rolled back")
            self._committing = True

    def give_up(self) -> bool:
        """Whether the waiter may go: the change will not come into force."""
        with self._lock:
            self._given_up = self._given_up or not self._committing
            return self._given_up


def transact(
    engine: Engine, work: Callable[[Connection], tuple[R, StaleKeys]], permit: Permit, taken: Callable[[str], str]
) -> Stored[R]:
    """Do a change in a transaction; again when another writer was in the way.

    What it makes stale is added to the invalidation outbox in the same transaction.

    :param work: does the change; returns its result, and what it makes stale.
    :param taken: makes a sentence from the driver's text about a unique key.
    :raises BookConflict: for a unique key that is taken, or a value that does not fit.
    :raises BookUnavailable: when other writers hold the lock, the waiter has gone, or the database takes no
        changes or its id sequence is behind. Lookups may be answered all the same.
    :raises ChangeUncertain: when the database was lost while it was committing.
    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be asked.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with engine.connect().execution_options(**{WRITES: True}) as connection:
            try:
                return _once(connection, work, permit)
            except DBAPIError as error:
                kind, last = code(error), reason(error)
                _require_another_try(engine, error, taken)
        if kind == _BUSY:
            break
        if kind in _READ_ONLY:
            # After a failover, the connections may lead to what was the primary before.
            engine.dispose()
        if attempt == ATTEMPTS and kind in _UNIQUE | _FOREIGN_KEY:
            raise BookConflict(f"Another client is changing the same links: {last}")
    raise BookUnavailable(f"{'The database is read-only' if kind in _READ_ONLY else _OTHERS}: {last}")


def _require_another_try(engine: Engine, error: DBAPIError, taken: Callable[[str], str]) -> None:
    """Raise what :func:`transact` does for an error that would only come again."""
    kind = code(error)
    if kind in _UNIQUE and (table := _ids_of(error)):
        raise BookUnavailable(_BEHIND.format(table=table)) from None
    if kind in _UNIQUE and not _of_link(error):
        raise BookConflict(taken(str(error.orig))) from None
    if isinstance(error.orig, engine.dialect.loaded_dbapi.DataError):
        raise BookConflict(f"The database rejects this value: {reason(error)}") from None
    if kind not in _CONTENTION | _UNIQUE | _FOREIGN_KEY | _READ_ONLY:
        raise _refusal(error) from None


def _refusal(error: DBAPIError) -> Exception:
    """What a change fails with. Only a lost connection says that lookups need not be tried either."""
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


def write(engine: Engine, work: Callable[[Connection], None]) -> None:
    """Do something in a transaction that is no change of the book, and need not wait for those.

    :raises BookUnavailable: when another writer is in the way, or the database is read-only.
    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be asked.
    """
    with engine.connect().execution_options(**{WRITES: True}) as connection:
        try:
            with connection.begin():
                work(connection)
        except DBAPIError as error:
            raise _refusal(error) from None


def lock(connection: Connection) -> None:
    """Wait until no other change is under way, on any node.

    What a change makes stale depends on links that another may be changing. SQLite has let in only one
    writer already; elsewhere they queue for a row that is always there.
    """
    if connection.dialect.name != "sqlite":
        connection.execute(text("SELECT version_num FROM alembic_version FOR UPDATE"))


def _ids_of(error: DBAPIError) -> str:
    """The table for which PostgreSQL has given out an id that is in use; ``""`` when it is something else.

    Rows that were copied in with their ids leave its sequence behind.
    """
    report = getattr(error.orig, "diag", None)
    constraint, table = getattr(report, "constraint_name", None), getattr(report, "table_name", None)
    return str(table) if table in TABLES and constraint in (f"pk_{table}", f"{table}_pkey") else ""


def _of_link(error: DBAPIError) -> bool:
    """Whether it is a link that is there already: another client's, since ours look first."""
    return any(table in str(error.orig) for table in ("domain_user", "email_user", "quota_user"))
