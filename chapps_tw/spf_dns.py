"""DNS questions on the reactor, each asked once and remembered for its TTL.

dnspython writes and reads the messages; sockets and timers are Twisted's, so that a name server
that never answers costs a socket and a timer, and no thread.
"""

from __future__ import annotations

import struct
from collections import OrderedDict, deque
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.watch import Watch, unwatched

MAX_QUESTIONS = 512
MAX_CACHED = 16384
MAX_TTL = 86400.0

# RFC 9520: a failure is remembered for at least 1 s and at most 5 minutes.
FAILURE_TTL = 5.0

# Seconds that a server has for its first answer; doubled each time all of them were asked.
FIRST_PATIENCE = 1.0

# Questions that are sent in one turn of the reactor; each takes about a quarter of a millisecond.
TURN_SIZE = 2

# Of one message: reading 256 records takes some ten milliseconds, in the reactor's thread.
MAX_RECORDS = 256
MAX_TCP_BYTES = 16384
_MAX_UDP_BYTES = 4096
_UDP_PAYLOAD = 1232

Value = str | tuple[bytes, ...] | tuple[int, str]
Answer = tuple[Value, ...]
Server = tuple[str, int]

log = Logger()


class DnsFailure(OSError):
    """DNS gave no answer, neither yes nor no. Says why in one sentence."""


class _Unusable(Exception):
    """What a server answered is of no use; another one may know better."""


class _Query(NamedTuple):
    """A question, and what is sent each time it is asked."""

    message: dns.message.Message
    wire: bytes


class _Found(NamedTuple):
    answer: Answer | DnsFailure
    ttl: float


class Resolver:
    """Asks recursive name servers.

    :param reactor: provides IReactorTime, IReactorFDSet and IReactorTCP.
    :param servers: addresses and ports, asked in this order.
    :param timeout: seconds until a question is given up.
    :param watch: times each question to the servers, by its type of record.
    :ivar looks: how often something was asked.
    :ivar misses: how often that was not known, nor asked already.
    :ivar failures: questions that no server answered.
    """

    def __init__(self, reactor: Any, servers: Sequence[Server], timeout: float, watch: Watch = unwatched) -> None:
        self._reactor = reactor
        self._watch = watch
        self.looks = self.misses = self.failures = 0
        self._servers = tuple(servers)
        self._timeout = timeout
        self._cache: OrderedDict[tuple[str, str], tuple[float, Answer | DnsFailure]] = OrderedDict()
        self._waiting: dict[tuple[str, str], list[Deferred[Answer]]] = {}
        self._tasks: set[Deferred[None]] = set()
        self._turns = Turns(reactor)
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
        until, answer = self._cache.get(key, (0.0, ()))
        if until > self._reactor.seconds():
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
        found = _Found(DnsFailure("the look-up was given up"), 0.0)
        try:
            found = await self._look_up(*key)
        except DnsFailure as error:
            self.failures += 1
            found = _Found(error, FAILURE_TTL)
        except CancelledError:
            pass
        finally:
            self._keep(key, found)
            for waiter in self._waiting.pop(key):
                if isinstance(found.answer, DnsFailure):
                    # One for each: an exception keeps hold of everything that it was raised through.
                    waiter.errback(DnsFailure(*found.answer.args))
                else:
                    waiter.callback(found.answer)

    def _keep(self, key: tuple[str, str], found: _Found) -> None:
        self._cache.pop(key, None)
        if found.ttl > 0:
            self._cache[key] = (self._reactor.seconds() + min(found.ttl, MAX_TTL), found.answer)
            if len(self._cache) > MAX_CACHED:
                self._cache.popitem(last=False)

    async def _look_up(self, name: str, rdtype: str) -> _Found:
        end = self._reactor.seconds() + self._timeout
        await self._turns.mine()
        try:
            message = dns.message.make_query(_dns_name(name), rdtype, use_edns=0, payload=_UDP_PAYLOAD)
        except dns.exception.DNSException:
            return _Found((), MAX_TTL)  # what cannot be a name has no records
        query = _Query(message, message.to_wire())
        servers, patience = list(self._servers), FIRST_PATIENCE
        while servers:
            for server in tuple(servers):
                if self._reactor.seconds() >= end:
                    raise DnsFailure("no answer from DNS in time")
                try:
                    return await self._ask_server(query, server, patience, end)
                except TimeoutError:
                    await self._turns.mine()
                except _Unusable:
                    servers.remove(server)
            patience *= 2
        raise DnsFailure("no DNS server has an answer")

    async def _ask_server(self, query: _Query, server: Server, patience: float, end: float) -> _Found:
        left = end - self._reactor.seconds()
        response = await self._over_udp(query, server).addTimeout(min(patience, left), self._reactor)
        if response.flags & dns.flags.TC:
            left = max(0.0, end - self._reactor.seconds())
            response = await self._over_tcp(query, server).addTimeout(left, self._reactor)
        return _read(response)

    def _over_udp(self, query: _Query, server: Server) -> Deferred[dns.message.Message]:
        try:
            return _Datagrams(self._reactor, query, server).response
        except OSError:
            return fail(_Unusable())

    def _over_tcp(self, query: _Query, server: Server) -> Deferred[dns.message.Message]:
        endpoint = TCP6ClientEndpoint if ":" in server[0] else TCP4ClientEndpoint
        return Deferred.fromCoroutine(_converse(endpoint(self._reactor, *server), query))


class Turns:
    """Lets a few go on in each turn of the reactor, so that a burst of questions is no standstill."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._free = TURN_SIZE
        self._queue: deque[Deferred[None]] = deque()
        self._renewing = False

    def mine(self) -> Deferred[None]:
        """Fires when it is the caller's turn."""
        turn: Deferred[None] = Deferred()
        self._queue.append(turn)
        self._go_on()
        return turn

    def _go_on(self) -> None:
        while self._free and self._queue:
            self._free -= 1
            self._queue.popleft().callback(None)
        if not self._renewing:
            self._renewing = True
            self._clock.callLater(0, self._renew)

    def _renew(self) -> None:
        self._renewing = False
        self._free = TURN_SIZE
        if self._queue:
            self._go_on()


@implementer(IReadDescriptor)
class _Datagrams:
    """One question over UDP, from a port of its own: its number makes forged answers harder (RFC 5452).

    The reactor's own ports are not for one datagram: each writes a line into the log when it is opened,
    and one when it is closed.

    :raises OSError: when there is no socket to be had, or no way to the server.
    """

    def __init__(self, reactor: IReactorFDSet, query: _Query, server: Server) -> None:
        self.response: Deferred[dns.message.Message] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._query = query
        self._socket = socket(AF_INET6 if ":" in server[0] else AF_INET, SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(query.wire)
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
            response = _parse(self._query, self._socket.recv(_MAX_UDP_BYTES))
        except (BlockingIOError, _Unusable):
            return  # from somebody else, or damaged: the right one may still come
        except OSError:
            self.connectionLost(Failure())
            return
        self._close()
        self.response.callback(response)

    def connectionLost(self, reason: Failure) -> None:
        self._close()
        if not self.response.called:
            self.response.errback(_Unusable())

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Int16StringReceiver):
    """One question over TCP (RFC 7766)."""

    MAX_LENGTH = MAX_TCP_BYTES

    def __init__(self) -> None:
        self.received: Deferred[bytes] = Deferred()

    def stringReceived(self, string: bytes) -> None:
        if not self.received.called:
            self.received.callback(string)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.received.called:
            self.received.errback(_Unusable())


async def _converse(endpoint: Any, query: _Query) -> dns.message.Message:
    try:
        stream = await connectProtocol(endpoint, _Stream())
    except ConnectError:
        raise _Unusable from None
    try:
        stream.sendString(query.wire)
        return _parse(query, await stream.received)
    finally:
        stream.transport.abortConnection()


def _dns_name(text: str) -> dns.name.Name:
    labels = [label.encode("utf-8", "surrogateescape") for label in text.split(".")]
    return dns.name.Name([*labels, b""])


def _parse(query: _Query, wire: bytes) -> dns.message.Message:
    try:
        if sum(struct.unpack_from("!3H", wire, 6)) > MAX_RECORDS:
            raise _Unusable
        response = dns.message.from_wire(wire, ignore_trailing=True)
        if query.message.is_response(response):
            return response
    except (dns.exception.DNSException, ValueError, struct.error):
        pass
    raise _Unusable


def _read(response: dns.message.Message) -> _Found:
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) or response.flags & dns.flags.TC:
        raise _Unusable
    try:
        chain = response.resolve_chaining()  # type: ignore[attr-defined]
    except dns.message.ChainTooLong:
        return _Found((), MAX_TTL)
    except dns.exception.DNSException:
        raise _Unusable from None
    return _Found(tuple(_value(rdata) for rdata in chain.answer or ()), chain.minimum_ttl)


def _value(rdata: Any) -> Value:
    match rdata.rdtype:
        case dns.rdatatype.TXT:
            return tuple(rdata.strings)
        case dns.rdatatype.MX:
            return rdata.preference, rdata.exchange.to_text(omit_final_dot=True)
        case dns.rdatatype.PTR:
            return str(rdata.target.to_text(omit_final_dot=True))
    return str(rdata.address)


def nameservers(configured: Sequence[Server]) -> list[Server]:
    """The servers that are configured; the system's when there is none."""
    return list(configured) or _system_nameservers()


def _system_nameservers() -> list[Server]:
    try:
        system = dns.resolver.Resolver()
    except dns.resolver.NoResolverConfiguration:
        return [("127.0.0.1", 53)]
    return [(str(server), system.port) for server in system.nameservers]
