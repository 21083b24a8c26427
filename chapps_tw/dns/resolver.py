"""DNS questions on the reactor, each asked once and remembered for its TTL.

Sockets and timers are Twisted's, so that a name server that never answers costs a socket and a timer, and
no thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NamedTuple, TypeVar

import dns.exception
import dns.rcode
import dns.resolver
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, fail, succeed
from twisted.logger import Logger

from chapps_tw.dns.cache import Cache
from chapps_tw.dns.messages import (
    FAILURE_TTL,
    MAX_RECORDS,
    MAX_TTL,
    NO_EDNS,
    Answer,
    DnsFailure,
    Foreign,
    Found,
    Query,
    Question,
    Reply,
    Unreadable,
    query,
    question_of,
    read,
)
from chapps_tw.dns.queue import Queue, Turns
from chapps_tw.dns.transport import Conversation, Datagrams, Unusable
from chapps_tw.mail.network import Server
from chapps_tw.observe.timer import Watch, unwatched

MAX_QUESTIONS = 512
MAX_CACHED = 16384
MAX_CACHED_BYTES = 32 << 20

# Seconds that a server has for its first answer; doubled each time all of them were asked.
FIRST_PATIENCE = 1.0

# Questions that are sent in one turn of the reactor; each takes about a tenth of a millisecond.
TURN_SIZE = 2

T = TypeVar("T")

RESOLV_CONF = "/etc/resolv.conf"

log = Logger()


class Bounds(NamedTuple):
    """What is read of an answer.

    :ivar size: octets that it may have; only one over TCP can have more than 4096.
    :ivar records: that it may have.
    """

    size: int = 65535
    records: int = MAX_RECORDS


_BOUNDS = Bounds()


class Resolver:
    """Asks recursive name servers.

    :param reactor: provides IReactorTime, IReactorFDSet and IReactorTCP.
    :param run: runs a function with its arguments in a thread: answers are read there.
    :param servers: gives those to ask, in this order.
    :param timeout: seconds until a question is given up.
    :param watch: times each question to the servers, by its type of record.
    :param bounds: what is read of an answer.
    :ivar looks: how often something was asked.
    :ivar misses: how often that was not known, nor asked already.
    :ivar failures: questions that no server answered.
    """

    def __init__(
        self,
        reactor: Any,
        run: Callable[..., Deferred[Reply]],
        servers: Callable[[], Sequence[Server]],
        timeout: float,
        watch: Watch = unwatched,
        bounds: Bounds = _BOUNDS,
    ) -> None:
        self._reactor = reactor
        # Short ones first: a long answer is read in a hundred times the time of a short one.
        self._reading = Queue(run)
        self._watch = watch
        self.looks = self.misses = self.failures = 0
        self._servers = servers
        self._timeout = timeout
        self._bounds = bounds
        self._cache: Cache[Answer | DnsFailure] = Cache(MAX_CACHED, MAX_CACHED_BYTES)
        self._waiting: dict[tuple[str, str], list[Deferred[Answer]]] = {}
        self._asked: dict[tuple[str, str], dict[Server, str]] = {}
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
        key = _key(name, rdtype)
        answer = self._cache.get(key, self._reactor.seconds())
        if answer is not None:
            return fail(answer.again()) if isinstance(answer, DnsFailure) else succeed(answer)
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

    def progress(self, name: str, rdtype: str) -> str:
        """Which servers were asked a question that is in flight, and what each did; ``""`` when none was."""
        return ", ".join(f"{server} {what}" for server, what in self._asked.get(_key(name, rdtype), {}).items())

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
            self._asked.pop(key, None)
            self._tell(key, found)

    def _tell(self, key: tuple[str, str], found: Found) -> None:
        if found.ttl > 0:
            self._cache.keep(key, found.answer, self._reactor.seconds() + found.ttl)
            self.failures += isinstance(found.answer, DnsFailure)
        for waiter in self._waiting.pop(key):
            if isinstance(found.answer, DnsFailure):
                waiter.errback(found.answer.again())
            else:
                waiter.callback(found.answer)

    async def _look_up(self, name: str, rdtype: str) -> Found:
        end = self._reactor.seconds() + self._timeout
        await self._turns.mine()
        try:
            question = question_of(name, rdtype)
        except ValueError:
            return Found((), MAX_TTL)  # what cannot be a name has no records
        asked = self._asked[name, rdtype] = {}
        servers, patience = list(self._servers()), FIRST_PATIENCE
        while servers:
            for server in tuple(servers):
                if self._reactor.seconds() >= end:
                    raise DnsFailure("no answer from DNS in time", self.progress(name, rdtype))
                asked[server] = "has not answered"
                try:
                    return await self._ask_server(question, server, patience, end)
                except TimeoutError:
                    await self._turns.mine()
                except (Unusable, Unreadable, Foreign) as error:
                    asked[server] = str(error)
                    servers.remove(server)
            patience *= 2
        raise DnsFailure("no DNS server has an answer", self.progress(name, rdtype))

    async def _ask_server(self, question: Question, server: Server, patience: float, end: float) -> Found:
        reply = await self._in_time(self._over_udp(question, server, edns=True), patience, end)
        if reply.status in NO_EDNS:
            reply = await self._in_time(self._over_udp(question, server, edns=False), patience, end)
        if reply.truncated:
            await self._turns.mine()
            talk = Conversation(self._reactor, query(question, edns=False), server, self._bounds.size)
            wire = await self._in_time(talk.received, patience, end)
            reply = await self._in_time(self._read(wire, talk.query), inf, end)
        if reply.found is None:
            status = dns.rcode.to_text(dns.rcode.Rcode.make(reply.status))
            raise Unusable(f"answered {status}" if reply.status else "answered with aliases that lead nowhere")
        return reply.found

    def _read(self, wire: bytes, asked: Query) -> Deferred[Reply]:
        """Read an answer in a thread. Raises Foreign, Unreadable."""
        return Deferred.fromCoroutine(self._reading.run(len(wire), read, wire, asked, self._bounds.records))

    def _in_time(self, waiting: Deferred[T], patience: float, end: float) -> Deferred[T]:
        left = end - self._reactor.seconds()
        return waiting.addTimeout(max(0.0, min(patience, left)), self._reactor)

    def _over_udp(self, question: Question, server: Server, edns: bool) -> Deferred[Reply]:
        try:
            return Datagrams(self._reactor, query(question, edns), server, self._read).reply
        except OSError:
            return fail(Unusable("cannot be reached"))


def nameservers(configured: Sequence[Server]) -> Callable[[], Sequence[Server]]:
    """Gives the servers that are configured; the system's when there is none."""
    return (lambda: configured) if configured else SystemServers()


class SystemServers:
    """Gives the name servers of the system, as its file says now (resolv.conf(5)).

    While that names none, such as in the middle of a change, it is those from before; at first the local host.
    """

    def __init__(self, path: str = RESOLV_CONF) -> None:
        self._path = path
        self._state: object = None
        self._servers = [Server("127.0.0.1", 53)]

    def __call__(self) -> Sequence[Server]:
        try:
            status = os.stat(self._path)
            state = status.st_mtime_ns, status.st_ino, status.st_size
            if state != self._state:
                system = dns.resolver.Resolver(self._path)
                self._servers = [Server(str(server), system.port) for server in system.nameservers]
                self._state = state
        except (OSError, ValueError, dns.exception.DNSException):
            pass
        return self._servers


def _key(name: str, rdtype: str) -> tuple[str, str]:
    return name.lower().removesuffix("."), rdtype
