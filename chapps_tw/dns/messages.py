"""DNS messages (RFC 1035), as far as SPF has to do with them: a question goes out, its answer comes in.

dnspython writes and reads them. Anybody can make an answer that takes it some ten milliseconds to read: for a
thread, but for the look at its first octets.
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

# Responses to a question with EDNS that may be none to one without (RFC 6891, sections 6.1.3 and 7).
NO_EDNS = frozenset((dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.BADVERS))

MAX_TTL = 86400.0
FAILURE_TTL = 5.0

# Octets of an answer over UDP that we take: it is not cut into fragments on its way.
UDP_PAYLOAD = 1232

# Of an answer, unless the site decides otherwise. Names can be made so that 500 take a quarter of a second.
MAX_RECORDS = 512

# RFC 7208, sections 4.6.4 and 5.5: with more MX records a domain is in error, and more names of a client do not count.
_MAX_NAMES = 11

# Octets of a TXT record that is no SPF record. What is longer is kept to one more than this.
MAX_EXPLANATION = 4096

# Two records of one kind are in error, or ignored, as more would be (RFC 7208, sections 4.5 and 6.2).
_MAX_TEXTS = 2

_HEADER = struct.Struct("!6H")
_QR = 0x8000

_UNUSUAL = re.compile(rb"[^\0-\x7f]|\.")

Value = str | tuple[bytes, ...] | tuple[int, str]
Answer = tuple[Value, ...]


class DnsFailure(OSError):
    """DNS gave no answer, neither yes nor no.

    :ivar problem: why, in one sentence, which strangers may read.
    :ivar asked: what each server that was asked did, for the log alone; ``""`` when none was.
    """

    def __init__(self, problem: str, asked: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.asked = asked

    def __str__(self) -> str:
        return f"{self.problem} ({self.asked})" if self.asked else self.problem

    def again(self) -> DnsFailure:
        """The same once more: an exception keeps hold of everything that it was raised through."""
        return DnsFailure(self.problem, self.asked)


class Foreign(ValueError):
    """What was received answers another question (RFC 5452, section 9.1)."""


class Unreadable(ValueError):
    """What was received answers the question, but cannot be read. Says why, to follow the server's name."""


class Found(NamedTuple):
    """What is known of a name.

    :ivar ttl: seconds that it may be remembered.
    """

    answer: Answer | DnsFailure
    ttl: float


class Reply(NamedTuple):
    """What a server said.

    :ivar status: the response code, the extended one where there is one.
    :ivar truncated: there is more to it, over TCP.
    :ivar found: ``None`` when the reply is of no use.
    """

    status: int
    truncated: bool = False
    found: Found | None = None


class Question(NamedTuple):
    """What is asked."""

    name: dns.name.Name
    rdtype: str


class Query(NamedTuple):
    """A question as it is sent to a server once, under a number that nobody can guess."""

    message: dns.message.Message
    wire: bytes


def question_of(name: str, rdtype: str) -> Question:
    """The question for records of a name. Raises ValueError for what cannot be a name."""
    labels = [label.encode("utf-8", "surrogateescape") for label in name.lower().split(".")]
    try:
        if b"" in labels:
            raise ValueError(f"no domain name: {name!r}")
        return Question(dns.name.Name([*labels, b""]), rdtype)
    except dns.exception.DNSException:
        raise ValueError(f"no domain name: {name!r}") from None


def query(question: Question, edns: bool) -> Query:
    """A message that asks a question of a recursive server."""
    message = dns.message.make_query(*question, use_edns=0 if edns else -1, payload=UDP_PAYLOAD)
    return Query(message, message.to_wire())


def may_answer(wire: bytes, asked: Query) -> bool:
    """Whether a message may answer a query. Looks at its first octets alone; :func:`read` looks at the rest."""
    if len(wire) < _HEADER.size or wire[:2] != asked.wire[:2]:
        return False
    _, flags, *_ = _HEADER.unpack_from(wire)
    return bool(flags & _QR)


def read(wire: bytes, asked: Query, most: int = MAX_RECORDS) -> Reply:
    """Read a message for which :func:`may_answer` holds. Records that cannot be read are left out.

    :param most: records that it may have.
    :raises Foreign: when it answers something else.
    :raises Unreadable: when it has more records, or its end is missing, or no record that is wanted can be read.
    """
    _, _, _, *counts = _HEADER.unpack_from(wire)
    if sum(counts) > most:
        raise Unreadable(f"answered with {sum(counts)} records, {most} are allowed")
    try:
        response = dns.message.from_wire(wire, ignore_trailing=True, continue_on_error=True)
    except (dns.exception.DNSException, ValueError, struct.error):
        raise Unreadable("answered what is no DNS message") from None
    whole = not response.errors or _is_whole(wire)
    status, truncated = int(response.rcode()), bool(response.flags & dns.flags.TC)
    answers = asked.message.is_response(response)
    if not whole and not (answers and truncated):
        raise Unreadable("answered a message without its end")
    if not answers:
        raise Foreign("answered another question")
    if truncated or not response.question or status not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        return Reply(status, truncated)
    found = _found(response)
    if response.errors and counts[0] and found is not None and found.answer == ():
        raise Unreadable("answered with no record that can be read")
    return Reply(status, found=found)


def _is_whole(wire: bytes) -> bool:
    """Whether all records are there, whatever is in them."""
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


def _found(response: dns.message.Message) -> Found | None:
    """Follow the aliases from the name that was asked for to its records; ``None`` where that makes no sense."""
    try:
        chain = response.resolve_chaining()  # type: ignore[attr-defined]
    except dns.message.ChainTooLong:
        return Found(DnsFailure("too many aliases, or in a circle"), FAILURE_TTL)
    except dns.exception.DNSException:
        return None
    ttl = min(float(chain.minimum_ttl), MAX_TTL)
    if chain.answer is not None:
        return Found(_values(chain.answer), ttl)
    # RFC 2308, section 5: without an SOA record nobody says how long it is known that there is nothing.
    told = any(rrset.rdtype == dns.rdatatype.SOA for rrset in response.authority)
    return Found((), ttl if told else min(ttl, FAILURE_TTL))


def _values(records: Any) -> Answer:
    match records.rdtype:
        case dns.rdatatype.TXT:
            # The strings of a record are one text (RFC 7208, section 3.3).
            return _texts(b"".join(record.strings) for record in records)
        case dns.rdatatype.MX:
            return tuple((record.preference, _as_text(record.exchange)) for record in records[:_MAX_NAMES])
        case dns.rdatatype.PTR:
            return tuple(_as_text(record.target) for record in records[:_MAX_NAMES])
    return tuple(str(record.address) for record in records)


def _texts(texts: Iterable[bytes]) -> Answer:
    """Of TXT records what can make a difference, so that a stranger's do not fill the memory."""
    texts = list(dict.fromkeys(texts))
    records = [text for text in texts if is_spf(text)]
    others = [text[: MAX_EXPLANATION + 1] for text in texts if not is_spf(text)]
    return tuple((text,) for text in [*records[:_MAX_TEXTS], *others[:_MAX_TEXTS]])


def text_of(record: Any) -> bytes:
    """The text of a TXT record of an answer."""
    [text] = record
    return bytes(text)


def is_spf(text: bytes) -> bool:
    """Whether a TXT record is an SPF record (RFC 7208, section 4.5)."""
    return text[:7].lower() in (b"v=spf1 ", b"v=spf1")


def _as_text(name: dns.name.Name) -> str:
    """A name in text; ``""`` for the root, and for one that text cannot tell from another."""
    if any(_UNUSUAL.search(label) for label in name.labels):
        return ""
    return b".".join(name.labels[:-1]).decode("ascii").lower()
