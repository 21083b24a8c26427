"""The evaluation of SPF records: check_host() of RFC 7208, with no network under it.

Sections in comments are that document's.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple, TypeVar

from chapps_tw.dns.messages import MAX_EXPLANATION, Answer, DnsFailure, is_spf, text_of
from chapps_tw.mail.received_spf import SpfResult, one_line
from chapps_tw.spf.macros import MacroSyntaxError, MatchesNothing, check_macros, expand
from chapps_tw.spf.syntax import Directive, PermError, Record, parse

# Section 4.6.4.
MAX_LOOKUPS = 10
MAX_NAMES = 10

# Seconds that one evaluation may compute.
MAX_SECONDS = 0.25

_MAX_NAME = 253
_MAX_LABEL = 63

# Characters of a problem, which may quote a whole term.
_MAX_PROBLEM = 640

Question = tuple[str, str]
T = TypeVar("T")

# What yields the questions that it needs the answers of, and returns something.
Asking = Generator[Question, None, T]


class Identity(NamedTuple):
    """Who is checked.

    :ivar client: IP address.
    :ivar name: ``helo`` or ``mailfrom``.
    :ivar local: as it was given, but ``postmaster`` where there is none.
    :ivar helo: what the client said, as A-labels where that can be.
    """

    client: str
    name: str
    local: str
    domain: str
    helo: str


class Rules(NamedTuple):
    """What a site decides.

    :ivar now: seconds since 1970, for the macro ``t``.
    :ivar receiver: name of the host that checks, for the macro ``r``.
    :ivar void_lookups: terms that may find nothing in DNS (section 4.6.4).
    :ivar record_size: octets that one SPF record may have.
    """

    now: Callable[[], float]
    receiver: str = "unknown"
    void_lookups: int = 2
    record_size: int = 16384


class TempError(Exception):
    """DNS cannot tell now (section 2.6.6). Says what, in one line.

    :ivar asked: what each name server that was asked did, for the log alone.
    """

    def __init__(self, problem: str, asked: str = "") -> None:
        super().__init__(problem)
        self.asked = asked


class _Outcome(NamedTuple):
    """What check_host() came to: the result, the mechanism that matched, and the ``exp=`` of its domain."""

    result: str
    mechanism: str = ""
    domain: str = ""
    exp: str = ""


class Evaluation:
    """One check of an identity: a question at a time, terms in their order.

    :param computed: how many seconds the thread that asks has computed.
    :ivar seconds: how long all steps together computed.
    """

    def __init__(self, identity: Identity, rules: Rules, computed: Callable[[], float]) -> None:
        self._identity = identity
        self._rules = rules
        self._computed = computed
        self._client = ip_address(identity.client)
        self._address_type = "A" if self._client.version == 4 else "AAAA"
        self._known: dict[Question, Answer | DnsFailure] = {}
        self._lookups = self._voids = 0
        self.seconds = self._began = 0.0
        self._check = self._checked()

    def step(self, question: Question | None = None, answer: Answer | DnsFailure = ()) -> SpfResult | Question:
        """Go on as far as the answers reach: to the result, or the next question.

        :param question: what ``answer`` answers.
        """
        self._began = self._computed()
        if question is not None:
            self._known[question] = answer
        try:
            return next(self._check)
        except StopIteration as end:
            result: SpfResult = end.value
            return result
        finally:
            self.seconds += self._computed() - self._began

    def _checked(self) -> Asking[SpfResult]:
        name, domain = self._identity.name, self._identity.domain
        try:
            outcome = yield from self._check_host(domain)
        except TempError as error:
            return SpfResult("temperror", name, domain, problem=one_line(str(error), _MAX_PROBLEM), asked=error.asked)
        except PermError as error:
            return SpfResult("permerror", name, domain, problem=one_line(str(error), _MAX_PROBLEM))
        explanation = (yield from self._explanation(outcome)) if outcome.result == "fail" else ""
        return SpfResult(outcome.result, name, domain, explanation, outcome.mechanism)

    def _check_host(self, domain: str) -> Asking[_Outcome]:
        """The function check_host() for one domain (section 4). Raises TempError, PermError."""
        record = yield from self._record(domain)
        if record is None:
            return _Outcome("none")
        for directive in record.directives:
            if (yield from self._matches(directive, domain)):
                return _Outcome(directive.result, directive.text, domain, record.exp)
        if record.redirect:
            return (yield from self._redirected(record.redirect, domain))
        return _Outcome("neutral")

    def _record(self, domain: str) -> Asking[Record | None]:
        """The record of a domain (sections 4.4 to 4.6); ``None`` when it has none."""
        texts = [text for text in map(text_of, (yield from self._ask(domain, "TXT"))) if is_spf(text)]
        if not texts:
            return None
        if len(texts) > 1:
            raise PermError(f"two or more SPF records of {domain}")
        if len(texts[0]) > self._rules.record_size:
            raise PermError(f"SPF record of more than {self._rules.record_size} octets")
        return parse(texts[0], self._identity.client, self._go_on)

    def _redirected(self, target: str, domain: str) -> Asking[_Outcome]:
        """Section 6.1. Its explanation is that of the target."""
        self._count_lookup()
        try:
            name = yield from self._expanded(target, domain)
        except MatchesNothing:
            return _Outcome("neutral")
        outcome = (yield from self._check_host(name)) if _is_askable(name) else _Outcome("none")
        if outcome.result == "none":
            raise PermError(f"redirect to {name}, which has no SPF record")
        return outcome

    def _matches(self, directive: Directive, domain: str) -> Asking[bool]:
        """Whether a mechanism matches the client (section 5)."""
        if directive.name == "all":
            return True
        if directive.network is not None:
            return self._client in directive.network
        self._count_lookup()
        try:
            name = yield from self._expanded(directive.domain, domain)
        except MatchesNothing:
            return False
        if directive.name == "include":
            return (yield from self._included(name))
        if not _is_askable(name):
            return False
        found, matches = yield from self._found(directive, name)
        if not (found or matches):
            self._count_void()
        return matches

    def _included(self, name: str) -> Asking[bool]:
        """Section 5.2."""
        outcome = (yield from self._check_host(name)) if _is_askable(name) else _Outcome("none")
        if outcome.result == "none":
            raise PermError(f"include of {name}, which has no SPF record")
        return outcome.result == "pass"

    def _found(self, directive: Directive, name: str) -> Asking[tuple[bool, bool]]:
        """Whether DNS had something for each question of a term, and whether the term matches."""
        if directive.name == "mx":
            return (yield from self._mx(name, directive.prefix))
        if directive.name == "ptr":
            return (yield from self._ptr(name))
        addresses = yield from self._ask(name, "A" if directive.name == "exists" else self._address_type)
        matches = bool(addresses) if directive.name == "exists" else self._is_among(addresses, directive.prefix)
        return bool(addresses), matches

    def _mx(self, name: str, prefix: int) -> Asking[tuple[bool, bool]]:
        """Section 5.4."""
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

    def _ptr(self, target: str) -> Asking[tuple[bool, bool]]:
        """Section 5.5."""
        names = yield from self._client_names()
        target = target.lower()
        for name in names or ():
            if _is_within(name, target) and (yield from self._is_the_clients(name)):
                return True, True
        return names != (), False

    def _client_names(self) -> Asking[tuple[str, ...] | None]:
        """What the client's address is called, not validated; ``None`` when DNS has an error."""
        try:
            names: tuple[str, ...] = yield from self._ask(self._client.reverse_pointer, "PTR")
        except TempError:
            return None
        return names[:MAX_NAMES]

    def _is_the_clients(self, name: str) -> Asking[bool]:
        """Whether a name has the client's address. An error of DNS makes it none of the client's (section 5.5)."""
        try:
            addresses = (yield from self._ask(name, self._address_type)) if name else ()
        except TempError:
            return False
        return self._is_among(addresses, self._client.max_prefixlen)

    def _is_among(self, addresses: Iterable[str], prefix: int) -> bool:
        """Whether the client is in one of the networks that addresses are in."""
        rest = self._client.max_prefixlen - prefix
        network = int(self._client) >> rest
        return any(int(ip_address(each)) >> rest == network for each in addresses)

    def _expanded(self, text: str, domain: str) -> Asking[str]:
        """A domain-spec without its macros (section 7.3). Raises MatchesNothing."""
        name = expand(text, (yield from self._values(text, domain))).removesuffix(".")
        # Labels are taken from the left until it fits.
        fitting = name.find(".", max(0, len(name) - _MAX_NAME - 1)) + 1
        return name[fitting:] if len(name) > _MAX_NAME else name

    def _values(self, text: str, domain: str) -> Asking[Mapping[str, str]]:
        """What the macros of a text stand for (section 7.2)."""
        _, _, local, sender_domain, helo = self._identity
        plain = str(self._client)
        dotted = plain if self._client.version == 4 else ".".join(f"{int(self._client):032X}")
        return {
            "s": f"{local}@{sender_domain}",
            "l": local,
            "o": sender_domain,
            "d": domain,
            "i": dotted,
            "p": (yield from self._client_name(domain)) if "%{p" in text.lower() else "",
            "v": "in-addr" if self._client.version == 4 else "ip6",
            "h": helo,
            "c": plain,
            "r": self._rules.receiver,
            "t": str(int(self._rules.now())),
        }

    def _client_name(self, domain: str) -> Asking[str]:
        """A validated name of the client: the domain itself, else one within it, else any (section 7.3)."""
        names, near = (yield from self._client_names()) or (), domain.lower()
        for name in sorted(names, key=lambda name: (name != near, not _is_within(name, near))):
            if (yield from self._is_the_clients(name)):
                return name
        return "unknown"

    def _explanation(self, outcome: _Outcome) -> Asking[str]:
        """What the domain says about a fail (section 6.2); ``""`` when that is nothing, or wrong in any way."""
        if not outcome.exp:
            return ""
        try:
            name = yield from self._expanded(outcome.exp, outcome.domain)
            texts: Any = (yield from self._ask(name, "TXT")) if _is_askable(name) else ()
            if len(texts) != 1 or len(text_of(texts[0])) > MAX_EXPLANATION:
                return ""
            text = text_of(texts[0]).decode("ascii")
            check_macros(text, explaining=True)
            return one_line(expand(text, (yield from self._values(text, outcome.domain)), in_name=False))
        except (TempError, MatchesNothing, MacroSyntaxError, UnicodeDecodeError):
            return ""

    def _ask(self, name: str, rdtype: str) -> Asking[Any]:
        """The records of a name; none is an empty tuple. Raises TempError."""
        self._go_on()
        question = name.lower(), rdtype
        if question not in self._known:
            yield question
        answer = self._known[question]
        if isinstance(answer, DnsFailure):
            raise TempError(problem_of(question, answer), answer.asked)
        return answer

    def _go_on(self) -> None:
        """Raises TempError when it has computed for too long."""
        if self.seconds + self._computed() - self._began > MAX_SECONDS:
            raise TempError("the record takes too long to be read")

    def _count_lookup(self) -> None:
        """Section 4.6.4: terms that ask DNS."""
        self._lookups += 1
        if self._lookups > MAX_LOOKUPS:
            raise PermError("Too many DNS lookups")

    def _count_void(self) -> None:
        """Section 4.6.4: terms that find nothing there, however many questions each asks."""
        self._voids += 1
        if self._voids > self._rules.void_lookups:
            raise PermError(f"Void lookup limit of {self._rules.void_lookups} exceeded")


def problem_of(question: Question, failure: DnsFailure) -> str:
    """Why a question has no answer, in one sentence that strangers may read."""
    name = question[0].encode("unicode_escape").decode("ascii")
    return f"{question[1]} of {name}: {failure.problem}"


def _is_askable(name: str) -> bool:
    """Whether DNS can carry a name (RFC 1035, section 2.3.4)."""
    return len(name) <= _MAX_NAME and all(0 < len(label) <= _MAX_LABEL for label in name.split("."))


def _is_within(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")
