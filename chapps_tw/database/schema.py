"""The schema of the database: its revision, and the upgrade to the newest.

An existing CHAPPS database is continued: its revisions are the first two of ours. One that CHAPPS
made without Alembic is recognized by its tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, Engine, NullPool, column, create_engine, false, inspect, select, table, text

from chapps_tw.database import normal_names
from chapps_tw.database.engine import WRITES
from chapps_tw.database.errors import SET_UP
from chapps_tw.database.models import CHAPPS_TABLES, OWN_COLUMNS, metadata
from chapps_tw.database.transaction import lock

TABLES_REVISION: Final = "ce81767cec26"
FLAGS_REVISION: Final = "0b5ef72836bd"
# The newest: that of the scripts, known without reading them.
HEAD: Final = "8b1e6d3f40a7"
_FLAGS: Final = frozenset({"greylist", "check_spf"})
# The key of an advisory lock that nothing else in the database uses.
_LOCK: Final = 0x43484150
# Alembic's own table.
_VERSION: Final = table("alembic_version", column("version_num"))


class SchemaError(Exception):
    """The schema cannot be used. The message says why in one sentence."""


class SchemaBehind(SchemaError):
    """The schema is missing or out of date."""


class SchemaForeign(SchemaError):
    """The database belongs to a newer version, or to another program."""


def current(engine: Engine) -> str:
    """The revision that a database is at, ``""`` for one without our tables.

    :raises SchemaForeign: when it is none that we know.
    """
    with engine.connect() as connection:
        return _revision(connection)


def check(engine: Engine) -> None:
    """Make sure that the schema is the one that this version works with.

    :raises SchemaBehind: when ``chapps-cli admin db-setup`` has to be run first.
    :raises SchemaForeign: when the database belongs to a newer version, or to something else.
    """
    with engine.connect() as connection:
        _require_encoding(connection)
        found = _revision(connection)
    if found != HEAD:
        raise SchemaBehind(_behind(found) if found else f"The database has no tables yet: {SET_UP}.")


def remark(connection: Connection) -> str:
    """Check in one small query that the tables and columns for lookups exist.

    :returns: a sentence if the revision is not the one that this version needs, else ``""``.
    :raises sqlalchemy.exc.SQLAlchemyError: if something is missing or locked.
    """
    tables = [select(each).where(false()).exists() for each in metadata.sorted_tables]
    found = tuple(connection.scalars(select(_VERSION.c.version_num, *tables)))
    if found == (HEAD,):
        return ""
    try:
        return _behind(_known(found))
    except SchemaForeign as error:
        return str(error)


def _say_nothing(sentence: str) -> None:
    pass


def upgrade(engine: Engine, say: Callable[[str], None] = _say_nothing) -> str:
    """Create the tables, or upgrade them and keep their rows. Several processes may do so at once.

    :param say: called with sentences about names, see :func:`~chapps_tw.database.normal_names.normalise`.
    :returns: the revision before.
    :raises SchemaForeign: if the database belongs to a newer version, or to another program.
    """
    with _exclusive(engine) as connection:
        _require_encoding(connection)
        found = _revision(connection)
        if found == HEAD:
            return found
        from chapps_tw.database import revisions

        revisions.run(connection, "" if _versions(connection) else found)
        lock(connection)
        normal_names.normalise(connection, say)
        return found


def normalise_names(engine: Engine, say: Callable[[str], None]) -> None:
    """Normalize the names again: others may have been written since the upgrade, or ``fold_case`` was changed.

    :param say: as for :func:`upgrade`.
    """
    with _exclusive(engine) as connection:
        lock(connection)
        normal_names.normalise(connection, say)


def preview(engine: Engine, say: Callable[[str], None]) -> str:
    """Report what :func:`upgrade` would do about names, without changes. Same parameters, result and exceptions."""
    with engine.connect() as connection:
        found = _revision(connection)
        if found:
            normal_names.preview(connection, say)
        return found


def prepare(engine: Engine, say: Callable[[str], None] = _say_nothing) -> None:
    """Prepare for a start: create or upgrade an SQLite file, but only check the schema on a server.

    :param say: as for :func:`upgrade`.
    :raises SchemaError: see :func:`check`.
    """
    if engine.dialect.name == "sqlite":
        upgrade(engine, say)
    else:
        check(engine)


def _require_encoding(connection: Connection) -> None:
    """Reject a PostgreSQL database with the encoding SQL_ASCII: names could not be compared.

    :raises SchemaForeign: if so.
    """
    if connection.dialect.name != "postgresql":
        return
    driver: Any = connection.connection.driver_connection
    if driver.info.parameter_status("server_encoding") == "SQL_ASCII":
        raise SchemaForeign(
            "The database has the encoding SQL_ASCII, which supports only ASCII text: create another one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and configure that."
        )


def _behind(found: str) -> str:
    return f"The database is at revision {found}, and this version needs {HEAD}: {SET_UP}."


@contextmanager
def _exclusive(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction, with an exclusive lock on the schema."""
    lock = {"sqlite": _lock_sqlite, "postgresql": _lock_postgresql}.get(engine.dialect.name, _lock_mariadb)
    with lock(engine) as connection:
        yield connection


@contextmanager
def _lock_sqlite(engine: Engine) -> Iterator[Connection]:
    with engine.connect().execution_options(**{WRITES: True}) as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        # A column is altered by recreating its table; the links must survive the DROP of the old one.
        driver.execute("PRAGMA foreign_keys = OFF")
        try:
            with connection.begin():
                yield connection
        finally:
            driver.execute("PRAGMA foreign_keys = ON")


@contextmanager
def _lock_postgresql(engine: Engine) -> Iterator[Connection]:
    with engine.begin() as connection:
        # Migrations of large tables take longer than the timeout of a lookup.
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


@contextmanager
def _lock_mariadb(engine: Engine) -> Iterator[Connection]:
    # The timeouts of the engine's own connections are too short for large tables.
    options = engine.get_execution_options()
    patient = create_engine(engine.url, poolclass=NullPool, hide_parameters=True, execution_options=options)
    with patient.begin() as connection:
        connection.execute(text("SELECT GET_LOCK('chapps', -1)"))
        # The lock ends with the connection.
        yield connection


def _versions(connection: Connection) -> tuple[str, ...]:
    if not inspect(connection).has_table(_VERSION.name):
        return ()
    return tuple(connection.scalars(select(_VERSION.c.version_num)))


def _revision(connection: Connection) -> str:
    versions = _versions(connection)
    return _known(versions) if versions else _recognize(connection)


def _known(versions: tuple[str, ...]) -> str:
    if versions == (HEAD,):
        return HEAD
    from chapps_tw.database import revisions

    if len(versions) != 1 or versions[0] not in revisions.known():
        raise SchemaForeign(
            f"The database is at revision {', '.join(versions) or 'none'}, which this version does not know: it was set"
            " up by a newer version or by another program. Install that version, or configure another database."
        )
    return versions[0]


def _recognize(connection: Connection) -> str:
    """Return the revision of tables without a version, by their columns."""
    inspector = inspect(connection)
    existing = set(inspector.get_table_names()) & {table.name for table in CHAPPS_TABLES}
    if not existing:
        return ""
    columns = {table: {column["name"] for column in inspector.get_columns(table)} for table in existing}
    lacks = [
        f"{table.name}.{column.name}"
        for table in CHAPPS_TABLES
        for column in table.columns
        if column.name not in OWN_COLUMNS and column.name not in columns.get(table.name, ())
    ]
    if not lacks:
        return FLAGS_REVISION
    if lacks == [f"domains.{name}" for name in ("greylist", "check_spf")]:
        return TABLES_REVISION
    raise SchemaForeign(
        f"The database has tables named {', '.join(sorted(existing))}, but lacks {', '.join(lacks)}: they are not"
        " those of CHAPPS. Configure another database."
    )
