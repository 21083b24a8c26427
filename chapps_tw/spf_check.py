"""SPF checks (RFC 7208) that hold up nothing else.

pyspf blocks on DNS. Here it runs on the answers that are known already; where it needs one more it
stops, the question goes to DNS on the reactor, and pyspf runs again with the answer. So a thread is
busy for the millisecond that a run takes, and a name server that never answers occupies none.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import spf
from twisted.internet.defer import CancelledError, Deferred, TimeoutError, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chapps_tw.names import normal_domain
from chapps_tw.network import client_address
from chapps_tw.received_spf import SpfResult, one_line
from chapps_tw.spf_dns import Answer, DnsFailure

# Messages that are checked at once. Each has one DNS question open, so this bounds sockets as well.
MAX_CHECKS = 400

# A message is asked about once for each recipient, and at more than one stage.
RESULT_TTL = 60.0
MAX_RESULTS = 4096

# RFC 7208, section 3.4, wants records to fit into 512 octets. The time that a run takes grows with the
# length of a term, or of an explanation, times its dots; and there are as many runs as questions.
MAX_RECORD = 4096
MAX_TERM = 512
MAX_DOTS = 127
_MAX_LOCAL_PART = 128
_MAX_HELO = 255

# Seconds over the deadline that a thread gets for what it is at.
_GRACE = 0.5

log = Logger()

Question = tuple[str, str]
Known = dict[Question, Answer | DnsFailure]


class Dns(Protocol):
    """Where DNS answers come from; see :class:`chapps_tw.spf_dns.Resolver`."""

    def ask(self, name: str, rdtype: str) -> Deferred[Answer]:
        """The records of a name. Raises DnsFailure."""


class Identity(NamedTuple):
    """Who is checked.

    :ivar client: IP address.
    :ivar name: ``helo`` or ``mailfrom``.
    """

    client: str
    name: str
    local: str
    domain: str
    helo: str


class Run(NamedTuple):
    """What a run came to.

    :ivar missing: the question to answer before the next; ``None`` when the result counts.
    """

    result: SpfResult
    missing: Question | None = None


_UNKNOWN = SpfResult("none")


class SpfChecker:
    """Checks the HELO identity, then MAIL FROM.

    :param clock: what deadlines and caches go by.
    :param run: runs a function with its arguments in a thread, such as ``partial(deferToThreadPool,
        reactor, pool)``.
    :param timeout: seconds for both identities of a message together.
    :ivar looks: how often a message was to be checked.
    :ivar misses: how often that had to be done, since its result was not known and not under way.
    """

    def __init__(self, clock: IReactorTime, run: Callable[..., Deferred[Run]], resolver: Dns, timeout: float) -> None:
        self._clock = clock
        self._run = run
        self._dns = resolver
        self._timeout = timeout
        self._results: OrderedDict[tuple[str, str, str], tuple[float, SpfResult]] = OrderedDict()
        self._waiting: dict[tuple[str, str, str], list[Deferred[SpfResult]]] = {}
        self._tasks: set[Deferred[None]] = set()
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
        until, result = self._results.get(key, (0.0, None))
        if result is not None and until > self._clock.seconds():
            return succeed(result)
        if key not in self._waiting and len(self._waiting) >= MAX_CHECKS:
            return succeed(SpfResult("temperror", problem="too many SPF checks at once"))
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
        """Give up every check that is in flight; who waits for one gets a ``temperror``."""
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
        self._results.pop(key, None)
        self._results[key] = (self._clock.seconds() + RESULT_TTL, result)
        if len(self._results) > MAX_RESULTS:
            self._results.popitem(last=False)

    async def _check_both(self, client: str, helo: str, sender: str) -> SpfResult:
        by_helo = identity_of(client, helo, "")
        if by_helo is None:
            return SpfResult("none", problem="the client's address is not known")
        end = self._clock.seconds() + self._timeout
        # A HELO name whose DNS hangs must not take all the time of the other identity.
        result = await self.check_host(by_helo, end - self._timeout / 2 if sender else end)
        by_sender = identity_of(client, helo, sender)
        if result.result == "fail" or not sender or by_sender is None:
            return result
        return await self.check_host(by_sender, end)

    async def check_host(self, identity: Identity, deadline: float) -> SpfResult:
        """The function check_host() of RFC 7208, section 4.

        :param deadline: by the checker's clock.
        """
        if not identity.domain:
            return SpfResult("none", identity.name)
        first = (identity.domain, "TXT")
        records = await self._find(first, deadline)
        if isinstance(records, DnsFailure):
            return SpfResult("temperror", identity.name, identity.domain, problem=_problem(first, records))
        if not any(spf.RE_SPF.match(_joined(record)) for record in records):
            return SpfResult("none", identity.name, identity.domain)
        known: Known = {first: records}
        while True:
            left = max(0.0, deadline - self._clock.seconds()) + _GRACE
            try:
                result, missing = await self._run(evaluate, identity, known).addTimeout(left, self._clock)
            except TimeoutError:
                return SpfResult("temperror", identity.name, identity.domain, problem="the check took too long")
            if missing is None:
                return result
            known[missing] = await self._find(missing, deadline)

    async def _find(self, question: Question, deadline: float) -> Answer | DnsFailure:
        left = deadline - self._clock.seconds()
        try:
            if left <= 0:
                raise TimeoutError
            return await self._dns.ask(*question).addTimeout(left, self._clock)
        except DnsFailure as failure:
            return failure
        except TimeoutError:
            return DnsFailure("no answer from DNS in time")


def evaluate(identity: Identity, known: Known) -> Run:
    """One run of pyspf on the answers that are known: the result, or the question that is missing."""
    query = _Query(identity, known)
    try:
        result, _, text = query.check()
    except _Missing:
        return Run(_UNKNOWN, query.missing)
    except Exception as error:
        # pyspf is not to be trusted with every record that a stranger can write.
        problem = f"{type(error).__name__} while the record was read"
        return Run(SpfResult("temperror", identity.name, identity.domain, problem=problem))
    # It looks for an explanation first of all, and swallows every exception there.
    if result == "fail" and query.missing:
        return Run(_UNKNOWN, query.missing)
    found = SpfResult(
        result,
        identity.name,
        identity.domain,
        explanation=one_line(text) if result == "fail" else "",
        mechanism=one_line(query.mechanism or ""),
        problem=one_line(query.prob) if result in ("temperror", "permerror") else "",
    )
    return Run(found)


class _Missing(Exception):
    """pyspf asks something that is not known yet."""


class _Query(spf.query):  # type: ignore[misc]
    """pyspf's check of one identity, with no network under it."""

    def __init__(self, identity: Identity, known: Known) -> None:
        super().__init__(i=identity.client, s=f"{identity.local}@{identity.domain}", h=identity.helo)
        # A local part may hold an @ of its own.
        self.l, self.o, self.d = identity.local, identity.domain, identity.domain
        self.set_default_explanation("")
        self.known = known
        self.missing: Question | None = None
        self.prob = ""

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """In place of pyspf's own: CNAMEs are followed by the name server, void look-ups counted here."""
        name = str(name).removesuffix(".").lower()
        if not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        answer = self.known.get((name, qtype))
        if answer is None:
            self.missing = (name, qtype)
            raise _Missing
        if isinstance(answer, DnsFailure):
            raise spf.TempError(_problem((name, qtype), answer))
        if not answer and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return [value for value in answer if qtype != "TXT" or _bearable(value)]


def _problem(question: Question, failure: DnsFailure) -> str:
    return f"{question[1]} of {question[0]}: {failure}"


def _joined(record: Any) -> bytes:
    """The strings of a TXT record as one (RFC 7208, section 3.3)."""
    return b"".join(record)


def _bearable(record: Any) -> bool:
    """Whether a TXT record is worth a look; raises PermError for an SPF record that is not."""
    text = _joined(record)
    if not spf.RE_SPF.match(text):
        return len(text) <= MAX_TERM
    if len(text) > MAX_RECORD:
        raise spf.PermError(f"SPF record of more than {MAX_RECORD} octets")
    if any(len(term) > MAX_TERM or term.count(b".") > MAX_DOTS for term in text.split(b" ")):
        raise spf.PermError(f"SPF term of more than {MAX_TERM} octets or {MAX_DOTS} dots")
    return True


def identity_of(client: str, helo: str, sender: str) -> Identity | None:
    """Whom to check; for the null sender (``""``) the HELO identity. ``None`` without a client address.

    The domain is what stands after the last ``@``: Postfix hands addresses over without their quotes.
    """
    address = client_address(client)
    if address is None:
        return None
    said = one_line(helo, _MAX_HELO) or "unknown"
    if not sender:
        return Identity(str(address), "helo", "postmaster", _domain(helo), said)
    local, at, domain = sender.rpartition("@")
    local = one_line(local, _MAX_LOCAL_PART) or "postmaster"
    return Identity(str(address), "mailfrom", local, _domain(domain) if at else "", said)


def _domain(text: str) -> str:
    """A domain name that SPF can be checked for (RFC 7208, section 4.3), else ``""``."""
    domain = normal_domain(text)
    return domain if "." in domain else ""
