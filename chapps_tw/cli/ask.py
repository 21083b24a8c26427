"""``chapps-cli ask``: put one question to a policy service, as Postfix would (SMTPD_POLICY_README)."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping, Sequence

from chapps_tw.config.checks import port_and_interface, unix_path
from chapps_tw.config.settings import Listener
from chapps_tw.policies.registry import BUILT_IN, Registry

# SPF may take 20 s by default; Postfix itself waits 100 s.
SECONDS = 30.0
_MOST_BYTES = 65536


class AskError(Exception):
    """There is no answer. Says why in one sentence."""


def address_of(
    listeners: Sequence[Listener], name: str, outbound: bool, registry: Registry = BUILT_IN
) -> tuple[str, int] | str:
    """Where a listener of the configuration is asked: host and port, or the path of a unix socket.

    :param name: of the listener; empty is the first that judges mail from users, or else mail from the world.
    :param registry: the policies that there are.
    :raises AskError: when there is no such listener, or it does not say where it is.
    """
    fitting = [each for each in listeners if each.name == name] if name else _fitting(listeners, outbound, registry)
    if not fitting:
        names = ", ".join(each.name for each in listeners) or "none"
        raise AskError(f"the configuration has no listener {name}; it has: {names}")
    endpoint = fitting[0].listen
    port, interface = port_and_interface(endpoint)
    where = unix_path(endpoint) or (_LOOPBACK.get(interface, interface), port)
    if port < 1 and not isinstance(where, str):
        raise AskError(f"{endpoint!r} of listener {fitting[0].name} does not say where: give --port or --socket")
    return where


# Of a listener on all addresses, the one to ask.
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def _fitting(listeners: Sequence[Listener], outbound: bool, registry: Registry) -> Sequence[Listener]:
    found = [each for each in listeners if outbound != registry.is_inbound(each.policies)]
    return found or listeners


def request(user: str, sender: str, recipient: str, client: str, others: Mapping[str, str]) -> bytes:
    """A request at RCPT as Postfix writes it, of a message of its own unless ``others`` has an instance.

    :raises AskError: when a value has more than one line.
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
            raise AskError(f"{name}={value!r} must be one line: NAME=VALUE")
    text = "".join(f"{name}={value}\n" for name, value in attributes.items())
    return (text + "\n").encode("utf-8", "surrogateescape")


def ask(address: tuple[str, int] | str, question: bytes, seconds: float = SECONDS) -> str:
    """Send a request and read the answer.

    :param address: host and port, or the path of a unix socket.
    :param seconds: how long to wait for the connection, and for each part of the answer.
    :returns: the answer without its empty line, such as ``action=DUNNO``.
    :raises AskError: when nobody listens there, or no whole answer comes.
    """
    where = address if isinstance(address, str) else "{}:{}".format(*address)
    try:
        with _connect(address, seconds) as connection:
            connection.sendall(question)
            return _answer(connection, where)
    except TimeoutError:
        raise AskError(f"{where} did not answer in {seconds:g} s") from None
    except UnicodeError:
        raise AskError(f"{where} is no name of a host") from None
    except OSError as error:
        raise AskError(f"{where} cannot be asked: {error.strerror or error}") from error


def _connect(address: tuple[str, int] | str, seconds: float) -> socket.socket:
    if not isinstance(address, str):
        return socket.create_connection(address, seconds)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(seconds)
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
        if not part or len(received) > _MOST_BYTES:
            raise AskError(f"{where} ended the connection without a whole answer")
    return received.partition(b"\n\n")[0].decode("utf-8", "replace")
