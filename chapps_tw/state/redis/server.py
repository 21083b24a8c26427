"""Finds the Redis server (host, unix socket, or Sentinels), and logs in."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import txredisapi
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import optionsForClientTLS, platformTrust
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.config.settings import ConfigError, Redis
from chapps_tw.sockets.authorities import authorities
from chapps_tw.state.redis.script import PROBE

CONNECT_TIMEOUT = 1.0
"""Seconds for the Sentinels' answer, and again for the connection to the server."""


@dataclass(frozen=True)
class Login:
    """Credentials, and the checks of a new connection.

    :ivar probe: a key to write, to check that all commands and keys are permitted.
    :ivar master: whether the server must have the role of a master.
    """

    username: str = ""
    password: str = ""
    db: int = 0
    probe: bytes = b"chapps:probe"
    master: bool = False

    def __repr__(self) -> str:
        return f"Login(username={self.username!r}, db={self.db})"

    def steps(self) -> list[tuple[bytes, ...]]:
        """Return the commands of the login. All must succeed."""
        steps = [self.auth] if self.password else []
        if self.db:
            steps.append((b"SELECT", b"%d" % self.db))
        if self.master:
            steps.append((b"ROLE",))
        return [*steps, self.write]

    @property
    def auth(self) -> tuple[bytes, ...]:
        """The AUTH command."""
        user = (self.username.encode(),) if self.username else ()
        return (b"AUTH", *user, self.password.encode())

    @property
    def write(self) -> tuple[bytes, ...]:
        """The command that tries every needed operation on the probe key."""
        return PROBE.words(self.probe)

    def hide(self, text: str) -> str:
        """Mask the password in a text, in case a server repeats it."""
        return text.replace(self.password, "********") if self.password else text


class NoMaster(Exception):
    """No Sentinel reports a healthy master."""


@implementer(IStreamClientEndpoint)
class RedisServer:
    """An endpoint with a timeout.

    :ivar name: for messages.
    :param find: returns an awaitable of the endpoint, for each connection.
    :ivar moved: returns whether the server has moved since it was last found; ``None`` if it never moves.
    """

    def __init__(
        self, name: str, find: Callable[[], Any], reactor: Any, moved: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        self.name = name
        self.moved = moved
        self._find = find
        self._reactor = reactor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect. Pass failures to :meth:`explain`."""
        return Deferred.fromCoroutine(self._connect(protocolFactory)).addTimeout(2 * CONNECT_TIMEOUT, self._reactor)

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        endpoint: IStreamClientEndpoint = await self._find()
        return await endpoint.connect(factory)

    def explain(self, failure: Failure) -> str:
        """Explain a failed or lost connection, as the second part of a sentence."""
        return _explain(failure.value)


class _SentinelConnection(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Stores why the connection was lost, which txredisapi does not pass to pending commands."""

    def connectionLost(self, why: Failure) -> None:
        self.lost = why
        super().connectionLost(why)


class _Master(NamedTuple):
    """The master as reported by a Sentinel. Compares greater if it is more recent.

    :ivar epoch: of the failover that made it the master; increases with each failover. Other Sentinels learn of a
        failover up to two seconds after its leader.
    :ivar settled: false while the Sentinel leads a failover: it reports the old master until the failover ends.
    """

    epoch: int
    settled: bool
    host: str
    port: int


class _Sentinels:
    """Asks the Sentinels for the master's address, each time over new connections.

    See https://redis.io/docs/latest/develop/reference/sentinel-clients/. All are asked in parallel, so that
    those that do not answer cause no delay.
    """

    def __init__(self, sentinels: Mapping[str, IStreamClientEndpoint], master: str, login: Login, reactor: Any) -> None:
        self._sentinels = sentinels
        self._master = master
        self._login = login
        self._reactor = reactor
        self._epoch = 0
        self._found = "", 0

    async def find(self) -> tuple[str, int]:
        """Return host and port of the master.

        :raises NoMaster: if none reports one in time. Gives the reason for each Sentinel.
        """
        # The first answer is used, unless it is known to be outdated.
        self._found = await self._latest(lambda master: master.settled and master.epoch >= self._epoch)
        return self._found

    async def moved(self) -> bool:
        """Return whether the master has moved since it was last found."""
        try:
            return await self._latest(lambda _: False) != self._found
        except NoMaster:
            return False

    async def _latest(self, is_final: Callable[[_Master], bool]) -> tuple[str, int]:
        """Return the address reported by the Sentinels that know of the latest failover.

        :param is_final: whether an answer makes waiting for the others unnecessary.
        :raises NoMaster: likewise.
        """
        problems = dict.fromkeys(self._sentinels, "it does not answer")
        answers: list[_Master] = []
        done: Deferred[None] = Deferred()

        def answered(master: _Master) -> None:
            answers.append(master)
            if is_final(master):
                finish()

        def finish(_: object = None) -> None:
            if not done.called:
                done.callback(None)

        requests = [
            Deferred.fromCoroutine(self._ask(name, problems)).addCallbacks(answered, lambda _: None)
            for name in self._sentinels
        ]
        DeferredList(requests).addCallback(finish)
        try:
            with suppress(TimeoutError):
                await done.addTimeout(CONNECT_TIMEOUT, self._reactor)
        finally:
            for each in requests:
                each.cancel()
        if not answers:
            reasons = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise NoMaster(f"no Sentinel names a healthy master {self._master!r} ({reasons})")
        latest = max(answers)
        self._epoch = latest.epoch
        return latest.host, latest.port

    async def _ask(self, name: str, problems: dict[str, str]) -> _Master:
        """Ask one Sentinel; on failure, store the reason in ``problems``."""
        try:
            masters = await self._masters(self._sentinels[name])
        except txredisapi.ResponseError as refusal:
            problems[name] = _explain_error(self._login.hide(str(refusal)))
            raise
        except Exception as problem:
            problems[name] = _explain(problem)
            raise
        state = masters.get(self._master)
        if not state:
            problems[name] = "it knows no master of this name"
        elif not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            problems[name] = "it considers the master down"
        else:
            settled = "failover_in_progress" not in state["flags"]
            return _Master(int(state["config-epoch"]), settled, state["ip"], int(state["port"]))
        raise NoMaster(problems[name])

    async def _masters(self, sentinel: IStreamClientEndpoint) -> Any:
        """Return what a Sentinel reports about its masters, by name."""
        connection: Any = await connectProtocol(sentinel, _SentinelConnection(convertNumbers=False))
        try:
            if self._login.password:
                await connection.execute_command(*self._login.auth)
            return await connection.sentinel_masters()
        except txredisapi.ConnectionError:
            raise connection.lost.value from None
        finally:
            connection.transport.abortConnection()


def _explain(reason: BaseException | None) -> str:
    """Explain an error of a connection."""
    if isinstance(reason, VerificationError):
        return "its TLS certificate is for another name"
    if isinstance(reason, TLSError):
        return f"TLS failed ({_openssl(reason)})"
    if isinstance(reason, error.ConnectionRefusedError):
        return "it refuses connections"
    if isinstance(reason, error.TimeoutError | CancelledError):
        return "it does not answer"
    if isinstance(reason, error.ConnectionDone | error.ConnectionLost):
        return "it closed the connection"
    return " ".join(str(reason).split()) or type(reason).__name__


def _explain_error(answer: str) -> str:
    """Explain an error answer of a Sentinel."""
    if answer.startswith("NOAUTH"):
        return "it requires a password, see [Redis] sentinel_password"
    if answer.removeprefix("ERR ").startswith(("WRONGPASS", "AUTH")):
        return f"it refuses [Redis] sentinel_password ({answer[:200]})"
    return f"it answers: {answer[:200]}"


def _openssl(problem: TLSError) -> str:
    """Return the reasons of an error of pyOpenSSL, which raises a list of (library, function, reason)."""
    reasons = problem.args[0] if problem.args else []
    return ", ".join(str(reason[-1]) for reason in reasons) if isinstance(reasons, list) else str(reasons)


def server_from(redis: Redis, sentinel_login: Login, reactor: Any) -> RedisServer:
    """Return the configured server.

    :param sentinel_login: user and password of the Sentinels.
    :raises ConfigError: if the CA file cannot be used.
    """
    to = _endpoint_maker(redis, reactor)
    if redis.sentinel_servers:
        sentinels = {text: to(*_host_and_port(text)) for text in redis.sentinel_servers.split()}
        finder = _Sentinels(sentinels, redis.sentinel_dataset, sentinel_login, reactor)

        async def master() -> IStreamClientEndpoint:
            return to(*await finder.find())

        return RedisServer(f"Redis master {redis.sentinel_dataset}", master, reactor, finder.moved)

    if redis.unix_socket:
        name = f"Redis at {redis.unix_socket}"
        endpoint: IStreamClientEndpoint = UNIXClientEndpoint(reactor, redis.unix_socket, timeout=CONNECT_TIMEOUT)
    else:
        name = f"Redis at {redis.server}:{redis.port}"
        endpoint = to(redis.server.strip("[]"), redis.port)

    async def known() -> IStreamClientEndpoint:
        return endpoint

    return RedisServer(name, known, reactor)


def _endpoint_maker(redis: Redis, reactor: Any) -> Callable[[str, int], IStreamClientEndpoint]:
    """Return a function that makes the endpoint of a host and port: TCP, or verified TLS."""

    def tcp(host: str, port: int) -> IStreamClientEndpoint:
        return HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT)

    if not redis.tls:
        return tcp
    try:
        trust = _Trust(redis.ca_file)
    except ValueError as problem:
        raise ConfigError([f"[Redis] ca_file = {redis.ca_file!r}: {problem}"]) from None

    def tls(host: str, port: int) -> IStreamClientEndpoint:
        return wrapClientTLS(_Verified(host, trust), tcp(host, port))

    return tls


class _Trust:
    """The certificate authorities of a file, which is read again after it has changed.

    While it cannot be used, as in the middle of a change, the previous ones remain in use.

    :param path: ``""`` is the system's authorities.
    :raises ValueError: as :func:`authorities`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._state = self._stat()
        self._current = authorities(path) if path else platformTrust()

    def _stat(self) -> object:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size

    def __call__(self) -> Any:
        """Return the authorities."""
        state = self._stat() if self._path else self._state
        if state != self._state:
            with suppress(ValueError):
                self._current = authorities(self._path)
                self._state = state
        return self._current


@implementer(IOpenSSLClientConnectionCreator)
class _Verified:
    """Makes TLS connections to a host, with the authorities of that moment."""

    def __init__(self, host: str, trust: _Trust) -> None:
        self._host = host
        self._trust = trust

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Any:
        creator = optionsForClientTLS(self._host, trustRoot=self._trust())
        return creator.clientConnectionForTLS(tlsProtocol)


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
