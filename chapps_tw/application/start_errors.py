"""Why the service cannot start: in the words of the configuration, and with what would help."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure

from chapps_tw.config.checks import Place, unix_path
from chapps_tw.config.settings import Settings
from chapps_tw.database.engine import make_engine
from chapps_tw.database.errors import code, reason
from chapps_tw.database.schema import SchemaError
from chapps_tw.security.private_files import explain
from chapps_tw.sockets.unix_socket import room_for

# MariaDB: access denied, access denied without a password, to a database, unknown database.
_LOGIN_CODES, _NAME_CODES = (1045, 1698, "28000", "28P01"), (1044, 1049, "3D000")

_TAKEN = "is taken by another program (ss -ltnxp shows it); end that, or choose another"


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


# --- listeners ---


def _make_endpoint(settings: Settings, where: Place, reactor: Any) -> Any:
    """The Twisted endpoint of a place. Nothing listens yet.

    :raises StartError: when there is none.
    """
    description = where.endpoint
    path = unix_path(description)
    if (path or description.startswith("tcp")) and "backlog=" not in description:
        description += f":backlog={settings.chapps.listener_backlog}"
    if path:
        # room_for knows better.
        description += ":lockfile=0"
    try:
        return parse_endpoint(description, reactor)
    except ValueError as error:
        raise StartError(f"{_place(settings, where)}: {error}") from None


def parse_endpoint(description: str, reactor: Any) -> Any:
    """The Twisted endpoint of a description.

    :raises ValueError: with what is wrong, and what would be right.
    """
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        # Each kind of endpoint has its own parser, and each parser its own errors.
        raise ValueError(_unfit(description, error)) from None


def listen(settings: Settings, where: Place, reactor: Any, factory: Any) -> IListeningPort:
    """Listen at a place.

    :raises StartError: when that cannot be done.
    """
    # Server endpoints listen at once: one of the two has something in it now.
    opened: list[IListeningPort] = []
    failed: list[Failure] = []
    endpoint = _make_endpoint(settings, where, reactor)
    path = unix_path(where.endpoint)
    try:
        with room_for(path) if path else nullcontext():
            endpoint.listen(factory).addCallbacks(opened.append, failed.append)
    except OSError as error:
        failed.append(Failure(error))
    if failed:
        raise StartError(f"{_place(settings, where)}: {_not_listening(failed[0].value)}")
    return opened[0]


def _place(settings: Settings, where: Place) -> str:
    return f"{place(settings, where.section, where.option)} = {where.value!r}"


def no_address(interface: object) -> str:
    """What is said of an address that cannot be listened at here."""
    return f"this machine has no address {interface}; choose another, or 127.0.0.1 for this machine alone"


def _unfit(description: str, error: Exception) -> str:
    if description.startswith("systemd:") and isinstance(error, LookupError):
        wanted = re.search(r"(name|index)=([^:]*)", description)
        which = f"{wanted[1]} {wanted[2]}" if wanted else "this name"
        return (
            f"systemd handed over no socket of {which}; enable its unit (systemctl enable --now chapps.socket) "
            "and let systemd start the service"
        )
    if isinstance(error, OSError):
        file = error.filename if isinstance(error.filename, str) else description
        return f"{file} cannot be opened: {explain(file, error)}"
    if description.startswith("ssl:") and not isinstance(error, (ValueError, TypeError)):
        return f"the certificate or its key cannot be used ({type(error).__name__}: {error})"
    return f"must be a Twisted endpoint, such as tcp:10225:interface=127.0.0.1 ({error})"


def _not_listening(error: BaseException | None) -> str:
    if isinstance(error, OSError):
        return f"the socket cannot be made: {explain('', error)}"
    if not isinstance(error, CannotListenError):
        return f"cannot be listened on: {error}"
    problem = error.socketError
    if isinstance(error.port, bytes | str):
        return _no_unix_socket(os.fsdecode(error.port), problem)
    number = problem.errno if isinstance(problem, OSError) else None
    if number == errno.EADDRINUSE:
        return f"port {error.port} {_TAKEN}"
    if number == errno.EADDRNOTAVAIL:
        return no_address(error.interface)
    if number == errno.EACCES:
        return f"port {error.port} is not for everybody; choose one above 1023"
    return f"port {error.port} cannot be listened on: {problem}"


def _no_unix_socket(path: str, problem: object) -> str:
    if not isinstance(problem, OSError):
        return f"socket {path} cannot be listened on: {problem}"
    if problem.errno != errno.EADDRINUSE:
        return f"socket {path} cannot be made: {explain(path, problem)}"
    if os.path.exists(path) and not stat.S_ISSOCK(os.stat(path).st_mode):
        return f"{path} is there and no socket; remove it, or choose another"
    return f"socket {path} {_TAKEN}"


# --- the database ---


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
