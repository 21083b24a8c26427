"""Why the service cannot start: in the words of the configuration, and with what would help."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from chapps_tw.config.settings import Settings
from chapps_tw.database.engine import make_engine
from chapps_tw.database.errors import code, reason
from chapps_tw.database.schema import SchemaError
from chapps_tw.security.private_files import explain

# MariaDB: access denied, access denied without a password, to a database, unknown database.
_LOGIN_CODES, _NAME_CODES = (1045, 1698, "28000", "28P01"), (1044, 1049, "3D000")


class StartError(Exception):
    """Something that the process needs cannot be opened. Says which option it comes from, and what would help."""


def place(settings: Settings, section: str, *options: str) -> str:
    """Where some options are given: ``FILE: [SECTION] OPTION, OPTION``, or their variables in the environment."""
    variables = [name for name in options if (section, name) in settings.overridden]
    others = [name for name in options if name not in variables]
    found = [f"{settings.path or 'built-in configuration'}: [{section}] {', '.join(others)}"] if others else []
    if variables:
        found.append("environment: " + ", ".join(f"CHAPPS_{section}_{name}".upper() for name in variables))
    return " and ".join(found)


@contextmanager
def opening(settings: Settings, section: str, option: str, path: str) -> Iterator[None]:
    """Say of a file or directory that cannot be opened which option names it.

    :raises StartError: for an ``OSError`` inside.
    """
    try:
        yield
    except OSError as error:
        where, file = place(settings, section, option), error.filename or path
        raise StartError(f"{where}: {file} cannot be opened: {explain(file, error)}") from None


def open_engine(settings: Settings) -> Engine:
    """The engine of the database; SQLite's file is made, a server is not connected to yet.

    :raises StartError: when the file cannot be made, or the driver does not know what ``db_url`` asks of it.
    :raises ConfigError: when ``db_url`` is none.
    """
    adapter = settings.adapter
    try:
        with opening(settings, adapter.section, "db_url" if adapter.db_url else "db_name", adapter.db_name):
            chapps = settings.chapps
            return make_engine(adapter, settings.db_password, chapps.data_dir, chapps.fold_case)
    except (SQLAlchemyError, ValueError, TypeError) as error:
        raise StartError(database_problem(settings, error)) from None


def database_refuses(error: BaseException) -> bool:
    """Whether a database server is there and does not let us in: by user, password or name of the database."""
    return bool(_refused_options(error))


def database_problem(settings: Settings, error: BaseException) -> str:
    """Why the database cannot be used, and which options are to be looked at: a sentence."""
    adapter = settings.adapter
    why = str(error) if isinstance(error, SchemaError) else reason(error)
    options = ("db_name",) if isinstance(error, SchemaError) else _refused_options(error) or ("db_host", "db_port")
    if adapter.db_url:
        options = ("db_url",)
    elif adapter.adapter == "sqlite":
        options = ("db_name",)
    elif adapter.db_pass_file:
        options = tuple(name.replace("db_pass", "db_pass_file") for name in options)
    return f"{place(settings, adapter.section, *options)}: the database cannot be used: {why}"


def _refused_options(error: BaseException) -> tuple[str, ...]:
    """The options that a server refuses, none when it is something else."""
    if not isinstance(error, DBAPIError):
        return ()
    kind, text = code(error), reason(error)
    if kind in _LOGIN_CODES:
        return "db_user", "db_pass"
    if kind in _NAME_CODES:
        return ("db_name",)
    # libpq gives no code for what went wrong while it connected.
    if re.search(r'database "[^"]*" does not exist', text):
        return ("db_name",)
    if re.search(r'password|authentication|pg_hba\.conf|role "', text):
        return "db_user", "db_pass"
    # The server may say it in another language; that it asked for the password before is told in none.
    asked = getattr(getattr(error.orig, "pgconn", None), "used_password", False)
    return ("db_user", "db_pass", "db_name") if asked and not kind else ()
