"""Where Redis is: a host, a unix socket, or what the Sentinels say; and how to log in there."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import txredisapi
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.config import ConfigError, Redis

CONNECT = 1.0
"""Seconds for the Sentinels' answer, and again for a connection."""


@dataclass(frozen=True)
class Login:
    """What is said at the beginning of a connection.

    :ivar probe: a key that is written, to see whether that can be done.
    :ivar master: whether the server must call itself a master.
    """

    username: str = ""
    password: str = ""
    db: int = 0
    probe: bytes = b"chapps:probe"
    master: bool = False

    def __repr__(self) -> str:
        return f"Login(username={self.username!r}, db={self.db})"

    def steps(self) -> list[tuple[bytes, ...]]:
        """The commands. Each must succeed before the connection is used."""
        steps: list[tuple[bytes, ...]] = []
        if self.password:
            user = (self.username.encode(),) if self.username else ()
            steps.append((b"AUTH", *user, self.password.encode()))
        if self.db:
            steps.append((b"SELECT", b"%d" % self.db))
        if self.master:
            steps.append((b"ROLE",))
        return [*steps, self.write]

    @property
    def write(self) -> tuple[bytes, ...]:
        """The command that writes the probe."""
        return (b"SET", self.probe, b"1", b"PX", b"1000")

    def hide(self, text: str) -> str:
        """The text without the password, should a server repeat it."""
        return text.replace(self.password, "********") if self.password else text


class NoMaster(Exception):
    """No Sentinel names a healthy master."""


@implementer(IStreamClientEndpoint)
class RedisServer:
    """An endpoint that connects in bounded time.

    :ivar name: for sentences.
    :param find: finds the endpoint of each connection; may take its time.
    """

    def __init__(self, name: str, find: Callable[[], Any], reactor: Any) -> None:
        self.name = name
        self._find = find
        self._reactor = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; fails with what :meth:`explain` explains."""
        return Deferred.fromCoroutine(self._connect(protocolFactory)).addTimeout(2 * CONNECT, self._reactor)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        endpoint: IStreamClientEndpoint = await self._find()
        return await endpoint.connect(factory)

    def explain(self, failure: Failure) -> str:
        """Why there is no connection, as the second part of a sentence."""
        reason = failure.value
        if isinstance(reason, VerificationError):
            return "its TLS certificate is for another name"
        if isinstance(reason, TLSError):
            return f"TLS failed ({_openssl(reason)})"
        if isinstance(reason, error.ConnectionRefusedError):
            return "it refuses connections"
        if isinstance(reason, error.TimeoutError):
            return "it does not answer"
        if isinstance(reason, error.ConnectionDone | error.ConnectionLost):
            return "it closed the connection"
        return " ".join(str(reason).split()) or type(reason).__name__


class _Sentinels:
    """Asks the Sentinels where the master is, each time, on new connections.

    See https://redis.io/docs/latest/develop/reference/sentinel-clients/. All are asked at once, so those
    that do not answer cost no time.
    """

    def __init__(self, sentinels: list[IStreamClientEndpoint], master: str, reactor: Any) -> None:
        self._sentinels = sentinels
        self._master = master
        self._reactor = reactor

    async def find(self) -> tuple[str, int]:
        """Host and port of the master.

        :raises NoMaster: when none of them names one in time.
        """
        asked = [Deferred.fromCoroutine(self._ask(sentinel)) for sentinel in self._sentinels]
        answers = DeferredList(asked, fireOnOneCallback=True, consumeErrors=True)
        try:
            found = await answers.addTimeout(CONNECT, self._reactor)
        except error.TimeoutError:
            found = None
        finally:
            for each in asked:
                each.cancel()
        if not isinstance(found, tuple):
            raise NoMaster(f"no Sentinel names a healthy master {self._master!r}")
        host, port = found[0]
        return host, port

    async def _ask(self, sentinel: IStreamClientEndpoint) -> tuple[str, int]:
        protocol = txredisapi.RedisProtocol(convertNumbers=False)
        connection: Any = await connectProtocol(sentinel, protocol)
        try:
            masters = await connection.sentinel_masters()
        finally:
            connection.transport.abortConnection()
        state = masters.get(self._master)
        if not state or not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            raise NoMaster(self._master)
        return state["ip"], int(state["port"])


def _openssl(problem: TLSError) -> str:
    """pyOpenSSL raises a list of (library, function, reason)."""
    reasons = problem.args[0] if problem.args else []
    return ", ".join(str(reason[-1]) for reason in reasons) if isinstance(reasons, list) else str(reasons)


def server_from(redis: Redis, reactor: Any) -> RedisServer:
    """Where the configuration says that Redis is.

    :raises ConfigError: when the file of the certificate authority cannot be used.
    """
    to = _way(redis, reactor)
    if redis.sentinel_servers:
        sentinels = [to(*_host_and_port(text)) for text in redis.sentinel_servers.split()]
        asking = _Sentinels(sentinels, redis.sentinel_dataset, reactor)

        async def master() -> IStreamClientEndpoint:
            return to(*await asking.find())

        return RedisServer(f"Redis master {redis.sentinel_dataset}", master, reactor)

    if redis.unix_socket:
        name = f"Redis at {redis.unix_socket}"
        endpoint: IStreamClientEndpoint = UNIXClientEndpoint(reactor, redis.unix_socket, timeout=CONNECT)
    else:
        name = f"Redis at {redis.server}:{redis.port}"
        endpoint = to(redis.server.strip("[]"), redis.port)

    async def known() -> IStreamClientEndpoint:
        return endpoint

    return RedisServer(name, known, reactor)


def _way(redis: Redis, reactor: Any) -> Callable[[str, int], IStreamClientEndpoint]:
    """How to get to a host and port: TCP, or verified TLS."""

    def tcp(host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(reactor, host, port, timeout=CONNECT)

    if not redis.tls:
        return tcp
    trust = _authorities(redis.ca_file) if redis.ca_file else platformTrust()

    def tls(host: str, port: int) -> IStreamClientEndpoint:
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=trust), tcp(host, port))

    return tls


def _authorities(path: str) -> Any:
    try:
        pem = Path(path).read_bytes()
        found = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
        if not found:
            raise ValueError("it holds no certificate")
        certificates = [Certificate.loadPEM(each) for each in found]
        return trustRootFromCertificates(certificates)
    except (OSError, ValueError, TLSError) as problem:
        raise ConfigError([f"[Redis] ca_file = {path!r}: must be a readable PEM file ({problem})"]) from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
