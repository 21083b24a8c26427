"""DNS questions on the reactor, each asked once and remembered for its TTL.

Sockets and timers are Twisted's, so that a name server that never answers costs a socket and a timer, and
no thread.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket
from typing import Any, TypeVar

import dns.resolver
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.interfaces import IConnector, IReactorFDSet, IReactorTCP, IReadDescriptor
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.spf_cache import Cache
from chapps_tw.spf_messages import (
    FAILURE_TTL,
    MAX_TTL,
    NO_EDNS,
    Answer,
    Damaged,
    DnsFailure,
    Found,
    Query,
    Question,
    Reply,
    may_answer,
    query,
    question_of,
    read,
)
from chapps_tw.spf_turns import Queue, Turns
from chapps_tw.watch import Watch, unwatched

MAX_QUESTIONS = 512
MAX_CACHED = 16384
MAX_CACHED_BYTES = 32 << 20

# Seconds that a server has for its first answer; doubled each time all of them were asked.
FIRST_PATIENCE = 1.0

# Questions that are sent in one turn of the reactor; each takes about a tenth of a millisecond.
TURN_SIZE = 2

MAX_TCP_BYTES = 16384

# More than we ask for, since some servers do not heed that.
_MAX_UDP_BYTES = 4096

T = TypeVar("T")

Server = tuple[str, int]

log = Logger()


class _Unusable(Exception):
    """What a server answered is of no use; another one may know better."""


class Resolver:
    """Asks recursive name servers.

    :param reactor: provides IReactorTime, IReactorFDSet and IReactorTCP.
    :param run: runs a function with its arguments in a thread: answers are read there.
    :param servers: addresses and ports, asked in this order.
    :param timeout: seconds until a question is given up.
    :param watch: times each question to the servers, by its type of record.
    :ivar looks: how often something was asked.
    :ivar misses: how often that was not known, nor asked already.
    :ivar failures: questions that no server answered.
    """

    def __init__(
        self,
        reactor: Any,
        run: Callable[..., Deferred[Reply]],
        servers: Sequence[Server],
        timeout: float,
        watch: Watch = unwatched,
    ) -> None:
        self._reactor = reactor
        # Short ones first: a long answer is read in a hundred times the time of a short one.
        self._reading = Queue(run)
        self._watch = watch
        self.looks = self.misses = self.failures = 0
        self._servers = tuple(servers)
        self._timeout = timeout
        self._cache: Cache[Answer | DnsFailure] = Cache(MAX_CACHED, MAX_CACHED_BYTES)
        self._waiting: dict[tuple[str, str], list[Deferred[Answer]]] = {}
        self._tasks: set[Deferred[None]] = set()
        self._turns = Turns(reactor, TURN_SIZE)
        self._closed = False

    @property
    def questions(self) -> int:
        """How many questions are in flight."""
        return len(self._waiting)

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """The records of a name: ``A AAAA PTR`` as text, ``MX`` as (preference, name), ``TXT`` as its strings.

        Cancelling it ends the waiting, not the question, which others may wait for too.

        :returns: an empty tuple when the name, or a record of that type, does not exist.
        :raises DnsFailure: when that cannot be told.
        """
        self.looks += 1
        key = (name.lower().removesuffix("."), rdtype)
        answer = self._cache.get(key, self._reactor.seconds())
        if answer is not None:
            return fail(DnsFailure(*answer.args)) if isinstance(answer, DnsFailure) else succeed(answer)
        if key not in self._waiting and (self._closed or len(self._waiting) >= MAX_QUESTIONS):
            return fail(DnsFailure("too many DNS questions at once" if not self._closed else "the process ends"))
        waiter: Deferred[Answer] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(waiter)
            return waiter
        self._waiting[key] = [waiter]
        self.misses += 1
        task: Deferred[None] = Deferred.fromCoroutine(self._answer(key)).addBoth(self._watch(rdtype))
        self._tasks.add(task)
        task.addErrback(lambda failure: log.failure("a DNS question ended unexpectedly", failure))
        task.addBoth(lambda _: self._tasks.discard(task))
        return waiter

    def close(self) -> None:
        """Give up every question, and take no more."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def _answer(self, key: tuple[str, str]) -> None:
        found = Found(DnsFailure("the look-up was given up"), 0.0)
        try:
            found = await self._look_up(*key)
        except DnsFailure as error:
            found = Found(error, FAILURE_TTL)
        except CancelledError:
            pass
        finally:
            self._tell(key, found)

    def _tell(self, key: tuple[str, str], found: Found) -> None:
        if found.ttl > 0:
            self._cache.keep(key, found.answer, self._reactor.seconds() + found.ttl)
            self.failures += isinstance(found.answer, DnsFailure)
        for waiter in self._waiting.pop(key):
            if isinstance(found.answer, DnsFailure):
                # One for each: an exception keeps hold of everything that it was raised through.
                waiter.errback(DnsFailure(*found.answer.args))
            else:
                waiter.callback(found.answer)

    async def _look_up(self, name: str, rdtype: str) -> Found:
        end = self._reactor.seconds() + self._timeout
        await self._turns.mine()
        try:
            question = question_of(name, rdtype)
        except ValueError:
            return Found((), MAX_TTL)  # what cannot be a name has no records
        servers, patience = list(self._servers), FIRST_PATIENCE
        while servers:
            for server in tuple(servers):
                if self._reactor.seconds() >= end:
                    raise DnsFailure("no answer from DNS in time")
                try:
                    return await self._ask_server(question, server, patience, end)
                except TimeoutError:
                    await self._turns.mine()
                except (_Unusable, Damaged):
                    servers.remove(server)
            patience *= 2
        raise DnsFailure("no DNS server has an answer")

    async def _ask_server(self, question: Question, server: Server, patience: float, end: float) -> Found:
        reply = await self._in_time(self._over_udp(question, server, edns=True), patience, end)
        if reply.status in NO_EDNS:
            reply = await self._in_time(self._over_udp(question, server, edns=False), patience, end)
        if reply.truncated:
            await self._turns.mine()
            talk = _Conversation(self._reactor, query(question, edns=False), server)
            wire = await self._in_time(talk.received, patience, end)
            reply = await self._in_time(self._read(wire, talk.query), inf, end)
        if reply.found is None:
            raise _Unusable
        return reply.found

    def _read(self, wire: bytes, asked: Query) -> Deferred[Reply]:
        """Read an answer in a thread. Raises Damaged."""
        return Deferred.fromCoroutine(self._reading.run(len(wire), read, wire, asked))

    def _in_time(self, waiting: Deferred[T], patience: float, end: float) -> Deferred[T]:
        left = end - self._reactor.seconds()
        return waiting.addTimeout(max(0.0, min(patience, left)), self._reactor)

    def _over_udp(self, question: Question, server: Server, edns: bool) -> Deferred[Reply]:
        try:
            return _Datagrams(self._reactor, query(question, edns), server, self._read).reply
        except OSError:
            return fail(_Unusable())


@implementer(IReadDescriptor)
class _Datagrams:
    """One question over UDP, from a port of its own: its number makes forged answers harder (RFC 5452).

    The reactor's own ports are not for one datagram: each writes a line into the log when it is opened,
    and one when it is closed.

    :param read: reads what was received.
    :raises OSError: when there is no socket to be had, or no way to the server.
    """

    def __init__(
        self, reactor: IReactorFDSet, asked: Query, server: Server, read: Callable[[bytes, Query], Deferred[Reply]]
    ) -> None:
        self.reply: Deferred[Reply] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._asked = asked
        self._read = read
        self._socket = socket(AF_INET6 if ":" in server[0] else AF_INET, SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(asked.wire)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        try:
            wire = self._socket.recv(_MAX_UDP_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(Failure())
            return
        if may_answer(wire, self._asked):
            self._read(wire, self._asked).addCallbacks(self._told, _not_this_one)

    def _told(self, reply: Reply) -> None:
        if not self.reply.called:
            self._close()
            self.reply.callback(reply)

    def connectionLost(self, reason: Failure) -> None:
        self._close()
        if not self.reply.called:
            self.reply.errback(_Unusable())

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


def _not_this_one(failure: Failure) -> None:
    """From somebody else, or damaged on its way: the right one may still come."""
    failure.trap(Damaged)


class _Stream(Int16StringReceiver):
    """The connection of a :class:`_Conversation`."""

    MAX_LENGTH = MAX_TCP_BYTES

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        message = self.factory.query.wire
        self.transport.write(len(message).to_bytes(2) + message)

    def stringReceived(self, string: bytes) -> None:
        self.factory.hear(string)
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.hear(b"")


class _Conversation(ClientFactory):
    """One question over TCP (RFC 7766).

    :ivar received: the answer, in wire form. Fails with _Unusable where there is none.
    :ivar query: what is asked.
    """

    protocol = _Stream
    # Else there are two lines in the log for each.
    noisy = False

    def __init__(self, reactor: IReactorTCP, query: Query, server: Server) -> None:
        self.query = query
        self.received: Deferred[bytes] = Deferred(self._give_up)
        self._connector = reactor.connectTCP(*server, self)

    def _give_up(self, received: Deferred[bytes]) -> None:
        received.errback(CancelledError())
        self._connector.disconnect()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.hear(b"")

    def hear(self, wire: bytes) -> None:
        """Take what the server says first."""
        if self.received.called:
            return
        if may_answer(wire, self.query):
            self.received.callback(wire)
        else:
            self.received.errback(_Unusable())


def nameservers(configured: Sequence[Server]) -> list[Server]:
    """The servers that are configured; the system's when there is none."""
    return list(configured) or _system_nameservers()


def _system_nameservers() -> list[Server]:
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return [("127.0.0.1", 53)]
    return [(str(server), system.port) for server in system.nameservers]
