"""Listening on endpoints, and explanations of failures."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import nullcontext
from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chapps_tw.application.start_errors import StartError, place
from chapps_tw.config.checks import Place, unix_path
from chapps_tw.config.settings import Settings
from chapps_tw.security.private_files import explain
from chapps_tw.sockets.unix_socket import room_for

_TAKEN = "is taken by another program (ss -ltnxp shows it); end that, or choose another"


def _make_endpoint(settings: Settings, where: Place, reactor: Any) -> Any:
    """Return the Twisted endpoint for a place, without listening.

    :raises StartError: if its description is invalid.
    """
    description = where.endpoint
    path = unix_path(description)
    if (path or description.startswith("tcp")) and "backlog=" not in description:
        description += f":backlog={settings.chapps.listener_backlog}"
    if path:
        # room_for() does this better.
        description += ":lockfile=0"
    try:
        return parse_endpoint(description, reactor)
    except ValueError as error:
        raise StartError(f"{_place(settings, where)}: {error}") from None


def parse_endpoint(description: str, reactor: Any) -> Any:
    """Return the Twisted endpoint for a description.

    :raises ValueError: with the error and the remedy.
    """
    try:
        return serverFromString(reactor, description)
    except Exception as error:
        # Each kind of endpoint has its own parser, with its own exceptions.
        raise ValueError(_unfit(description, error)) from None


def listen(settings: Settings, where: Place, reactor: Any, factory: Any) -> IListeningPort:
    """Listen at a place.

    :raises StartError: on failure.
    """
    # Server endpoints listen synchronously, so that one of the lists is filled at once.
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


class _Nowhere:
    """Takes the place of a reactor, to get what an endpoint would listen with.

    :ivar found: the factory of TLS connections; empty if the endpoint has no TLS.
    """

    def __init__(self) -> None:
        self.found: list[TLSMemoryBIOFactory] = []

    def listenSSL(self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = "") -> None:
        # A key that does not fit the certificate is noticed here.
        contextFactory.getContext()
        self.found.append(TLSMemoryBIOFactory(contextFactory, False, factory))

    def listenTCP(self, *_: object, **__: object) -> None:
        """Listen nowhere."""


def has_certificate(description: str) -> bool:
    """Return whether an endpoint has a certificate of its own."""
    return description.removeprefix("haproxy:").startswith("ssl:")


def tls_factory(description: str, factory: Any) -> TLSMemoryBIOFactory:
    """Read the certificate and the key of an endpoint again; return what accepts connections with them.

    :param factory: of the connections inside TLS.
    :raises ValueError: if they cannot be used; says why.
    """
    nowhere = _Nowhere()
    failed: list[Failure] = []
    parse_endpoint(description, nowhere).listen(factory).addErrback(failed.append)
    if failed:
        raise ValueError(_unfit(description, failed[0].value))
    return nowhere.found[0]


def _place(settings: Settings, where: Place) -> str:
    return f"{place(settings, where.section, where.option)} = {where.value!r}"


def no_address(interface: object) -> str:
    """Return the explanation for an address that this machine does not have."""
    return f"this machine has no address {interface}; choose another, or 127.0.0.1 for this machine only"


def _unfit(description: str, error: BaseException | None) -> str:
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
    if has_certificate(description) and not isinstance(error, (ValueError, TypeError)):
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
