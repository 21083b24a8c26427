"""SPF checks (RFC 7208) that block nothing else.

A step of the evaluation runs in a thread until it needs a DNS answer; the lookup runs on the reactor. So a thread is
busy for about a millisecond per step, and a name server that never answers occupies none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chapps_tw.dns.cache import Cache
from chapps_tw.dns.messages import FAILURE_TTL, Answer, DnsFailure, is_spf, text_of
from chapps_tw.dns.queue import Queue
from chapps_tw.mail.addresses import MAX_DOMAIN, normal_domain
from chapps_tw.mail.network import client_address
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.spf.evaluation import Evaluation, Identity, Question, Rules, problem_of

# Checks in flight. Each has one DNS lookup open, so this bounds sockets as well.
MAX_CHECKS = 400

RESULT_TTL = 60.0

# Results of messages: Postfix asks about one for each recipient, and at more than one stage.
MAX_RESULTS = 1024
MAX_RESULT_BYTES = 2 << 20

# Results of identities: of two in each message, and as many as a busy server meets in a minute.
MAX_IDENTITIES = 16384
MAX_IDENTITY_BYTES = 16 << 20

# Seconds after the deadline for a running step to end.
_GRACE = 0.5

# Domains of mail addresses (RFC 5322, section 3.4.1) that DNS can carry. IP addresses are excluded.
_LABEL = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]{1,63}"
_RESOLVABLE = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\.?$){_LABEL}\.?")

log = Logger()


class Dns(Protocol):
    """A resolver; see :class:`chapps_tw.dns.resolver.Resolver`."""

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """Look up the records of a name. Raises DnsFailure."""

    def progress(self, name: str, rdtype: str) -> str:
        """Describe what each queried server did so far for a lookup in flight; ``""`` if none was queried."""


class _Expiring(NamedTuple):
    result: SpfResult
    expires: float


class SpfChecker:
    """Checks the HELO identity, then MAIL FROM.

    :param reactor: for deadlines and cache expiry.
    :param run: runs a function with its arguments in a thread, such as ``partial(deferToThreadPool,
        reactor, pool)``.
    :param thread_time: returns the CPU time of the calling thread in seconds, such as ``time.thread_time``.
    :param timeout: seconds for both identities of a message together.
    :param rules: the site's settings.
    :ivar looks: calls of :meth:`check`.
    :ivar misses: calls whose result was neither cached nor in flight.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        run: Callable[..., Deferred[SpfResult | Question]],
        thread_time: Callable[[], float],
        resolver: Dns,
        timeout: float,
        rules: Rules,
    ) -> None:
        self._reactor = reactor
        self._queue = Queue(run)
        self._thread_time = thread_time
        self._dns = resolver
        self._timeout = timeout
        self._rules = rules
        self._results: Cache[SpfResult] = Cache(MAX_RESULTS, MAX_RESULT_BYTES)
        # By identity, and by the part of it that all senders of a domain share.
        self._by_identity: Cache[_Expiring] = Cache(MAX_IDENTITIES, MAX_IDENTITY_BYTES)
        self._pending: dict[tuple[str, str, str], list[Deferred[SpfResult]]] = {}
        self._tasks: set[Deferred[None]] = set()
        self._closed = False
        self.looks = self.misses = 0

    @property
    def checks(self) -> int:
        """The number of checks in flight."""
        return len(self._pending)

    def check(self, client: str, helo: str, sender: str) -> Deferred[SpfResult]:
        """Check a message. Never fails: an error gives ``temperror``.

        A ``fail`` of the HELO identity is final. For the null sender (``""``) only the HELO identity is checked.
        Cancelling the Deferred does not cancel the check. The arguments are as the client gave them.
        """
        self.looks += 1
        key = (client, helo, sender)
        result = self._results.get(key, self._reactor.seconds()) or self._combined(*key)
        if result is not None:
            return succeed(result)
        if key not in self._pending and (self._closed or len(self._pending) >= MAX_CHECKS):
            problem = "the service is stopping" if self._closed else "too many SPF checks in flight"
            return succeed(SpfResult("temperror", problem=problem))
        waiter: Deferred[SpfResult] = Deferred()
        if key in self._pending:
            self._pending[key].append(waiter)
            return waiter
        self.misses += 1
        self._pending[key] = [waiter]
        task = Deferred.fromCoroutine(self._run(key))
        self._tasks.add(task)
        task.addBoth(lambda _: self._tasks.discard(task))
        return waiter

    def close(self) -> None:
        """Cancel all checks, and refuse new ones. Callers get ``temperror``."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def _run(self, key: tuple[str, str, str]) -> None:
        result = SpfResult("temperror", problem="the check was cancelled")
        try:
            result = await self._check_both(*key)
        except CancelledError:
            pass
        except Exception:
            log.failure("unexpected error in an SPF check")
        finally:
            for waiter in self._pending.pop(key):
                waiter.callback(result)

    def _combined(self, client: str, helo: str, sender: str) -> SpfResult | None:
        """Return the result of a message whose identities are in the cache, and cache it; ``None`` if one is not."""
        by_helo = identity_of(client, helo, "")
        found = self._cached(by_helo) if by_helo is not None else None
        if found is None:
            return None
        result, expires = found
        by_sender = identity_of(client, helo, sender)
        if result.result != "fail" and sender and by_sender is not None:
            found = self._cached(by_sender)
            if found is None:
                return None
            result, expires = found.result, min(expires, found.expires)
        self._results.set((client, helo, sender), result, expires)
        return result

    def _cached(self, identity: Identity) -> _Expiring | None:
        now = self._reactor.seconds()
        return self._by_identity.get(_domain_key(identity), now) or self._by_identity.get(identity, now)

    def _cache(self, identity: Identity, result: SpfResult, is_for_domain: bool) -> SpfResult:
        # A client that retries after a temperror must cause new lookups.
        failed = result.result == "temperror"
        expires = self._reactor.seconds() + (FAILURE_TTL if failed else RESULT_TTL)
        key = _domain_key(identity) if is_for_domain and not failed else identity
        self._by_identity.set(key, _Expiring(result, expires), expires)
        return result

    async def _check_both(self, client: str, helo: str, sender: str) -> SpfResult:
        by_helo = identity_of(client, helo, "")
        if by_helo is None:
            return SpfResult("none", problem="the client address is unknown")
        deadline = self._reactor.seconds() + self._timeout
        # A HELO name whose DNS hangs must leave time for the other identity.
        result = await self.check_host(by_helo, deadline - self._timeout / 2 if sender else deadline)
        by_sender = identity_of(client, helo, sender)
        if result.result == "fail" or not sender or by_sender is None:
            return result
        return await self.check_host(by_sender, deadline)

    async def check_host(self, identity: Identity, deadline: float) -> SpfResult:
        """Return the result of check_host() of RFC 7208, section 4, from the cache if possible.

        :param deadline: in the reactor's time.
        """
        cached = self._cached(identity)
        if cached is not None:
            return cached.result
        name, domain = identity.name, identity.domain
        if not domain:
            return self._cache(identity, SpfResult("none", name), True)
        question = (domain, "TXT")
        answer = await self._ask(question, deadline)
        if isinstance(answer, DnsFailure):
            problem = problem_of(question, answer)
            return self._cache(
                identity, SpfResult("temperror", name, domain, problem=problem, asked=answer.asked), True
            )
        if not any(is_spf(text_of(record)) for record in answer):
            return self._cache(identity, SpfResult("none", name, domain), True)
        evaluation = Evaluation(identity, self._rules, self._thread_time)
        result = await self._evaluate(evaluation, question, answer, deadline)
        if result is None:
            result = SpfResult("temperror", name, domain, problem="the check timed out")
        return self._cache(identity, result, evaluation.is_for_domain)

    async def _evaluate(
        self, evaluation: Evaluation, question: Question, answer: Answer | DnsFailure, deadline: float
    ) -> SpfResult | None:
        """Return the result of an evaluation; ``None`` if it does not end in time."""
        while True:
            left = max(0.0, deadline - self._reactor.seconds()) + _GRACE
            try:
                step = self._queue.run(evaluation.cpu_time, evaluation.step, question, answer)
                outcome = await Deferred.fromCoroutine(step).addTimeout(left, self._reactor)
            except TimeoutError:
                return None
            if isinstance(outcome, SpfResult):
                return outcome
            question, answer = outcome, await self._ask(outcome, deadline)

    async def _ask(self, question: Question, deadline: float) -> Answer | DnsFailure:
        left = deadline - self._reactor.seconds()
        try:
            if left <= 0:
                raise TimeoutError
            return await self._dns.ask(*question).addTimeout(left, self._reactor)
        except DnsFailure as failure:
            return failure
        except TimeoutError:
            return DnsFailure("DNS lookup timed out", self._dns.progress(*question))


def _domain_key(identity: Identity) -> tuple[str, str, str]:
    """Return what all identities share whose result depends on no local part and no HELO name."""
    return identity.client, identity.name, identity.domain


def identity_of(client: str, helo: str, sender: str) -> Identity | None:
    """Return the identity to check; for the null sender (``""``) the HELO identity. ``None`` without a client address.

    The domain is the part after the last ``@``: Postfix passes addresses without quotes.
    """
    address = client_address(client)
    if address is None:
        return None
    helo_name = (helo if helo.isascii() else normal_domain(helo) or helo) or "unknown"
    if not sender:
        return Identity(str(address), "helo", "postmaster", _domain(helo), helo_name)
    local, at, domain = sender.rpartition("@")
    return Identity(str(address), "mailfrom", local or "postmaster", _domain(domain) if at else "", helo_name)


def _domain(text: str) -> str:
    """Return a domain that SPF can be checked for (RFC 7208, section 4.3), else ``""``."""
    domain = normal_domain(text)
    if not domain and _RESOLVABLE.fullmatch(text) and len(text) <= MAX_DOMAIN:
        domain = text.removesuffix(".").lower()
    return domain if "." in domain else ""
