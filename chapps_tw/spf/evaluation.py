"""Evaluation of SPF records: check_host() of RFC 7208, without network access.

Section numbers refer to RFC 7208.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar

from chapps_tw.dns.messages import MAX_EXPLANATION, Answer, DnsFailure, is_spf, text_of
from chapps_tw.mail.received_spf import SpfResult, one_line
from chapps_tw.spf.macros import MacroSyntaxError, MacroValueError, check_macros, expand
from chapps_tw.spf.syntax import Directive, PermError, Record, parse

# Section 4.6.4.
MAX_LOOKUPS = 10
MAX_NAMES = 10

# CPU time of one evaluation, in seconds.
MAX_SECONDS = 0.25

_MAX_NAME = 253
_MAX_LABEL = 63

# Characters of a problem text, which may quote a whole term.
_MAX_PROBLEM = 640

Question = tuple[str, str]
T = TypeVar("T")

# A generator that yields the questions whose answers it needs, and returns a value.
Lookups = Generator[Question, None, T]


class Identity(NamedTuple):
    """The identity to check.

    :ivar client: IP address.
    :ivar name: ``helo`` or ``mailfrom``.
    :ivar local: local part; ``postmaster`` if there is none.
    :ivar helo: the HELO name, as A-labels if possible.
    """

    client: str
    name: str
    local: str
    domain: str
    helo: str


class Rules(NamedTuple):
    """The site's settings.

    :ivar now: returns epoch seconds, for the macro ``t``.
    :ivar receiver: name of the host that performs the check, for the macro ``r``.
    :ivar void_lookups: limit of void lookups (section 4.6.4).
    :ivar record_size: maximum size of an SPF record in octets.
    """

    now: Callable[[], float]
    receiver: str = "unknown"
    void_lookups: int = 2
    record_size: int = 16384


class TempError(Exception):
    """A transient DNS error (section 2.6.6). The text is one line.

    :ivar asked: what each queried name server did, for the log only.
    """

    def __init__(self, problem: str, asked: str = "") -> None:
        super().__init__(problem)
        self.asked = asked


class _Outcome(NamedTuple):
    """The outcome of check_host(): the result, the matching mechanism, and the ``exp=`` of its domain."""

    result: str
    mechanism: str = ""
    domain: str = ""
    exp: str = ""


class Evaluation:
    """Evaluates one identity, term by term, one DNS question at a time.

    :param thread_time: returns the CPU time of the calling thread in seconds.
    :ivar cpu_time: of all steps so far, in seconds.
    :ivar is_for_domain: whether the result so far holds for every local part and HELO name: no macro was expanded that
        stands for them.
    """

    def __init__(self, identity: Identity, rules: Rules, thread_time: Callable[[], float]) -> None:
        self._identity = identity
        self._rules = rules
        self._thread_time = thread_time
        self._client = ip_address(identity.client)
        self._address_type = "A" if self._client.version == 4 else "AAAA"
        self._answers: dict[Question, Answer | DnsFailure] = {}
        self._lookups = self._void_lookups = 0
        self.cpu_time = self._step_start = 0.0
        self.is_for_domain = True
        self._steps = self._evaluate()

    def step(self, question: Question | None = None, answer: Answer | DnsFailure = ()) -> SpfResult | Question:
        """Continue until the result, or the next DNS question.

        :param question: the question that ``answer`` is for.
        """
        self._step_start = self._thread_time()
        if question is not None:
            self._answers[question] = answer
        try:
            return next(self._steps)
        except StopIteration as end:
            result: SpfResult = end.value
            return result
        finally:
            self.cpu_time += self._thread_time() - self._step_start

    def _evaluate(self) -> Lookups[SpfResult]:
        name, domain = self._identity.name, self._identity.domain
        try:
            outcome = yield from self._check_host(domain)
        except TempError as error:
            return SpfResult("temperror", name, domain, problem=one_line(str(error), _MAX_PROBLEM), asked=error.asked)
        except PermError as error:
            return SpfResult("permerror", name, domain, problem=one_line(str(error), _MAX_PROBLEM))
        explanation = (yield from self._explanation(outcome)) if outcome.result == "fail" else ""
        return SpfResult(outcome.result, name, domain, explanation, outcome.mechanism)

    def _check_host(self, domain: str) -> Lookups[_Outcome]:
        """Evaluate check_host() for one domain (section 4). Raises TempError, PermError."""
        record = yield from self._record(domain)
        if record is None:
            return _Outcome("none")
        for directive in record.directives:
            if (yield from self._matches(directive, domain)):
                return _Outcome(directive.result, directive.text, domain, record.exp)
        if record.redirect:
            return (yield from self._redirect(record.redirect, domain))
        return _Outcome("neutral")

    def _record(self, domain: str) -> Lookups[Record | None]:
        """Return the SPF record of a domain (sections 4.4 to 4.6); ``None`` if it has none."""
        texts = [text for text in map(text_of, (yield from self._ask(domain, "TXT"))) if is_spf(text)]
        if not texts:
            return None
        if len(texts) > 1:
            raise PermError(f"multiple SPF records for {domain}")
        if len(texts[0]) > self._rules.record_size:
            raise PermError(f"SPF record of more than {self._rules.record_size} octets")
        return parse(texts[0], self._identity.client, self._check_cpu_time)

    def _redirect(self, target: str, domain: str) -> Lookups[_Outcome]:
        """Evaluate ``redirect=`` (section 6.1). The explanation is that of the target."""
        self._count_lookup()
        try:
            name = yield from self._expand(target, domain)
        except MacroValueError:
            return _Outcome("neutral")
        outcome = (yield from self._check_host(name)) if _is_valid_name(name) else _Outcome("none")
        if outcome.result == "none":
            raise PermError(f"redirect to {name}, which has no SPF record")
        return outcome

    def _matches(self, directive: Directive, domain: str) -> Lookups[bool]:
        """Return whether a mechanism matches the client (section 5)."""
        if directive.name == "all":
            return True
        if directive.network is not None:
            return self._client in directive.network
        self._count_lookup()
        try:
            name = yield from self._expand(directive.domain, domain)
        except MacroValueError:
            return False
        if directive.name == "include":
            return (yield from self._include(name))
        if not _is_valid_name(name):
            return False
        found, matches = yield from self._look_up(directive, name)
        if not (found or matches):
            self._count_void_lookup()
        return matches

    def _include(self, name: str) -> Lookups[bool]:
        """Evaluate ``include`` (section 5.2)."""
        outcome = (yield from self._check_host(name)) if _is_valid_name(name) else _Outcome("none")
        if outcome.result == "none":
            raise PermError(f"include of {name}, which has no SPF record")
        return outcome.result == "pass"

    def _look_up(self, directive: Directive, name: str) -> Lookups[tuple[bool, bool]]:
        """Return whether all lookups of a term found records, and whether the term matches."""
        if directive.name == "mx":
            return (yield from self._mx(name, directive.prefix))
        if directive.name == "ptr":
            return (yield from self._ptr(name))
        addresses = yield from self._ask(name, "A" if directive.name == "exists" else self._address_type)
        matches = bool(addresses) if directive.name == "exists" else self._is_among(addresses, directive.prefix)
        return bool(addresses), matches

    def _mx(self, name: str, prefix: int) -> Lookups[tuple[bool, bool]]:
        """Evaluate ``mx`` (section 5.4)."""
        exchanges = yield from self._ask(name, "MX")
        if len(exchanges) > MAX_NAMES:
            raise PermError(f"More than {MAX_NAMES} MX records returned")
        found = bool(exchanges)
        for _, exchange in sorted(exchanges):
            if exchange:
                addresses = yield from self._ask(exchange, self._address_type)
                if self._is_among(addresses, prefix):
                    return True, True
                found = found and bool(addresses)
        return found, False

    def _ptr(self, target: str) -> Lookups[tuple[bool, bool]]:
        """Evaluate ``ptr`` (section 5.5)."""
        names = yield from self._ptr_names()
        target = target.lower()
        for name in names or ():
            if _is_within(name, target) and (yield from self._is_validated(name)):
                return True, True
        return names != (), False

    def _ptr_names(self) -> Lookups[tuple[str, ...] | None]:
        """Return the PTR names of the client, not validated; ``None`` on a DNS error."""
        try:
            names: tuple[str, ...] = yield from self._ask(self._client.reverse_pointer, "PTR")
        except TempError:
            return None
        return names[:MAX_NAMES]

    def _is_validated(self, name: str) -> Lookups[bool]:
        """Return whether a name resolves to the client's address; false on a DNS error (section 5.5)."""
        try:
            addresses = (yield from self._ask(name, self._address_type)) if name else ()
        except TempError:
            return False
        return self._is_among(addresses, self._client.max_prefixlen)

    def _is_among(self, addresses: Iterable[str], prefix: int) -> bool:
        """Return whether the client is in the network of one of the addresses."""
        rest = self._client.max_prefixlen - prefix
        network = int(self._client) >> rest
        return any(int(ip_address(each)) >> rest == network for each in addresses)

    def _expand(self, text: str, domain: str) -> Lookups[str]:
        """Expand the macros of a domain-spec (section 7.3). Raises MacroValueError."""
        name = expand(text, (yield from self._macro_values(text, domain))).removesuffix(".")
        # Labels are removed from the left until the name fits.
        start = name.find(".", max(0, len(name) - _MAX_NAME - 1)) + 1
        return name[start:] if len(name) > _MAX_NAME else name

    def _macro_values(self, text: str, domain: str) -> Lookups[Mapping[str, str]]:
        """Return the values of the macros (section 7.2). ``p`` is looked up only if the text has it."""
        _, _, local, sender_domain, helo = self._identity
        lower, plain = text.lower(), str(self._client)
        if "%{s" in lower or "%{l" in lower or "%{h" in lower:
            self.is_for_domain = False
        dotted = plain if self._client.version == 4 else ".".join(f"{int(self._client):032X}")
        return {
            "s": f"{local}@{sender_domain}",
            "l": local,
            "o": sender_domain,
            "d": domain,
            "i": dotted,
            "p": (yield from self._validated_name(domain)) if "%{p" in lower else "",
            "v": "in-addr" if self._client.version == 4 else "ip6",
            "h": helo,
            "c": plain,
            "r": self._rules.receiver,
            "t": str(int(self._rules.now())),
        }

    def _validated_name(self, domain: str) -> Lookups[str]:
        """Return a validated name of the client: preferably the domain, else a subdomain, else any (section 7.3)."""
        names, preferred = (yield from self._ptr_names()) or (), domain.lower()
        for name in sorted(names, key=lambda name: (name != preferred, not _is_within(name, preferred))):
            if (yield from self._is_validated(name)):
                return name
        return "unknown"

    def _explanation(self, outcome: _Outcome) -> Lookups[str]:
        """Return the domain's explanation of a fail (section 6.2); ``""`` if there is none, or on any error."""
        if not outcome.exp:
            return ""
        try:
            name = yield from self._expand(outcome.exp, outcome.domain)
            texts: Any = (yield from self._ask(name, "TXT")) if _is_valid_name(name) else ()
            if len(texts) != 1 or len(text_of(texts[0])) > MAX_EXPLANATION:
                return ""
            text = text_of(texts[0]).decode("ascii")
            check_macros(text, explaining=True)
            return one_line(expand(text, (yield from self._macro_values(text, outcome.domain)), in_name=False))
        except (TempError, MacroValueError, MacroSyntaxError, UnicodeDecodeError):
            return ""

    def _ask(self, name: str, rdtype: str) -> Lookups[Any]:
        """Return the records of a name, an empty tuple if there are none. Raises TempError."""
        self._check_cpu_time()
        question = name.lower(), rdtype
        if question not in self._answers:
            yield question
        answer = self._answers[question]
        if isinstance(answer, DnsFailure):
            raise TempError(problem_of(question, answer), answer.asked)
        return answer

    def _check_cpu_time(self) -> None:
        """Raise TempError if the evaluation exceeds its CPU time."""
        if self.cpu_time + self._thread_time() - self._step_start > MAX_SECONDS:
            raise TempError("the record takes too long to evaluate")

    def _count_lookup(self) -> None:
        """Count a term that causes DNS lookups (section 4.6.4). Raises PermError."""
        self._lookups += 1
        if self._lookups > MAX_LOOKUPS:
            raise PermError("Too many DNS lookups")

    def _count_void_lookup(self) -> None:
        """Count a void lookup (section 4.6.4): once per term, however many lookups it makes. Raises PermError."""
        self._void_lookups += 1
        if self._void_lookups > self._rules.void_lookups:
            raise PermError(f"Void lookup limit of {self._rules.void_lookups} exceeded")


def problem_of(question: Question, failure: DnsFailure) -> str:
    """Describe a failed lookup in one sentence, safe to show to strangers."""
    name = question[0].encode("unicode_escape").decode("ascii")
    return f"{question[1]} of {name}: {failure.problem}"


def _is_valid_name(name: str) -> bool:
    """Return whether a name is within the size limits of DNS (RFC 1035, section 2.3.4)."""
    return len(name) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in name.split("."))


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")
