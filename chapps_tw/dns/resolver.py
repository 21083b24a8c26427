"""A caching stub resolver on the reactor. Identical lookups in flight share one query.

It uses Twisted's sockets and timers: a name server that never answers costs a socket and a timer, but
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
    MalformedResponse,
    MismatchedResponse,
    Query,
    Question,
    Response,
    Result,
    make_query,
    make_question,
    parse,
)
from chapps_tw.dns.queue import Queue, TurnLimiter
from chapps_tw.dns.transport import ServerFailure, TCPQuery, UDPQuery
from chapps_tw.mail.network import Server
from chapps_tw.observe.timer import Timer, no_timer

MAX_QUESTIONS = 512
MAX_CACHED = 16384
# So many lookups in a row without an answer mean that the servers are away, not those of one domain.
SILENT = 5
_NO_ANSWER = ("did not answer", "is unreachable")
MAX_CACHED_BYTES = 32 << 20

# Timeout of a server in the first round, in seconds; doubled for each further round through the servers.
INITIAL_TIMEOUT = 1.0

# Queries sent in one turn of the reactor; each takes about a tenth of a millisecond.
QUERIES_PER_TURN = 2

T = TypeVar("T")

RESOLV_CONF = "/etc/resolv.conf"

log = Logger()


class Bounds(NamedTuple):
    """Limits of a response.

    :ivar size: maximum size in octets; only a response over TCP can exceed 4096.
    :ivar records: maximum number of records.
    """

    size: int = 65535
    records: int = MAX_RECORDS


_DEFAULT_BOUNDS = Bounds()


class Resolver:
    """Queries recursive name servers.

    :param reactor: provides IReactorTime, IReactorFDSet and IReactorTCP.
    :param run: runs a function with its arguments in a thread, where responses are parsed.
    :param servers: returns the servers to query, in this order.
    :param timeout: of a lookup, in seconds.
    :param timer: times each lookup that queries servers, by record type.
    :param bounds: limits of a response.
    :ivar looks: lookups.
    :ivar misses: lookups that were neither cached nor in flight.
    :ivar failures: lookups that no server answered.
    :ivar problem: while the servers are silent, a sentence, else ``""``.
    """

    def __init__(
        self,
        reactor: Any,
        run: Callable[..., Deferred[Response]],
        servers: Callable[[], Sequence[Server]],
        timeout: float,
        timer: Timer = no_timer,
        bounds: Bounds = _DEFAULT_BOUNDS,
    ) -> None:
        self._reactor = reactor
        # Short responses first: a long one takes a hundred times as long to parse.
        self._parse_queue = Queue(run)
        self._timer = timer
        self.looks = self.misses = self.failures = 0
        self._silent = 0
        self._servers = servers
        self._timeout = timeout
        self._bounds = bounds
        self._cache: Cache[Answer | DnsFailure] = Cache(MAX_CACHED, MAX_CACHED_BYTES)
        self._pending: dict[tuple[str, str], list[Deferred[Answer]]] = {}
        self._progress: dict[tuple[str, str], dict[Server, str]] = {}
        self._tasks: set[Deferred[None]] = set()
        self._limiter = TurnLimiter(reactor, QUERIES_PER_TURN)
        self._closed = False

    @property
    def problem(self) -> str:
        return f"The last {self._silent} lookups got no answer from any server." if self._silent >= SILENT else ""

    @property
    def questions(self) -> int:
        """The number of lookups in flight."""
        return len(self._pending)

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """Look up the records of a name: ``A AAAA PTR`` as text, ``MX`` as (preference, name), ``TXT`` as its strings.

        Cancelling the Deferred does not cancel the lookup, which others may wait for too.

        :returns: an empty tuple if the name has no record of that type, or does not exist (NODATA, NXDOMAIN).
        :raises DnsFailure: if the lookup fails.
        """
        self.looks += 1
        key = _key(name, rdtype)
        answer = self._cache.get(key, self._reactor.seconds())
        if answer is not None:
            return fail(answer.copy()) if isinstance(answer, DnsFailure) else succeed(answer)
        if key not in self._pending and (self._closed or len(self._pending) >= MAX_QUESTIONS):
            return fail(DnsFailure("too many DNS lookups in flight" if not self._closed else "the service is stopping"))
        waiter: Deferred[Answer] = Deferred()
        if key in self._pending:
            self._pending[key].append(waiter)
            return waiter
        self._pending[key] = [waiter]
        self.misses += 1
        task: Deferred[None] = Deferred.fromCoroutine(self._run(key)).addBoth(self._timer(rdtype))
        self._tasks.add(task)
        task.addErrback(lambda failure: log.failure("unexpected error in a DNS lookup", failure))
        task.addBoth(lambda _: self._tasks.discard(task))
        return waiter

    def progress(self, name: str, rdtype: str) -> str:
        """Describe what each queried server did so far for a lookup in flight; ``""`` if none was queried."""
        return ", ".join(f"{server} {what}" for server, what in self._progress.get(_key(name, rdtype), {}).items())

    def close(self) -> None:
        """Cancel all lookups, and refuse new ones."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def _run(self, key: tuple[str, str]) -> None:
        result = Result(DnsFailure("the lookup was cancelled"), 0.0)
        try:
            result = await self._look_up(*key)
            self._silent = 0
        except DnsFailure as error:
            result = Result(error, FAILURE_TTL)
            said = self._progress.get(key, {}).values()
            self._silent = self._silent + 1 if all(each.startswith(_NO_ANSWER) for each in said) else 0
        except CancelledError:
            pass
        finally:
            self._progress.pop(key, None)
            self._finish(key, result)

    def _finish(self, key: tuple[str, str], result: Result) -> None:
        """Cache a result, and fire all Deferreds that wait for it."""
        if result.ttl > 0:
            self._cache.set(key, result.answer, self._reactor.seconds() + result.ttl)
            self.failures += isinstance(result.answer, DnsFailure)
        for waiter in self._pending.pop(key):
            if isinstance(result.answer, DnsFailure):
                waiter.errback(result.answer.copy())
            else:
                waiter.callback(result.answer)

    async def _look_up(self, name: str, rdtype: str) -> Result:
        deadline = self._reactor.seconds() + self._timeout
        await self._limiter.wait()
        try:
            question = make_question(name, rdtype)
        except ValueError:
            return Result((), MAX_TTL)  # an invalid name has no records
        progress = self._progress[name, rdtype] = {}
        servers, timeout = list(self._servers()), INITIAL_TIMEOUT
        while servers:
            for server in tuple(servers):
                if self._reactor.seconds() >= deadline:
                    raise DnsFailure("DNS lookup timed out", self.progress(name, rdtype))
                progress[server] = "did not answer"
                try:
                    return await self._query(question, server, timeout, deadline)
                except TimeoutError:
                    await self._limiter.wait()
                except (ServerFailure, MalformedResponse, MismatchedResponse) as error:
                    progress[server] = str(error)
                    servers.remove(server)
            timeout *= 2
        raise DnsFailure("no usable response from any DNS server", self.progress(name, rdtype))

    async def _query(self, question: Question, server: Server, timeout: float, deadline: float) -> Result:
        """Query one server. Raises TimeoutError, ServerFailure, MalformedResponse, MismatchedResponse."""
        response = await self._with_timeout(self._over_udp(question, server, edns=True), timeout, deadline)
        if response.status in NO_EDNS:
            response = await self._with_timeout(self._over_udp(question, server, edns=False), timeout, deadline)
        if response.truncated:
            await self._limiter.wait()
            tcp = TCPQuery(self._reactor, make_query(question, edns=False), server, self._bounds.size)
            wire = await self._with_timeout(tcp.response, timeout, deadline)
            response = await self._with_timeout(self._parse(wire, tcp.query), inf, deadline)
        if response.result is None:
            status = dns.rcode.to_text(dns.rcode.Rcode.make(response.status))
            raise ServerFailure(f"answered {status}" if response.status else "sent a broken CNAME chain")
        return response.result

    def _parse(self, wire: bytes, query: Query) -> Deferred[Response]:
        """Parse a response in a thread. Raises MismatchedResponse, MalformedResponse."""
        return Deferred.fromCoroutine(self._parse_queue.run(len(wire), parse, wire, query, self._bounds.records))

    def _with_timeout(self, waiting: Deferred[T], timeout: float, deadline: float) -> Deferred[T]:
        left = deadline - self._reactor.seconds()
        return waiting.addTimeout(max(0.0, min(timeout, left)), self._reactor)

    def _over_udp(self, question: Question, server: Server, edns: bool) -> Deferred[Response]:
        try:
            return UDPQuery(self._reactor, make_query(question, edns), server, self._parse).response
        except OSError:
            return fail(ServerFailure("is unreachable"))


def nameservers(configured: Sequence[Server]) -> Callable[[], Sequence[Server]]:
    """Return a function that returns the configured servers, or the system's if none are configured."""
    return (lambda: configured) if configured else SystemServers()


class SystemServers:
    """Returns the system's current name servers (resolv.conf(5)); rereads the file when it has changed.

    While the file names no server, as in the middle of a change, the previous ones remain in use; at first, localhost.
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
