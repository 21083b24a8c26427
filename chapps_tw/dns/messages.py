"""DNS messages (RFC 1035), as far as SPF needs them: build a query, parse its response.

dnspython encodes and decodes them. A hostile response can take it some ten milliseconds to parse, so parsing runs in
a thread; only the header is checked on the reactor.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.wire

# Response codes of servers that do not support EDNS: retry without it (RFC 6891, sections 6.1.3 and 7).
NO_EDNS = frozenset((dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS))

MAX_TTL = 86400.0
FAILURE_TTL = 5.0

# Advertised EDNS payload size in octets: small enough to avoid IP fragmentation.
UDP_PAYLOAD = 1232

# Default limit of records in a response. Crafted names can make 500 records take a quarter of a second to parse.
MAX_RECORDS = 512

# RFC 7208, sections 4.6.4 and 5.5: more MX records are an error, and further PTR names are ignored.
_MAX_NAMES = 11

# Octets of a TXT record that is not an SPF record. Longer ones are truncated to one octet more than this.
MAX_EXPLANATION = 4096

# Two records of a kind are an error, or ignored, just as more would be (RFC 7208, sections 4.5 and 6.2).
_MAX_TEXTS = 2

_HEADER = struct.Struct("!6H")
_QR = 0x8000

_UNUSUAL = re.compile(rb"[^\0-\x7f]|\.")

Value = str | tuple[bytes, ...] | tuple[int, str]
Answer = tuple[Value, ...]


class DnsFailure(OSError):
    """A lookup failed: DNS gave neither records nor a negative answer.

    :ivar problem: the cause in one sentence, safe to show to strangers.
    :ivar asked: what each queried server did, for the log only; ``""`` if none was queried.
    """

    def __init__(self, problem: str, asked: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.asked = asked

    def __str__(self) -> str:
        return f"{self.problem} ({self.asked})" if self.asked else self.problem

    def copy(self) -> DnsFailure:
        """Return a copy to raise: a raised exception keeps all frames of its traceback alive."""
        return DnsFailure(self.problem, self.asked)


class MismatchedResponse(ValueError):
    """The response is for a different question (RFC 5452, section 9.1)."""


class MalformedResponse(ValueError):
    """The response cannot be parsed. The text completes a sentence that begins with the server's name."""


class Result(NamedTuple):
    """The outcome of a lookup.

    :ivar ttl: seconds that it may be cached.
    """

    answer: Answer | DnsFailure
    ttl: float


class Response(NamedTuple):
    """A parsed response.

    :ivar status: the response code (RCODE), with the EDNS extension if there is one.
    :ivar truncated: whether the TC flag is set: retry over TCP.
    :ivar result: ``None`` if the response is unusable.
    """

    status: int
    truncated: bool = False
    result: Result | None = None


class Question(NamedTuple):
    """A name and a record type."""

    name: dns.name.Name
    rdtype: str


class Query(NamedTuple):
    """A message that carries a question, with a random ID."""

    message: dns.message.Message
    wire: bytes


def make_question(name: str, rdtype: str) -> Question:
    """Return the question for a name and a record type. Raises ValueError for an invalid name."""
    labels = [label.encode("utf-8", "surrogateescape") for label in name.lower().split(".")]
    try:
        if b"" in labels:
            raise ValueError(f"not a domain name: {name!r}")
        return Question(dns.name.Name([*labels, b""]), rdtype)
    except dns.exception.DNSException:
        raise ValueError(f"not a domain name: {name!r}") from None


def make_query(question: Question, edns: bool) -> Query:
    """Return a new query for a recursive server."""
    message = dns.message.make_query(*question, use_edns=0 if edns else -1, payload=UDP_PAYLOAD)
    return Query(message, message.to_wire())


def may_answer(wire: bytes, query: Query) -> bool:
    """Return whether a message may answer a query. Checks the header only; :func:`parse` checks the rest."""
    if len(wire) < _HEADER.size or wire[:2] != query.wire[:2]:
        return False
    _, flags, *_ = _HEADER.unpack_from(wire)
    return bool(flags & _QR)


def parse(wire: bytes, query: Query, max_records: int = MAX_RECORDS) -> Response:
    """Parse a message for which :func:`may_answer` holds. Malformed records are skipped.

    :param max_records: maximum number of records in all sections.
    :raises MismatchedResponse: if it answers a different question.
    :raises MalformedResponse: if it has more records, is incomplete, or has no readable answer record.
    """
    _, _, _, *counts = _HEADER.unpack_from(wire)
    if sum(counts) > max_records:
        raise MalformedResponse(f"sent {sum(counts)} records, the limit is {max_records}")
    try:
        response = dns.message.from_wire(wire, ignore_trailing=True, continue_on_error=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        raise MalformedResponse("sent a malformed message") from None
    complete = not response.errors or _is_complete(wire)
    status, truncated = int(response.rcode()), bool(response.flags & dns.flags.TC)
    answers = query.message.is_response(response)
    if not complete and not (answers and truncated):
        raise MalformedResponse("sent an incomplete message")
    if not answers:
        raise MismatchedResponse("answered a different question")
    if truncated or not response.question or status not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Response(status, truncated)
    result = _result(response)
    if response.errors and counts[0] and result is not None and result.answer == ():
        raise MalformedResponse("sent no readable record")
    return Response(status, result=result)


def _is_complete(wire: bytes) -> bool:
    """Return whether all records are present, whatever their content."""
    parser = dns.wire.Parser(wire)
    try:
        _, _, questions, *counts = parser.get_struct(_HEADER.format)
        for _ in range(questions):
            parser.get_name(decompress=True)
            parser.get_struct("!HH")
        for _ in range(sum(counts)):
            parser.get_name(decompress=True)
            *_, length = parser.get_struct("!HHIH")
            parser.get_bytes(length)
    except (dns.exception.DNSException, ValueError, struct.error):
        return False
    return True


def _result(response: dns.message.Message) -> Result | None:
    """Follow the CNAME chain from the queried name to its records; ``None`` if it is broken."""
    try:
        chain = response.resolve_chaining()  # type: ignore[attr-defined]
    except dns.message.ChainTooLong:
        return Result(DnsFailure("CNAME chain too long or circular"), FAILURE_TTL)
    except dns.exception.DNSException:
        return None
    ttl = min(float(chain.minimum_ttl), MAX_TTL)
    if chain.answer is not None:
        return Result(_values(chain.answer), ttl)
    # RFC 2308, section 5: without an SOA record, a negative answer has no TTL.
    has_soa = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    return Result((), ttl if has_soa else min(ttl, FAILURE_TTL))


def _values(records: Any) -> Answer:
    match records.rdtype:
        case dns.rdatatype.TXT:
            # The strings of a record are concatenated (RFC 7208, section 3.3).
            return _texts(b"".join(record.strings) for record in records)
        case dns.rdatatype.MX:
            return tuple((record.preference, _as_text(record.exchange)) for record in records[:_MAX_NAMES])
        case dns.rdatatype.PTR:
            return tuple(_as_text(record.target) for record in records[:_MAX_NAMES])
    return tuple(str(record.address) for record in records)


def _texts(texts: Iterable[bytes]) -> Answer:
    """Keep only the TXT records that can affect a result, so that strangers cannot fill the cache."""
    texts = list(dict.fromkeys(texts))
    records = [text for text in texts if is_spf(text)]
    others = [text[: MAX_EXPLANATION + 1] for text in texts if not is_spf(text)]
    return tuple((text,) for text in [*records[:_MAX_TEXTS], *others[:_MAX_TEXTS]])


def text_of(record: Any) -> bytes:
    """Return the text of a TXT record of an answer."""
    [text] = record
    return bytes(text)


def is_spf(text: bytes) -> bool:
    """Return whether a TXT record is an SPF record (RFC 7208, section 4.5)."""
    return text[:7].lower() in (b"v=spf1 ", b"v=spf1")


def _as_text(name: dns.name.Name) -> str:
    """Return a name as text; ``""`` for the root, and for a name whose text form is ambiguous."""
    if any(_UNUSUAL.search(label) for label in name.labels):
        return ""
    return b".".join(name.labels[:-1]).decode("ascii").lower()
