"""A pool of connections to Redis that reconnects by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import txredisapi
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.config.settings import Redis
from chapps_tw.sockets.turn import Turn
from chapps_tw.state.redis.connection import (
    Decode,
    Entry,
    RedisConnection,
    RedisUnavailable,
    Reply,
    no_observer,
    unchanged,
)
from chapps_tw.state.redis.failover import FailoverMonitor
from chapps_tw.state.redis.script import PROBE, Shape, strings
from chapps_tw.state.redis.server import Login, NoMaster, RedisServer, server_from
from chapps_tw.state.redis.server_errors import ServerErrors
from chapps_tw.state.redis.waiters import Waiters
from chapps_tw.state.reply import StoreReply

CLOCK_INTERVAL = 10.0
"""Seconds between reads of the server's clock."""

_PROBE = PROBE.shape(1, 0)


class RedisPool:
    """Connections to one server.

    All commands use the first connection that is ready, so that the commands of one reactor turn share system
    calls. When the last connection is lost, commands wait for a new one for half of the timeout, including those in
    flight; while there is none after that, they fail at once. They wait again when a server that was down accepts a
    connection. A server that answers with errors remains in use, since some commands may succeed.

    :param server: where to connect.
    :param timeout: of a command, in seconds.
    :param size: number of connections.
    :param observe: called with the duration of each command that was answered or timed out.
    :param turn: at the end of which commands are sent together.
    :ivar lost: number of ready connections that were lost.
    :ivar timeouts: number of commands that timed out.
    """

    log = Logger()

    def __init__(
        self,
        server: RedisServer,
        login: Login,
        reactor: Any,
        timeout: float,
        size: int,
        observe: Callable[[float], None],
        turn: Turn,
    ) -> None:
        self.server = server
        self.turn = turn
        self.login = login
        self.reactor = reactor
        self.timeout = timeout
        self.observe = observe
        self.size = size
        self.tick = min(0.1, timeout / 4)
        self._unavailable = f"{server.name} is not connected yet"
        self._failover = FailoverMonitor(server.moved, self._reconnect_all, reactor)
        self._errors = ServerErrors(server.name, reactor, self.ping)
        self.lost = 0
        self.timeouts = 0
        self._ready: list[RedisConnection] = []
        self._open: set[RedisConnection] = set()
        self._reported = False
        # Whether the last attempt found no server at all.
        self._was_down = False
        self._waiters: Waiters[RedisConnection] = Waiters(reactor, timeout / 2, lambda: self.problem)
        self._next_sweep: IDelayedCall | None = None
        self._last_sweep = 0.0
        self._factory = _Factory(self, size)

    @property
    def problem(self) -> str:
        """Why commands fail, or some of them, in a sentence; ``""`` if none do."""
        return self._unavailable or self._errors.problem

    @property
    def connections(self) -> int:
        """The number of ready connections."""
        return len(self._ready)

    @property
    def pending(self) -> int:
        """The number of commands in flight."""
        return sum(connection.pending for connection in self._open)

    def start(self) -> None:
        """Start connecting."""
        self._waiters.open()
        self._factory.startConnecting(self.server)
        self._failover.start()

    async def stop(self) -> None:
        """Close all connections; commands in flight fail."""
        self._reported = True
        self._unavailable = f"{self.server.name} is not connected any more"
        self._waiters.close()
        self._errors.stop()
        self._failover.stop()
        # Wait for a turn before and after: a ClientService cannot be stopped from its own callbacks, which a caller
        # that reacts to a lost connection runs in.
        await deferLater(self.reactor, 0)
        stopped = self._factory.disconnect()
        for connection in list(self._open):
            connection.transport.abortConnection()
        await stopped
        await deferLater(self.reactor, 0)
        if self._next_sweep:
            self._next_sweep.cancel()
            self._next_sweep = None

    # --- commands ---

    def call(self, *words: bytes) -> Deferred[Any]:
        """Send a command; return the answer as parsed by hiredis, bulk strings as bytes.

        :raises StateUnavailable: (the Deferred) if the command times out, or is answered with an error.
        """
        deadline = self.reactor.seconds() + self.timeout
        if not self._ready:
            return self._waiters.wait().addCallback(lambda connection: connection.call(deadline, *words))
        return self._ready[0].call(deadline, *words)

    def run(
        self, shape: Shape, body: bytes, when: bytes = b"", aside: bool = False, decode: Decode = unchanged
    ) -> Deferred[Any]:
        """Run a script and return its answer. One that times out has not run, and will not run later.

        :param body: keys and arguments, encoded.
        :param when: see ``clock.lua``; ``b""`` stands for the deadline.
        :param aside: use another connection than urgent commands do, if there is one.
        :param decode: makes the result from the reply.
        :raises StateUnavailable: (the Deferred) likewise.
        """
        deferred: Deferred[Any] = Deferred()
        self._run(deferred, shape, body, when, -1 if aside else 0, decode)
        return deferred

    def run_fast(self, shape: Shape, body: bytes, when: bytes, decode: Decode) -> StoreReply[Any]:
        """Do the same as :meth:`run`, with another kind of result."""
        reply: StoreReply[Any] = StoreReply()
        self._run(reply, shape, body, when, 0, decode)
        return reply

    def _run(self, reply: Reply, shape: Shape, body: bytes, when: bytes, place: int, decode: Decode) -> None:
        deadline = self.reactor.seconds() + self.timeout
        if self._ready:
            self._ready[place].run(reply, deadline, shape, body, when, decode)
            return
        waiting = self._waiters.wait()
        waiting.addCallback(
            lambda connection: None if reply.called else connection.run(reply, deadline, shape, body, when, decode)
        )
        waiting.addErrback(lambda failure: None if reply.called else reply.errback(failure))

    def ping(self) -> Deferred[None]:
        """Try every command that the scripts use.

        :raises StateUnavailable: (the Deferred) if one times out, or is answered with an error.
        """
        return self.run(_PROBE, strings(self.login.probe)).addCallback(lambda _: self._errors.succeeded())

    # --- events of connections ---

    def connection_opened(self, connection: RedisConnection) -> None:
        """A connection is established, but not logged in."""
        self._open.add(connection)
        if self._was_down and not self._ready:
            # Only the first time: it may hang.
            self._was_down = False
            self._waiters.open()

    def connection_closed(self, connection: RedisConnection) -> None:
        """A connection is closed."""
        self._open.discard(connection)

    def connection_ready(self, connection: RedisConnection) -> None:
        """A connection is logged in."""
        if self.login.master:
            self._abandon_old_master(connection)
        self._ready.append(connection)
        if self._unavailable:
            self._unavailable = ""
            self._reported = False
            self.log.info("{name} is connected.", name=self.server.name)
        self._waiters.serve(connection)

    def _abandon_old_master(self, newest: RedisConnection) -> None:
        """Abandon connections to other servers: the Sentinels directed the newest one to the current master."""
        for connection in list(self._ready):
            if connection.transport.getPeer() != newest.transport.getPeer():
                connection.abandon("it is not the master any more")

    def connection_abandoned(self, connection: RedisConnection, reason: str) -> None:
        """A connection must not be used any more, or its login failed."""
        if connection in self._ready:
            self._ready.remove(connection)
            self.lost += 1
            if not self._ready and not self._factory.disconnectCalled:
                self._waiters.open()
        self.connect_failed(reason)

    def resend(self, entry: Entry) -> None:
        """Send a command again that was in flight on a lost connection."""

        def send(connection: RedisConnection) -> None:
            if not entry[0].called:
                connection.resend(entry)

        def fail(failure: Failure) -> None:
            if not entry[0].called:
                entry[0].errback(failure)

        if self._ready:
            send(self._ready[0])
        else:
            self._waiters.wait().addCallbacks(send, fail)

    def command_failed(self, reason: str) -> None:
        """The server answered a command with an error."""
        if not self._factory.disconnectCalled:
            self._errors.failed(str(RedisUnavailable(self.server.name, reason)))

    def connect_failed(self, reason: str, is_down: bool = False) -> None:
        """Log once that no connection is ready, unless one is.

        :param is_down: whether no server accepts connections.
        """
        if self._ready or self._factory.disconnectCalled:
            return
        self._was_down = is_down
        self._unavailable = str(RedisUnavailable(self.server.name, reason))
        if not self._reported:
            self._reported = True
            self.log.error("{problem}.", problem=self._unavailable)

    def server_unavailable(self, connection: RedisConnection, reason: str) -> None:
        """A ready connection found that the server is unavailable: reconnect all."""
        if connection in self._ready:
            self._reconnect_all(reason)

    def _reconnect_all(self, reason: str) -> None:
        for connection in list(self._ready):
            connection.abandon(reason)

    def schedule_sweep(self) -> None:
        """Make sure that commands in flight are checked for timeouts."""
        if self._next_sweep is None:
            self._last_sweep = self.reactor.seconds()
            self._next_sweep = self.reactor.callLater(self.tick, self._sweep)

    def _sweep(self) -> None:
        time, self._next_sweep = self.reactor.seconds(), None
        is_late, self._last_sweep = time - self._last_sweep > 3 * self.tick, time
        if is_late:
            # The reactor was blocked: let it read the answers that have arrived meanwhile.
            self._next_sweep = self.reactor.callLater(0, self._sweep)
            return
        for connection in self._ready:
            if time - connection.clock_read > CLOCK_INTERVAL:
                connection.clock_read = time
                connection.read_clock(time + self.timeout).addErrback(lambda _: None)
        pending = [connection.sweep(time) for connection in list(self._open)]
        if any(pending):
            self.schedule_sweep()


class _Factory(txredisapi.RedisFactory):  # type: ignore[misc]
    """Creates a pool's connections. They log in by themselves: the factory has no password and no dbid."""

    protocol = RedisConnection
    initialDelay = 0.1
    maxDelay = 0.5

    def __init__(self, owner: RedisPool, size: int) -> None:
        super().__init__(uuid=owner.server.name, dbid=None, poolsize=size, isLazy=True, charset=None)
        self.owner = owner

    def startConnecting(self, endpoint: RedisServer) -> None:
        """Open the connections, and reopen them when they are lost."""
        self.slots = [_Slot(self, endpoint) for _ in range(self.poolsize)]
        for slot in self.slots:
            slot.start()

    def addConnection(self, connection: RedisConnection) -> None:
        """Called by txredisapi when a connection is ready."""
        if connection.connected and not self.disconnectCalled:
            self.owner.connection_ready(connection)


class _Service(ClientService):
    """A ClientService that does not log every attempt."""

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
        """Connect; report a failure to the pool."""
        return self._endpoint.connect(protocolFactory).addErrback(self._failed)

    def _failed(self, failure: Failure) -> Failure:
        is_down = bool(failure.check(ConnectionRefusedError, NoMaster))
        self._factory.owner.connect_failed(self._endpoint.explain(failure), is_down)
        return failure

    def _made(self, connection: Any) -> None:
        # A connection counts as a failed attempt until it is logged in, so that the retry delay grows.
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
    timeout: float,
    observe: Callable[[float], None] = no_observer,
    sentinel_password: str = "",
    turn: Turn | None = None,
) -> RedisPool:
    """Return the configured pool, not started.

    :param password: of the Redis servers.
    :param timeout: of a command, in seconds.
    :param observe: called with the duration in seconds of each command that was answered or timed out.
    :param sentinel_password: of the Sentinels.
    :param turn: at the end of which commands are sent together.
    :raises ConfigError: if the CA file cannot be used.
    """
    probe = redis.key_prefix.encode() + b":probe"
    login = Login(redis.username, password, redis.db, probe, bool(redis.sentinel_servers))
    server = server_from(redis, Login(redis.sentinel_username, sentinel_password), reactor)
    return RedisPool(server, login, reactor, timeout, redis.pool_size, observe, turn or Turn(reactor.callLater))
