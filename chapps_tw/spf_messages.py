"""DNS messages (RFC 1035), as far as SPF has to do with them: a question goes out, its answer comes in.

Written by hand, since anybody can make an answer as costly to read as can be: 16 KB that take dnspython
70 ms are read in two here. A name in wire form is its labels in lower case, and compares as bytes.
"""

from __future__ import annotations

import re
import struct
from collections import defaultdict
from collections.abc import Sequence
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple

_A, _CNAME, _SOA, _PTR, _MX, _TXT, _AAAA, _OPT = 1, 5, 6, 12, 15, 16, 28, 41
_IN = 1
TYPES = {"A": _A, "AAAA": _AAAA, "MX": _MX, "PTR": _PTR, "TXT": _TXT}

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

# Responses to a question with EDNS that may be none to one without (RFC 6891, sections 6.1.3 and 7).
NO_EDNS = frozenset((FORMERR, NOTIMP, BADVERS))

# Errors that may come without the question (RFC 1035, section 4.1.1, lets a server not have understood it).
_BARE = frozenset((FORMERR, SERVFAIL, NOTIMP, REFUSED))

MAX_TTL = 86400.0
FAILURE_TTL = 5.0

# Octets of an answer over UDP that we take: it is not cut into fragments on its way.
UDP_PAYLOAD = 1232

MAX_RECORDS = 256
_MAX_STRINGS = 1024
_MAX_CHAIN = 16
_MAX_HOPS = 32
_MAX_NAME = 255

# RFC 7208, sections 4.6.4 and 5.5: with more MX records a domain is in error, and more names of a client do not count.
_MAX_NAMES = 11

# RFC 7208, section 3.4, wants records to fit into 512 octets. What is longer is kept to one more than this.
MAX_RECORD = 4096
MAX_EXPLANATION = 512

# Two records of one kind are in error, or ignored, as more would be (RFC 7208, sections 4.5 and 6.2).
_MAX_TEXTS = 2

_QR, _OPCODE, _TC, _RD, _RCODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x000F
_HEADER = struct.Struct("!6H")
_FIXED = struct.Struct("!HHIH")
_EDNS = b"\0" + _FIXED.pack(_OPT, UDP_PAYLOAD, 0, 0)

_UNUSUAL = re.compile(rb"[^!-~]|\.")

Value = str | tuple[bytes, ...] | tuple[int, str]
Answer = tuple[Value, ...]


class DnsFailure(OSError):
    """DNS gave no answer, neither yes nor no. Says why in one sentence."""


class Damaged(ValueError):
    """What was received is no DNS message, or holds more than is read."""


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


class _Record(NamedTuple):
    """:ivar at, end: where in the message its data begins, and ends."""

    owner: bytes
    rdtype: int
    ttl: int
    at: int
    end: int


def question_of(name: str, rdtype: str) -> bytes:
    """The question section that asks for records of a name. Raises ValueError for what cannot be a name."""
    labels = [label.encode("utf-8", "surrogateescape") for label in name.lower().split(".")]
    if not all(0 < len(label) < 64 for label in labels) or sum(map(len, labels)) + len(labels) >= _MAX_NAME:
        raise ValueError(f"no domain name: {name!r}")
    wire = b"".join([bytes((len(label),)) + label for label in labels])
    return wire + b"\0" + struct.pack("!HH", TYPES[rdtype], _IN)


def query(number: int, question: bytes, edns: bool) -> bytes:
    """A message that asks a question of a recursive server.

    :param number: 16 bits that nobody can guess.
    """
    return _HEADER.pack(number, _RD, 1, 0, 0, edns) + question + (_EDNS if edns else b"")


def is_reply(wire: bytes, number: int, question: bytes) -> bool:
    """Whether a message answers what was asked (RFC 5452, section 9.1). Reads its first octets alone."""
    if len(wire) < _HEADER.size:
        return False
    found, flags, questions, *_ = _HEADER.unpack_from(wire)
    if found != number or not flags & _QR or flags & _OPCODE:
        return False
    if not questions:
        return flags & _RCODE in _BARE
    # Servers may write a name back in letters of another case.
    repeated = wire[_HEADER.size : _HEADER.size + len(question)].lower()
    return bool(questions == 1 and repeated == question)


def read(wire: bytes, question: bytes) -> Reply:
    """Read a message for which :func:`is_reply` holds. Raises Damaged."""
    try:
        _, flags, questions, *counts = _HEADER.unpack_from(wire)
        status = flags & _RCODE
        if status not in (NOERROR, NXDOMAIN) or flags & _TC or not questions:
            return Reply(status, bool(flags & _TC))
        if sum(counts) > MAX_RECORDS:
            raise Damaged
        message = _Message(wire)
        at = _HEADER.size + len(question)
        sections = []
        for count in counts:
            records, at = message.records(at, count)
            sections.append(records)
        answer, authority, additional = sections
        status += sum(record.ttl >> 24 << 4 for record in additional if record.rdtype == _OPT)
        found = message.answer_to(question, answer, authority)
    except (IndexError, ValueError, struct.error):
        raise Damaged from None
    # A name that does not exist has no records.
    useful = status == NOERROR or (status == NXDOMAIN and not found.answer)
    return Reply(status, found=found if useful else None)


class _Message:
    """Reads the sections after the question. Every method raises IndexError, ValueError or struct.error."""

    def __init__(self, wire: bytes) -> None:
        self._wire = wire
        self._names: dict[int, bytes] = {}
        self._strings = 0

    def records(self, at: int, count: int) -> tuple[list[_Record], int]:
        """Some records, and where they end."""
        found = []
        for _ in range(count):
            owner, at = self._name(at)
            rdtype, rdclass, ttl, length = _FIXED.unpack_from(self._wire, at)
            at += _FIXED.size + length
            if rdclass == _IN or rdtype == _OPT:
                found.append(_Record(owner, rdtype, ttl, at - length, at))
        if at > len(self._wire):
            raise Damaged
        return found, at

    def answer_to(self, question: bytes, answer: Sequence[_Record], authority: Sequence[_Record]) -> Found:
        """Follow the aliases from the name that was asked for to its records."""
        name, rdtype = question[:-4], int.from_bytes(question[-4:-2])
        there: defaultdict[tuple[bytes, int], list[_Record]] = defaultdict(list)
        for record in answer:
            there[record.owner, record.rdtype].append(record)
        ttl = MAX_TTL
        for _ in range(_MAX_CHAIN):
            records = there.get((name, rdtype)) or there.get((name, _CNAME))
            if records is None:
                return Found((), min(ttl, self._negative_ttl(authority)))
            ttl = min(ttl, *map(_ttl, records))
            if records[0].rdtype == rdtype:
                return Found(self._values(rdtype, records), ttl)
            name, _ = self._name(records[0].at)
        return Found(DnsFailure("too many aliases, or in a circle"), FAILURE_TTL)

    def _negative_ttl(self, authority: Sequence[_Record]) -> float:
        """How long it is known that there is nothing (RFC 2308, section 5)."""
        for record in authority:
            if record.rdtype == _SOA:
                return min(_ttl(record), int.from_bytes(self._wire[record.end - 4 : record.end]))
        return FAILURE_TTL

    def _values(self, rdtype: int, records: Sequence[_Record]) -> Answer:
        if rdtype == _TXT:
            return _texts([self._text(record) for record in records])
        if rdtype in (_MX, _PTR):
            records = records[:_MAX_NAMES]
        return tuple(dict.fromkeys(self._value(record) for record in records))

    def _value(self, record: _Record) -> Value:
        if record.rdtype in (_A, _AAAA):
            family = AF_INET if record.rdtype == _A else AF_INET6
            return inet_ntop(family, self._wire[record.at : record.end])
        if record.rdtype == _PTR:
            return _as_text(self._name(record.at)[0])
        preference = int.from_bytes(self._wire[record.at : record.at + 2])
        return preference, _as_text(self._name(record.at + 2)[0])

    def _text(self, record: _Record) -> bytes:
        """The strings of a TXT record as one (RFC 7208, section 3.3)."""
        strings, at = [], record.at
        while at < record.end:
            end = at + 1 + self._wire[at]
            strings.append(self._wire[at + 1 : end])
            at = end
            self._strings += 1
            if end > record.end or self._strings > _MAX_STRINGS:
                raise Damaged
        return b"".join(strings)

    def _name(self, at: int) -> tuple[bytes, int]:
        """A name in wire form, and where it ends. Each that others point at is read once."""
        high = self._wire[at]
        if high < 0xC0:
            return self._read_name(at)
        target = (high & 0x3F) << 8 | self._wire[at + 1]
        if target not in self._names:
            self._names[target], _ = self._read_name(target)
        return self._names[target], at + 2

    def _read_name(self, at: int) -> tuple[bytes, int]:
        wire, name, end, hops = self._wire, b"", 0, 0
        while length := wire[at]:
            if length < 0x40:
                name += wire[at : at + 1 + length]
                at += 1 + length
            elif length < 0xC0:
                raise Damaged
            else:
                end = end or at + 2
                at = (length & 0x3F) << 8 | wire[at + 1]
                hops += 1
            if len(name) >= _MAX_NAME or hops > _MAX_HOPS:
                raise Damaged
        return name.lower() + b"\0", end or at + 1


def _ttl(record: _Record) -> float:
    """Seconds that a record is good for; with the highest bit set none (RFC 2181, section 8)."""
    return float(record.ttl) if record.ttl < 1 << 31 else 0.0


def _texts(texts: Sequence[bytes]) -> Answer:
    """Of TXT records what can make a difference, so that a stranger's do not fill the memory."""
    texts = list(dict.fromkeys(texts))
    records = [text[: MAX_RECORD + 1] for text in texts if is_spf(text)]
    others = [text[: MAX_EXPLANATION + 1] for text in texts if not is_spf(text)]
    return tuple((text,) for text in [*records[:_MAX_TEXTS], *others[:_MAX_TEXTS]])


def text_of(record: Any) -> bytes:
    """The text of a TXT record of an answer."""
    [text] = record
    return bytes(text)


def is_spf(text: bytes) -> bool:
    """Whether a TXT record is an SPF record (RFC 7208, section 4.5)."""
    return text[:7].lower() in (b"v=spf1 ", b"v=spf1")


def _as_text(name: bytes) -> str:
    """A name in text; ``""`` for the root, and for one that text cannot tell from another."""
    labels, at = [], 0
    while length := name[at]:
        labels.append(name[at + 1 : at + 1 + length])
        at += 1 + length
    if any(_UNUSUAL.search(label) for label in labels):
        return ""
    return b".".join(labels).decode("ascii")
