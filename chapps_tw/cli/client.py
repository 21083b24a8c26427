"""Requests to the HTTP API of the running service."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import IO, Any, Final, NamedTuple
from urllib.parse import quote, urlencode

from chapps_tw.cli.session import CommandError, Unreachable

TIMEOUT: Final = 30.0
# More than any answer has.
MAX_BYTES: Final = 256 * 2**20


class NotFound(CommandError):
    """What the request names does not exist."""


class Invalid(CommandError):
    """A value of the request is invalid."""


class Target(NamedTuple):
    """Where the API listens.

    :ivar scheme: ``http``, ``https`` or ``unix``.
    :ivar host: for ``unix``, the path of the socket.
    :ivar prefix: of all paths, without a slash at its end.
    :ivar name: for the header Host and the certificate; empty for the host.
    """

    scheme: str
    host: str
    port: int = 0
    prefix: str = ""
    name: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.host if self.scheme == "unix" else f"{self.scheme}://{host}:{self.port}{self.prefix}"


class Answer(NamedTuple):
    """A successful answer.

    :ivar response: what was asked for.
    :ivar beside: the other members of the envelope.
    :ivar remarks: sentences.
    """

    response: Any
    beside: Mapping[str, Any]
    remarks: list[str]


def path(*parts: object) -> str:
    """Return a path of these parts, each encoded."""
    return "/" + "".join(quote(str(part), safe="") + "/" for part in parts)


class Client:
    """The HTTP API.

    Every method raises :exc:`Unreachable` if the service does not answer, or cannot answer now, :exc:`NotFound` for
    404, :exc:`Invalid` for 422, and another :exc:`CommandError` if it refuses.

    :param token: empty if none is needed.
    """

    def __init__(self, target: Target, token: str) -> None:
        self._target = target
        self._token = token

    def get(self, where: str, **query: Any) -> Answer:
        """Ask for something. Parameters that are ``None`` or empty are left out."""
        return self.send("GET", where, **query)

    def find(self, where: str, **query: Any) -> Answer | None:
        """Ask for something; return ``None`` if it does not exist."""
        try:
            return self.get(where, **query)
        except NotFound:
            return None

    def send(self, method: str, where: str, body: Any = None, timeout: float = TIMEOUT, **query: Any) -> Answer:
        """Send a request.

        :param body: JSON.
        :param timeout: seconds, for connecting and for each read.
        """
        data = None if body is None else json.dumps(body).encode()
        return self._answer(method, where, data, {"Content-Type": "application/json"} if data else {}, timeout, query)

    def upload(self, where: str, body: IO[bytes], size: int, timeout: float, **query: Any) -> Answer:
        """Post a text file.

        :param size: of the file in bytes.
        :param timeout: seconds, for connecting and for each read.
        """
        headers = {"Content-Type": "text/plain; charset=utf-8", "Content-Length": str(size)}
        return self._answer("POST", where, body, headers, timeout, query)

    def _answer(
        self,
        method: str,
        where: str,
        data: bytes | IO[bytes] | None,
        headers: Mapping[str, str],
        timeout: float,
        query: Mapping[str, Any],
    ) -> Answer:
        given = {name: value for name, value in query.items() if value not in (None, "", False)}
        asked = {name: "1" if value is True else value for name, value in given.items()}
        url = self._target.prefix + where + ("?" + urlencode(asked, doseq=True) if asked else "")
        status, content = self._exchange(method, url, data, headers, timeout)
        answer = _decoded(status, content)
        if status >= 400:
            raise _refused(status, answer)
        return Answer(answer.pop("response"), answer, answer.pop("remarks", []))

    def _exchange(
        self, method: str, url: str, data: bytes | IO[bytes] | None, headers: Mapping[str, str], timeout: float
    ) -> tuple[int, bytes]:
        own = {"Host": self._target.name} if self._target.name else {}
        if self._token:
            own["Authorization"] = f"Bearer {self._token}"
        connection = _connection(self._target, timeout)
        try:
            # A refusal may come, and the connection be closed, before all is sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, url, data, {**own, **headers})
            reply = connection.getresponse()
            return reply.status, reply.read(MAX_BYTES)
        except TimeoutError:
            raise Unreachable(f"{self._target} did not answer in {timeout:g} s") from None
        except ssl.SSLCertVerificationError as error:
            remedy = "$SSL_CERT_FILE names the file of an authority that the system does not know"
            raise Unreachable(
                f"the certificate of {self._target} is refused: {error.verify_message}; {remedy}"
            ) from None
        except (OSError, HTTPException, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreachable(f"the service cannot be reached at {self._target}: {why}") from None
        finally:
            connection.close()


def _connection(target: Target, timeout: float) -> HTTPConnection:
    if target.scheme == "unix":
        return _UnixConnection(target.host, timeout)
    if target.scheme == "https":
        return _TlsConnection(target, timeout)
    return HTTPConnection(target.host, target.port, timeout=timeout)


class _TlsConnection(HTTPSConnection):
    """A connection to an address whose certificate may be that of a name."""

    def __init__(self, target: Target, timeout: float) -> None:
        super().__init__(target.name or target.host, target.port, timeout=timeout)
        self._address = target.host

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        # $SSL_CERT_FILE may name another authority than those of the system.
        self.sock = ssl.create_default_context().wrap_socket(plain, server_hostname=self.host)


class _UnixConnection(HTTPConnection):
    def __init__(self, address: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._address = address

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._address)


def _decoded(status: int, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or ("detail" if status >= 400 else "response") not in answer:
        raise CommandError(f"this is not the HTTP API of the service: it answered {status} without the JSON of one")
    return answer


def _refused(status: int, answer: Mapping[str, Any]) -> CommandError:
    detail = answer["detail"]
    if isinstance(detail, list):
        # The first part of a location is path, query or body.
        lines = [f"{'.'.join(map(str, each['loc'][1:]))} {each['msg']}".strip() for each in detail]
        return Invalid("\n".join(lines))
    lines = [*answer.get("remarks", []), str(detail)] if status == 409 else [str(detail)]
    kind = {404: NotFound, 503: Unreachable}.get(status, CommandError)
    return kind("\n".join(lines))
