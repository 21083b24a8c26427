"""One request to a policy service, as Postfix would send it (SMTPD_POLICY_README)."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence

from chapps_tw.cli.session import CommandError, Unreachable
from chapps_tw.cli.target import LOOPBACK
from chapps_tw.config.checks import port_and_interface, unix_path
from chapps_tw.config.settings import Listener
from chapps_tw.policies.registry import BUILT_IN, Registry

_MAX_BYTES = 65536


def address_of(
    listeners: Sequence[Listener], name: str, outbound: bool, registry: Registry = BUILT_IN
) -> tuple[str, int] | str:
    """Return the address of a configured listener: host and port, or the path of a unix socket.

    :param name: of the listener; if empty, the first one for outbound or inbound mail, as ``outbound`` says.
    :param registry: the installed policies.
    :raises CommandError: if there is no such listener, or its endpoint has no address.
    """
    fitting = [each for each in listeners if each.name == name] if name else _fitting(listeners, outbound, registry)
    if not fitting:
        names = ", ".join(each.name for each in listeners) or "none"
        raise CommandError(f"the configuration has no listener {name}; it has: {names}")
    endpoint = fitting[0].listen
    port, interface = port_and_interface(endpoint)
    where = unix_path(endpoint) or (LOOPBACK.get(interface, interface), port)
    if port < 1 and not isinstance(where, str):
        raise CommandError(f"{endpoint!r} of listener {fitting[0].name} has no address: give --port or --socket")
    return where


def _fitting(listeners: Sequence[Listener], outbound: bool, registry: Registry) -> Sequence[Listener]:
    found = [each for each in listeners if outbound != registry.is_inbound(each.policies)]
    return found or listeners


def request(user: str, sender: str, recipient: str, client: str, others: Mapping[str, str]) -> bytes:
    """Return a request at RCPT as Postfix sends it, for a new message unless ``others`` has an ``instance``.

    :raises CommandError: if an attribute is invalid or has more than one line.
    """
    attributes = {
        "request": "smtpd_access_policy",
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": client,
        "client_name": "unknown",
        "helo_name": f"[{client}]",
        "sasl_method": "PLAIN" if user else "",
        "sasl_username": user,
        "sender": sender,
        "recipient": recipient,
        "recipient_count": "0",
        "instance": secrets.token_hex(8),
        "size": "0",
        **others,
    }
    for name, value in attributes.items():
        if not name or set(name + value) & set("\n\r\0") or "=" in name:
            raise CommandError(f"{name}={value!r} must be one line: NAME=VALUE")
    text = "".join(f"{name}={value}\n" for name, value in attributes.items())
    return (text + "\n").encode("utf-8", "surrogateescape")


def ask(address: tuple[str, int] | str, data: bytes, timeout: float) -> str:
    """Send a request and return the answer.

    :param address: host and port, or the path of a unix socket.
    :param data: the request.
    :param timeout: for connecting, and for each read, in seconds.
    :returns: the answer without its empty line, such as ``action=DUNNO``.
    :raises CommandError: if the host name is invalid; :exc:`Unreachable` if the connection fails, or the answer is
        incomplete.
    """
    where = address if isinstance(address, str) else "{}:{}".format(*address)
    try:
        with _connect(address, timeout) as connection:
            connection.sendall(data)
            return _answer(connection, where)
    except TimeoutError:
        raise Unreachable(f"{where} did not answer in {timeout:g} s") from None
    except UnicodeError:
        raise CommandError(f"{where} is not a host name") from None
    except OSError as error:
        raise Unreachable(f"cannot connect to {where}: {error.strerror or error}") from error


def _connect(address: tuple[str, int] | str, timeout: float) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, timeout)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(timeout)
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def _answer(connection: socket.socket, where: str) -> str:
    received = b""
    while b"\n\n" not in received:
        part = connection.recv(4096)
        received += part
        if not part or len(received) > _MAX_BYTES:
            raise Unreachable(f"{where} sent no complete answer")
    return received.partition(b"\n\n")[0].decode("utf-8", "replace")
