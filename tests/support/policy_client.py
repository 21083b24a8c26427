"""A small blocking client of the policy protocol, in place of smtpd(8)."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Mapping
from types import TracebackType

from tests.support.servers.common import HANGS

Address = tuple[str, int] | str

_numbers = itertools.count(1)

_REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "203.0.113.50",
    "client_name": "laptop.example.com",
    "client_port": "52000",
    "reverse_client_name": "laptop.example.com",
    "server_address": "192.0.2.25",
    "server_port": "587",
    "helo_name": "laptop.example.com",
    "sender": "ann@example.com",
    "recipient": "bob@example.net",
    "recipient_count": "0",
    "queue_id": "",
    "instance": "",
    "size": "0",
    "etrn_domain": "",
    "stress": "",
    "sasl_method": "PLAIN",
    "sasl_username": "ann",
    "sasl_sender": "",
    "ccert_subject": "",
    "ccert_issuer": "",
    "ccert_fingerprint": "",
    "ccert_pubkey_fingerprint": "",
    "encryption_protocol": "",
    "encryption_cipher": "",
    "encryption_keysize": "0",
    "policy_context": "",
}


def outbound(**changes: str) -> dict[str, str]:
    """Return a request of the authenticated user ann, for a new message unless ``instance`` is given."""
    return {**_REQUEST, "instance": f"{os.getpid():x}.{next(_numbers)}.0", **changes}


def inbound(**changes: str) -> dict[str, str]:
    """Return a request for inbound mail to bob, for a new message unless ``instance`` is given."""
    foreign = {"sasl_method": "", "sasl_username": "", "server_port": "25", "sender": "carl@example.net"}
    return outbound(**{**foreign, "recipient": "bob@example.com", "client_address": "198.51.100.7", **changes})


def encode(attributes: Mapping[str, str]) -> bytes:
    """Return a request in the policy protocol."""
    text = "".join(f"{name}={value}\n" for name, value in attributes.items())
    return text.encode("utf-8", "surrogateescape") + b"\n"


class PolicyClient:
    """A persistent connection.

    :param address: ``(host, port)``, or the path of a unix socket.
    :param timeout: seconds until :class:`TimeoutError`.
    """

    def __init__(self, address: Address, timeout: float = HANGS) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        self.socket.settimeout(timeout)
        self.socket.connect(address)
        self._received = b""

    def __enter__(self) -> PolicyClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def ask(self, attributes: Mapping[str, str]) -> str:
        """Send a request; return the action of the answer."""
        self.send(encode(attributes))
        return self.answer()

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.socket.sendall(data)

    def answer(self) -> str:
        """Return the action of the next answer.

        :raises ConnectionError: if the connection is closed before the answer is complete.
        :raises ValueError: if the answer is not an ``action=`` line and an empty line.
        """
        while b"\n\n" not in self._received:
            data = self.socket.recv(65536)
            if not data:
                raise ConnectionError(f"closed by the service after {self._received!r}")
            self._received += data
        answer, _, self._received = self._received.partition(b"\n\n")
        if not answer.startswith(b"action=") or b"\n" in answer:
            raise ValueError(f"not an answer that Postfix reads: {answer!r}")
        return answer.removeprefix(b"action=").decode("utf-8")

    def finish(self) -> None:
        """Close the sending side; answers can still be read."""
        self.socket.shutdown(socket.SHUT_WR)

    def is_closed(self) -> bool:
        """Return whether the service closes the connection within the timeout, without further output."""
        try:
            return not self._received and not self.socket.recv(1)
        except ConnectionError:
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        self.socket.close()
