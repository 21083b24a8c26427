"""SPF checks (RFC 7208) that hold up nothing else.

Records are evaluated in a thread, as far as the answers that are known reach; the next question goes to DNS on the
reactor. So a thread is busy for the millisecond that a step takes, and a name server that never answers occupies none.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

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

# Messages that are checked at once. Each has one DNS question open, so this bounds sockets as well.
MAX_CHECKS = 400

# A message is asked about once for each recipient, and at more than one stage.
RESULT_TTL = 60.0
MAX_RESULTS = 4096
MAX_RESULT_BYTES = 8 << 20

# Seconds over the deadline that a thread gets for what it is at.
_GRACE = 0.5

# What the address of a mail may have for a domain (RFC 5322, section 3.4.1) and DNS can carry, but for addresses.
_LABEL = r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]{1,63}"
_ASKABLE = re.compile(rf"(?:{_LABEL}\.)+(?![0-9]+\.?$){_LABEL}\.?")

log = Logger()


class Dns(Protocol):
    """Where DNS answers come from; see :class:`chapps_tw.dns.resolver.Resolver`."""

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """The records of a name. Raises DnsFailure."""

    def progress(self, name: str, rdtype: str) -> str:
        """What became so far of a question that is not answered yet; ``""`` when nothing did."""


class SpfChecker:
    """Checks the HELO identity, then MAIL FROM.

    :param reactor: what deadlines and caches go by.
    :param run: runs a function with its arguments in a thread, such as ``partial(deferToThreadPool,
        reactor, pool)``.
    :param computed: how many seconds the thread that asks has computed, such as ``time.thread_time``.
    :param timeout: seconds for both identities of a message together.
    :param rules: what a site decides.
    :ivar looks: how often a message was to be checked.
    :ivar misses: how often that had to be done, since its result was not known and not under way.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        run: Callable[..., Deferred[SpfResult | Question]],
        computed: Callable[[], float],
        resolver: Dns,
        timeout: float,
        rules: Rules,
    ) -> None:
        self._reactor = reactor
        self._steps = Queue(run)
        self._computed = computed
        self._dns = resolver
        self._timeout = timeout
        self._rules = rules
        self._results: Cache[SpfResult] = Cache(MAX_RESULTS, MAX_RESULT_BYTES)
        self._waiting: dict[tuple[str, str, str], list[Deferred[SpfResult]]] = {}
        self._tasks: set[Deferred[None]] = set()
        self._closed = False
        self.looks = self.misses = 0

    @property
    def checks(self) -> int:
        """How many checks are in flight."""
        return len(self._waiting)

    def check(self, client: str, helo: str, sender: str) -> Deferred[SpfResult]:
        """Check a message. Never fails: whatever goes wrong is a ``temperror``.

        A ``fail`` of the HELO identity is final. The null sender (``""``) is checked by it alone.
        Cancelling ends the waiting, not the check. The texts are as the client gave them.
        """
        self.looks += 1
        key = (client, helo, sender)
        result = self._results.get(key, self._reactor.seconds())
        if result is not None:
            return succeed(result)
        if key not in self._waiting and (self._closed or len(self._waiting) >= MAX_CHECKS):
            why = "the process ends" if self._closed else "too many SPF checks at once"
            return succeed(SpfResult("temperror", problem=why))
        waiter: Deferred[SpfResult] = Deferred()
        if key in self._waiting:
            self._waiting[key].append(waiter)
            return waiter
        self.misses += 1
        self._waiting[key] = [waiter]
        task = Deferred.fromCoroutine(self._tell(key))
        self._tasks.add(task)
        task.addBoth(lambda _: self._tasks.discard(task))
        return waiter

    def close(self) -> None:
        """Give up every check that is in flight, and begin no more; who waits for one gets a ``temperror``."""
        self._closed = True
        for task in tuple(self._tasks):
            task.cancel()

    async def _tell(self, key: tuple[str, str, str]) -> None:
        result = SpfResult("temperror", problem="the check was given up")
        try:
            result = await self._check_both(*key)
            self._keep(key, result)
        except CancelledError:
            pass
        except Exception:
            log.failure("an SPF check ended unexpectedly")
        finally:
            for waiter in self._waiting.pop(key):
                waiter.callback(result)

    def _keep(self, key: tuple[str, str, str], result: SpfResult) -> None:
        # Whoever comes back later must find DNS asked again.
        ttl = FAILURE_TTL if result.result == "temperror" else RESULT_TTL
        self._results.keep(key, result, self._reactor.seconds() + ttl)

    async def _check_both(self, client: str, helo: str, sender: str) -> SpfResult:
        by_helo = identity_of(client, helo, "")
        if by_helo is None:
            return SpfResult("none", problem="the client's address is not known")
        end = self._reactor.seconds() + self._timeout
        # A HELO name whose DNS hangs must not take all the time of the other identity.
        result = await self.check_host(by_helo, end - self._timeout / 2 if sender else end)
        by_sender = identity_of(client, helo, sender)
        if result.result == "fail" or not sender or by_sender is None:
            return result
        return await self.check_host(by_sender, end)

    async def check_host(self, identity: Identity, deadline: float) -> SpfResult:
        """The function check_host() of RFC 7208, section 4.

        :param deadline: by its reactor.
        """
        if not identity.domain:
            return SpfResult("none", identity.name)
        question, name, domain = (identity.domain, "TXT"), identity.name, identity.domain
        answer = await self._find(question, deadline)
        if isinstance(answer, DnsFailure):
            problem = problem_of(question, answer)
            return SpfResult("temperror", name, domain, problem=problem, asked=answer.asked)
        if not any(is_spf(text_of(record)) for record in answer):
            return SpfResult("none", name, domain)
        evaluation = Evaluation(identity, self._rules, self._computed)
        while True:
            left = max(0.0, deadline - self._reactor.seconds()) + _GRACE
            try:
                running = self._steps.run(evaluation.seconds, evaluation.step, question, answer)
                outcome = await Deferred.fromCoroutine(running).addTimeout(left, self._reactor)
            except TimeoutError:
                return SpfResult("temperror", name, domain, problem="the check took too long")
            if isinstance(outcome, SpfResult):
                return outcome
            question, answer = outcome, await self._find(outcome, deadline)

    async def _find(self, question: Question, deadline: float) -> Answer | DnsFailure:
        left = deadline - self._reactor.seconds()
        try:
            if left <= 0:
                raise TimeoutError
            return await self._dns.ask(*question).addTimeout(left, self._reactor)
        except DnsFailure as failure:
            return failure
        except TimeoutError:
            return DnsFailure("no answer from DNS in time", self._dns.progress(*question))


def identity_of(client: str, helo: str, sender: str) -> Identity | None:
    """Whom to check; for the null sender (``""``) the HELO identity. ``None`` without a client address.

    The domain is what stands after the last ``@``: Postfix hands addresses over without their quotes.
    """
    address = client_address(client)
    if address is None:
        return None
    said = (helo if helo.isascii() else normal_domain(helo) or helo) or "unknown"
    if not sender:
        return Identity(str(address), "helo", "postmaster", _domain(helo), said)
    local, at, domain = sender.rpartition("@")
    return Identity(str(address), "mailfrom", local or "postmaster", _domain(domain) if at else "", said)


def _domain(text: str) -> str:
    """A domain name that SPF can be checked for (RFC 7208, section 4.3), else ``""``."""
    domain = normal_domain(text)
    if not domain and _ASKABLE.fullmatch(text) and len(text) <= MAX_DOMAIN:
        domain = text.removesuffix(".").lower()
    return domain if "." in domain else ""
