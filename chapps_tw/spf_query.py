"""pyspf's check of one identity, with no network under it."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import quote

import spf

from chapps_tw.received_spf import SpfResult, one_line
from chapps_tw.spf_messages import MAX_EXPLANATION, MAX_RECORD, Answer, DnsFailure, is_spf, text_of

# The time that a run takes grows with the number of terms, and with their length; and there are as many runs as
# questions.
MAX_TERM = 512
MAX_DOTS = 127

# How many are remembered from one run of a check to the next; each takes half a kilobyte.
_MAX_TERMS = 512

_MAX_NAME = 253

# RFC 7208, section 7.1: what may stand in braces.
_MACRO = re.compile(r"([slodiphcrtv])([0-9]*)(r?)([-.+,/_=]*)", re.IGNORECASE)
_SPECIAL = {"%%": "%", "%_": " ", "%-": "%20"}
_EXPLAINING = "crt"

Question = tuple[str, str]


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

    :ivar seconds: how long it computed.
    :ivar missing: the question to answer before the next; ``None`` when the result counts.
    """

    result: SpfResult
    seconds: float
    missing: Question | None = None


_UNKNOWN = SpfResult("none")


class Check(NamedTuple):
    """What the runs of one check share.

    :ivar known: the answers.
    :ivar terms: of records, as they were read; by the domain and the term. Each is read once, or the time would
        grow with the square of the questions.
    """

    identity: Identity
    known: dict[Question, Answer | DnsFailure]
    terms: dict[tuple[str, ...], Any]


def evaluate(check: Check, seconds: Callable[[], float], most: float) -> Run:
    """One run of pyspf on the answers that are known: the result, or the question that is missing.

    :param seconds: how long the thread has computed.
    :param most: how long this may take, by that; longer is a ``temperror`` (RFC 7208, section 4.6.4).
    """
    begin = seconds()
    query = _Query(check, lambda: seconds() - begin > most)
    result = _result(check.identity, query)
    return Run(result or _UNKNOWN, seconds() - begin, None if result else query.missing)


def _result(identity: Identity, query: _Query) -> SpfResult | None:
    """What a run found; ``None`` when something is missing."""
    try:
        result, _, text = query.check()
    except _Missing:
        return None
    except Exception as error:
        # pyspf is not to be trusted with every record that a stranger can write.
        problem = f"{type(error).__name__} while the record was read"
        return SpfResult("temperror", identity.name, identity.domain, problem=problem)
    # It looks for an explanation first of all, and swallows every exception there.
    if result == "fail" and query.missing:
        return None
    return SpfResult(
        result,
        identity.name,
        identity.domain,
        explanation=one_line(text) if result == "fail" else "",
        mechanism=one_line(query.mechanism or ""),
        problem=one_line(query.prob) if result in ("temperror", "permerror") else "",
    )


class _Missing(Exception):
    """pyspf asks something that is not known yet."""


class _Query(spf.query):  # type: ignore[misc]
    """A check. What is named as in pyspf takes the place of pyspf's own.

    :param late: whether it has computed for too long.
    """

    def __init__(self, check: Check, late: Callable[[], bool]) -> None:
        identity = check.identity
        super().__init__(i=identity.client, s=f"{identity.local}@{identity.domain}", h=identity.helo)
        # A local part may hold an @ of its own.
        self.l, self.o, self.d = identity.local, identity.domain, identity.domain
        self.set_default_explanation("")
        self.known = check.known
        self.terms = check.terms
        self.late = late
        self.missing: Question | None = None
        self.prob = ""

    def dns(self, name: str, qtype: str, cnames: object = None, ignore_void: bool = False) -> list[Any]:
        """The records of a name: CNAMEs were followed already, void look-ups are counted here."""
        if self.late():
            raise spf.TempError("the record takes too long to be read")
        name = str(name).removesuffix(".").lower()
        if not all(0 < len(label) < 64 for label in name.split(".")):
            return []
        answer = self.known.get((name, qtype))
        if answer is None:
            self.missing = (name, qtype)
            raise _Missing
        if isinstance(answer, DnsFailure):
            raise spf.TempError(problem_of((name, qtype), answer))
        if not answer and not ignore_void:
            self.void_lookups += 1
            if self.void_lookups > spf.MAX_VOID_LOOKUPS:
                raise spf.PermError(f"Void lookup limit of {spf.MAX_VOID_LOOKUPS} exceeded")
        return [value for value in answer if qtype != "TXT" or _bearable(value)]

    def validate_mechanism(self, term: str) -> Any:
        """A term, read."""
        return self._once(super().validate_mechanism, term)

    def expand(self, text: str, stripdot: bool = True) -> str:
        """Macros replaced by what they stand for: in a domain name, or with ``stripdot=False`` in an explanation."""
        return str(self._once(self._domain, text)) if stripdot else self._macros(text)

    def _once(self, read: Callable[[str], Any], text: str) -> Any:
        if "%{p" in text.lower():
            return read(text)  # DNS has a part in it
        key = (read.__name__, self.d, text)
        if key in self.terms:
            return self.terms[key]
        value = read(text)
        if len(self.terms) < _MAX_TERMS:
            self.terms[key] = value
        return value

    def cidrmatch(self, addresses: list[str], prefix: int) -> bool:
        """Whether the client is in one of the networks that addresses are in; they are of its kind."""
        rest = self.ipaddr.max_prefixlen - prefix
        network = int(self.ipaddr) >> rest
        try:
            return any(int(ip_address(each)) >> rest == network for each in addresses)
        except ValueError as error:
            raise spf.PermError(str(error)) from None

    def validated_ptrs(self) -> list[str]:
        """The client's names. What DNS has no answer for is none of them (RFC 7208, section 5.5)."""
        try:
            names = self.dns_ptr(self.i)[: spf.MAX_PTR]
        except spf.TempError:
            return []
        return [name for name in names if self._is_the_clients(name)]

    def _is_the_clients(self, name: str) -> bool:
        try:
            return bool(self.cidrmatch(self.dns_a(name, self.A), self.cidrmax))
        except spf.TempError:
            return False

    def _domain(self, text: str) -> str:
        name = self._macros(text, in_domain=True).removesuffix(".")
        # Labels are taken from the left until it fits (RFC 7208, section 7.3).
        fitting = name.find(".", max(0, len(name) - _MAX_NAME - 1)) + 1
        return name[fitting:] if len(name) > _MAX_NAME else name

    def _macros(self, text: str, in_domain: bool = False) -> str:
        if spf.RE_INVALID_MACRO.search(text):
            raise spf.PermError("invalid-macro-char ", text)
        expanded: dict[str, str] = {}

        def expand(found: re.Match[str]) -> str:
            if found[0] not in expanded:
                expanded[found[0]] = self._macro(found[0], in_domain)
            return expanded[found[0]]

        return str(spf.RE_CHAR.sub(expand, text))

    def _macro(self, macro: str, in_domain: bool) -> str:
        """What a macro stands for (RFC 7208, section 7). Raises spf.PermError for something that is none."""
        if macro in _SPECIAL:
            return _SPECIAL[macro]
        parts = _MACRO.fullmatch(macro[2:-1])
        if parts is None or (parts[2] and not int(parts[2])):
            raise spf.PermError("Unknown Macro Encountered", macro)
        letter = parts[1].lower()
        if letter in _EXPLAINING and in_domain:
            raise spf.PermError("c,r,t macros allowed in exp= text only", macro)
        value = str(self.getp() if letter == "p" else getattr(self, letter))
        value = _transformed(value, *parts.groups()[1:])
        return value if parts[1] == letter else quote(value, safe="~")


def _transformed(value: str, digits: str, reverse: str, delimiters: str) -> str:
    """The parts of a macro's value, those that are wanted, joined by dots (RFC 7208, section 7.3)."""
    if not (digits or reverse or delimiters):
        return value
    parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
    if reverse:
        parts.reverse()
    return ".".join(parts[-int(digits) :] if digits else parts)


def problem_of(question: Question, failure: DnsFailure) -> str:
    """Why a question has no answer, in one sentence."""
    return f"{question[1]} of {question[0]}: {failure}"


def _bearable(record: Any) -> bool:
    """Whether a TXT record is worth a look; raises PermError for an SPF record that is not."""
    text = text_of(record)
    if not is_spf(text):
        return len(text) <= MAX_EXPLANATION
    if len(text) > MAX_RECORD:
        raise spf.PermError(f"SPF record of more than {MAX_RECORD} octets")
    if any(len(term) > MAX_TERM or term.count(b".") > MAX_DOTS for term in text.split(b" ")):
        raise spf.PermError(f"SPF term of more than {MAX_TERM} octets or {MAX_DOTS} dots")
    return True
