"""The connections to Redis, kept open and made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.config.settings import Redis
from chapps_tw.state.redis.connection import Entry, RedisConnection, Unusable, not_observed
from chapps_tw.state.redis.following import Following
from chapps_tw.state.redis.refusals import Refusals
from chapps_tw.state.redis.script import PROBE, Shape, strings
from chapps_tw.state.redis.server import Login, RedisServer, server_from
from chapps_tw.state.redis.waiters import Waiters

LEARN_AGAIN = 10.0
"""Seconds after which the server's clock is compared with ours again."""

_PROBE = PROBE.shape(1, 0)


class RedisPool:
    """Some connections to one server, which log in and are made anew by themselves.

    Commands go over the first connection that is ready, since the commands of one reactor turn then
    share system calls. When the last is lost, commands wait for a new one for half of the deadline, those that it
    left unanswered too; while none is ready after that, they fail at once. A server that answers with an error is
    still asked, since it may do some things and not others.

    :param server: where to connect.
    :param deadline: seconds until a command that is not answered fails.
    :param size: how many connections.
    :param observe: told of each command that was answered, or timed out, how long that took.
    :ivar lost: connections that were ready and were lost.
    :ivar timeouts: commands that were not answered in time.
    """

    log = Logger()

    def __init__(
        self,
        server: RedisServer,
        login: Login,
        reactor: Any,
        deadline: float,
        size: int,
        observe: Callable[[float], None],
    ) -> None:
        self.server = server
        self.login = login
        self.reactor = reactor
        self.deadline = deadline
        self.observe = observe
        self.size = size
        self.tick = min(0.1, deadline / 4)
        self._away = f"{server.name} is not connected yet"
        self._following = Following(server.moved, self._leave, reactor)
        self._refusals = Refusals(server.name, reactor, self.ping)
        self.lost = 0
        self.timeouts = 0
        self._ready: list[RedisConnection] = []
        self._open: set[RedisConnection] = set()
        self._silent = False
        self._waiters: Waiters[RedisConnection] = Waiters(reactor, deadline / 2, lambda: self.problem)
        self._sweeping: IDelayedCall | None = None
        self._swept = 0.0
        self._factory = _Factory(self, size)

    @property
    def problem(self) -> str:
        """Why nothing, or not all, can be asked now, in a sentence; ``""`` when all can."""
        return self._away or self._refusals.problem

    @property
    def connections(self) -> int:
        """How many connections are ready."""
        return len(self._ready)

    @property
    def waiting(self) -> int:
        """How many commands were not answered yet."""
        return sum(connection.waiting for connection in self._open)

    def start(self) -> None:
        """Begin to connect."""
        self._waiters.open()
        self._factory.startConnecting(self.server)
        self._following.start()

    async def stop(self) -> None:
        """Close all connections; what waits for an answer fails."""
        self._silent = True
        self._away = f"{self.server.name} is not connected any more"
        self._waiters.close()
        self._refusals.stop()
        self._following.stop()
        # A turn before and after: whoever calls, or goes on, from what a lost connection caused is inside a
        # ClientService that cannot be stopped then.
        await deferLater(self.reactor, 0)
        stopped = self._factory.disconnect()
        for connection in list(self._open):
            connection.transport.abortConnection()
        await stopped
        await deferLater(self.reactor, 0)
        if self._sweeping:
            self._sweeping.cancel()
            self._sweeping = None

    # --- commands ---

    def call(self, *words: bytes) -> Deferred[Any]:
        """Send a command; returns the answer as hiredis reads it, bulk strings as bytes.

        :raises StateUnavailable: (the Deferred) when it is not answered in time, or with an error.
        """
        due = self.reactor.seconds() + self.deadline
        if not self._ready:
            return self._waiters.wait().addCallback(lambda connection: connection.call(due, *words))
        return self._ready[0].call(due, *words)

    def run(self, shape: Shape, body: bytes, when: bytes = b"", aside: bool = False) -> Deferred[Any]:
        """Run a script: its answer. One that times out has not run, and does not run later.

        :param body: keys and arguments, encoded.
        :param when: see ``clock.lua``; ``b""`` is the deadline.
        :param aside: not on the connection for what is in a hurry, if there is another.
        :raises StateUnavailable: (the Deferred) likewise.
        """
        due = self.reactor.seconds() + self.deadline
        if not self._ready:
            return self._waiters.wait().addCallback(lambda connection: connection.run(due, shape, body, when))
        return self._ready[-1 if aside else 0].run(due, shape, body, when)

    def ping(self) -> Deferred[None]:
        """Try every command that the scripts use.

        :raises StateUnavailable: (the Deferred) when one of them is not answered in time, or with an error.
        """
        return self.run(_PROBE, strings(self.login.probe)).addCallback(lambda _: self._refusals.well())

    # --- what connections tell ---

    def opened(self, connection: RedisConnection) -> None:
        """There is a connection; it still has to log in."""
        self._open.add(connection)

    def closed(self, connection: RedisConnection) -> None:
        """A connection is gone."""
        self._open.discard(connection)

    def joined(self, connection: RedisConnection) -> None:
        """A connection is ready for commands."""
        if self.login.master:
            self._leave_others(connection)
        self._ready.append(connection)
        if self._away:
            self._away = ""
            self._silent = False
            self.log.info("{name} is connected.", name=self.server.name)
        self._waiters.serve(connection)

    def _leave_others(self, newest: RedisConnection) -> None:
        """Where the Sentinels sent the newest connection, there is the master."""
        for connection in list(self._ready):
            if connection.transport.getPeer() != newest.transport.getPeer():
                connection.abandon("it is not the master any more")

    def left(self, connection: RedisConnection, why: str) -> None:
        """A connection is not to be used any more, or could not be made ready."""
        if connection in self._ready:
            self._ready.remove(connection)
            self.lost += 1
            if not self._ready and not self._factory.disconnectCalled:
                self._waiters.open()
        self.unconnected(why)

    def unanswered(self, entry: Entry) -> None:
        """Ask again what a connection was lost with."""

        def go_on(connection: RedisConnection) -> None:
            if not entry[0].called:
                connection.again(entry)

        def give_up(failure: Failure) -> None:
            if not entry[0].called:
                entry[0].errback(failure)

        if self._ready:
            go_on(self._ready[0])
        else:
            self._waiters.wait().addCallbacks(go_on, give_up)

    def refused(self, why: str) -> None:
        """The server answers with an error."""
        if not self._factory.disconnectCalled:
            self._refusals.note(str(Unusable(self.server.name, why)))

    def unconnected(self, why: str) -> None:
        """Say so, once, if now there is no connection."""
        if self._ready or self._factory.disconnectCalled:
            return
        self._away = str(Unusable(self.server.name, why))
        if not self._silent:
            self._silent = True
            self.log.error("{problem}.", problem=self._away)

    def distrust(self, connection: RedisConnection, why: str) -> None:
        """What a ready connection saw holds for the server: make all connections anew."""
        if connection in self._ready:
            self._leave(why)

    def _leave(self, why: str) -> None:
        """Make all connections anew."""
        for connection in list(self._ready):
            connection.abandon(why)

    def watch(self) -> None:
        """See to the deadlines of what waits."""
        if self._sweeping is None:
            self._swept = self.reactor.seconds()
            self._sweeping = self.reactor.callLater(self.tick, self._sweep)

    def _sweep(self) -> None:
        now, self._sweeping = self.reactor.seconds(), None
        overslept, self._swept = now - self._swept > 3 * self.tick, now
        if overslept:
            # Nothing ran for a while here: answers may be there that were not read yet.
            self._sweeping = self.reactor.callLater(0, self._sweep)
            return
        for connection in self._ready:
            if now - connection.learned > LEARN_AGAIN:
                connection.learned = now
                connection.learn(now + self.deadline).addErrback(lambda _: None)
        still = [connection.sweep(now) for connection in list(self._open)]
        if any(still):
            self.watch()


class _Factory(txredisapi.RedisFactory):  # type: ignore[misc]
    """Makes a pool's connections. Logging in is their own business: it gets no password and no dbid."""

    protocol = RedisConnection
    initialDelay = 0.1
    maxDelay = 0.5

    def __init__(self, owner: RedisPool, size: int) -> None:
        super().__init__(uuid=owner.server.name, dbid=None, poolsize=size, isLazy=True, charset=None)
        self.owner = owner

    def startConnecting(self, endpoint: RedisServer) -> None:
        """Open the connections, and keep them open."""
        self.slots = [_Slot(self, endpoint) for _ in range(self.poolsize)]
        for slot in self.slots:
            slot.start()

    def addConnection(self, connection: RedisConnection) -> None:
        """A connection is logged in."""
        if connection.connected and not self.disconnectCalled:
            self.owner.joined(connection)


class _Service(ClientService):
    """Without a line in the log for every attempt."""

    _log = Logger(observer=LogPublisher())


@implementer(IStreamClientEndpoint)
class _Slot:
    """One connection of the pool."""

    def __init__(self, factory: _Factory, endpoint: RedisServer) -> None:
        self._factory = factory
        self._endpoint = endpoint
        self._rejected = 0
        self._service = _Service(self, factory, self._delay, factory.owner.reactor, self._made)

    def start(self) -> None:
        self._service.startService()

    def stop(self) -> Deferred[None]:
        return self._service.stopService()

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and report why not."""
        return self._endpoint.connect(protocolFactory).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        self._factory.owner.unconnected(self._endpoint.explain(failure))
        return failure

    def _made(self, connection: Any) -> None:
        # A connection counts as a failed attempt until it is logged in, so that the delay grows.
        self._rejected += 1
        connection.whenConnected().addCallback(self._usable)

    def _usable(self, connection: object) -> None:
        self._rejected = 0

    def _delay(self, attempt: int) -> float:
        delay: float = self._factory.retryDelay(max(attempt, self._rejected))
        return delay


def pool_from(
    redis: Redis,
    password: str,
    reactor: Any,
    deadline: float,
    observe: Callable[[float], None] = not_observed,
    sentinel_password: str = "",
) -> RedisPool:
    """The pool that a configuration asks for; it is not started.

    :param password: of the Redis servers.
    :param deadline: seconds until a command that is not answered fails.
    :param observe: told of each command that was answered, or timed out, how many seconds that took.
    :param sentinel_password: of the Sentinels.
    :raises ConfigError: when the file of the certificate authority cannot be used.
    """
    probe = redis.key_prefix.encode() + b":probe"
    login = Login(redis.username, password, redis.db, probe, bool(redis.sentinel_servers))
    server = server_from(redis, Login(redis.sentinel_username, sentinel_password), reactor)
    return RedisPool(server, login, reactor, deadline, redis.pool_size, observe)
