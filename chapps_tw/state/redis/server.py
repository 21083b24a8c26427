"""Where Redis is: a host, a unix socket, or what the Sentinels say; and how to log in there."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import txredisapi
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred, DeferredList, TimeoutError
from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.config.settings import ConfigError, Redis
from chapps_tw.state.redis.script import PROBE

CONNECT = 1.0
"""Seconds for the Sentinels' answer, and again for a connection."""


@dataclass(frozen=True)
class Login:
    """What is said at the beginning of a connection.

    :ivar probe: a key that is written, to see whether all that is needed can be done.
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
        steps = [self.auth] if self.password else []
        if self.db:
            steps.append((b"SELECT", b"%d" % self.db))
        if self.master:
            steps.append((b"ROLE",))
        return [*steps, self.write]

    @property
    def auth(self) -> tuple[bytes, ...]:
        """The command that tells who we are."""
        user = (self.username.encode(),) if self.username else ()
        return (b"AUTH", *user, self.password.encode())

    @property
    def write(self) -> tuple[bytes, ...]:
        """The command that tries all that is needed on the probe."""
        return PROBE.words(self.probe)

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
    :ivar moved: tells whether the server is not any more where it was last found; ``None`` where it never moves.
    """

    def __init__(
        self, name: str, find: Callable[[], Any], reactor: Any, moved: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        self.name = name
        self.moved = moved
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
        return _why(failure.value)


class _SentinelConnection(txredisapi.RedisProtocol):  # type: ignore[misc]
    """Remembers why it was lost, which txredisapi keeps from whoever waits for an answer."""

    def connectionLost(self, why: Failure) -> None:
        self.lost = why
        super().connectionLost(why)


class _Named(NamedTuple):
    """What a Sentinel names as the master. The greater one knows more.

    :ivar epoch: of the failover that made it the master; each is greater than the one before. Sentinels learn of a
        failover up to two seconds after the one that led it.
    :ivar settled: not while the Sentinel leads a failover: it names the old master until that has ended.
    """

    epoch: int
    settled: bool
    host: str
    port: int


class _Sentinels:
    """Asks the Sentinels where the master is, each time, on new connections.

    See https://redis.io/docs/latest/develop/reference/sentinel-clients/. All are asked at once, so those
    that do not answer cost no time where a connection is to be made.
    """

    def __init__(self, sentinels: Mapping[str, IStreamClientEndpoint], master: str, login: Login, reactor: Any) -> None:
        self._sentinels = sentinels
        self._master = master
        self._login = login
        self._reactor = reactor
        self._epoch = 0
        self._found = "", 0

    async def find(self) -> tuple[str, int]:
        """Host and port of the master.

        :raises NoMaster: when none of them names one in time. Says of each why not.
        """
        # The first answer will do, unless it is known to be out of date.
        self._found = await self._latest(lambda named: named.settled and named.epoch >= self._epoch)
        return self._found

    async def moved(self) -> bool:
        """Whether the master is not any more where it was last found."""
        try:
            return await self._latest(lambda _: False) != self._found
        except NoMaster:
            return False

    async def _latest(self, enough: Callable[[_Named], bool]) -> tuple[str, int]:
        """What those say that know of the latest failover.

        :param enough: whether an answer is so good that the others need not be waited for.
        :raises NoMaster: likewise.
        """
        problems = dict.fromkeys(self._sentinels, "it does not answer")
        answers: list[_Named] = []
        done: Deferred[None] = Deferred()

        def heard(named: _Named) -> None:
            answers.append(named)
            if enough(named):
                end()

        def end(_: object = None) -> None:
            if not done.called:
                done.callback(None)

        asked = [
            Deferred.fromCoroutine(self._ask(name, problems)).addCallbacks(heard, lambda _: None)
            for name in self._sentinels
        ]
        DeferredList(asked).addCallback(end)
        try:
            with suppress(TimeoutError):
                await done.addTimeout(CONNECT, self._reactor)
        finally:
            for each in asked:
                each.cancel()
        if not answers:
            each_one = "; ".join(f"{name}: {problem}" for name, problem in problems.items())
            raise NoMaster(f"no Sentinel names a healthy master {self._master!r} ({each_one})")
        latest = max(answers)
        self._epoch = latest.epoch
        return latest.host, latest.port

    async def _ask(self, name: str, problems: dict[str, str]) -> _Named:
        """Ask one; notes why it does not help."""
        try:
            masters = await self._masters(self._sentinels[name])
        except txredisapi.ResponseError as refusal:
            problems[name] = _refusal(self._login.hide(str(refusal)))
            raise
        except Exception as problem:
            problems[name] = _why(problem)
            raise
        state = masters.get(self._master)
        if not state:
            problems[name] = "it knows none of this name"
        elif not state["is_master"] or state["is_sdown"] or state["is_odown"]:
            problems[name] = "it takes the master for down"
        else:
            settled = "failover_in_progress" not in state["flags"]
            return _Named(int(state["config-epoch"]), settled, state["ip"], int(state["port"]))
        raise NoMaster(problems[name])

    async def _masters(self, sentinel: IStreamClientEndpoint) -> Any:
        """What a Sentinel tells of each master, by name."""
        connection: Any = await connectProtocol(sentinel, _SentinelConnection(convertNumbers=False))
        try:
            if self._login.password:
                await connection.execute_command(*self._login.auth)
            return await connection.sentinel_masters()
        except txredisapi.ConnectionError:
            raise connection.lost.value from None
        finally:
            connection.transport.abortConnection()


def _why(reason: BaseException | None) -> str:
    """What an error of a connection means."""
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


def _refusal(answer: str) -> str:
    """What an error that a Sentinel answers with means."""
    if answer.startswith("NOAUTH"):
        return "it wants a password, see [Redis] sentinel_password"
    if answer.removeprefix("ERR ").startswith(("WRONGPASS", "AUTH")):
        return f"it refuses [Redis] sentinel_password ({answer[:200]})"
    return f"it answers: {answer[:200]}"


def _openssl(problem: TLSError) -> str:
    """pyOpenSSL raises a list of (library, function, reason)."""
    reasons = problem.args[0] if problem.args else []
    return ", ".join(str(reason[-1]) for reason in reasons) if isinstance(reasons, list) else str(reasons)


def server_from(redis: Redis, sentinel_login: Login, reactor: Any) -> RedisServer:
    """Where the configuration says that Redis is.

    :param sentinel_login: user and password of the Sentinels.
    :raises ConfigError: when the file of the certificate authority cannot be used.
    """
    to = _way(redis, reactor)
    if redis.sentinel_servers:
        sentinels = {text: to(*_host_and_port(text)) for text in redis.sentinel_servers.split()}
        asking = _Sentinels(sentinels, redis.sentinel_dataset, sentinel_login, reactor)

        async def master() -> IStreamClientEndpoint:
            return to(*await asking.find())

        return RedisServer(f"Redis master {redis.sentinel_dataset}", master, reactor, asking.moved)

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
    try:
        trust = authorities(redis.ca_file) if redis.ca_file else platformTrust()
    except ValueError as problem:
        raise ConfigError([f"[Redis] ca_file = {redis.ca_file!r}: {problem}"]) from None

    def tls(host: str, port: int) -> IStreamClientEndpoint:
        return wrapClientTLS(optionsForClientTLS(host, trustRoot=trust), tcp(host, port))

    return tls


def authorities(path: str) -> Any:
    """The certificate authorities of a PEM file.

    :raises ValueError: when there are none; says what the file must be.
    """
    try:
        pem = Path(path).read_bytes()
        found = re.findall(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", pem, re.DOTALL)
        if not found:
            raise ValueError("it holds no certificate")
        certificates = [Certificate.loadPEM(each) for each in found]
        return trustRootFromCertificates(certificates)
    except (OSError, ValueError, TLSError) as problem:
        raise ValueError(f"must be a readable PEM file ({problem})") from None


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)
