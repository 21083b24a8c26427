"""A DNS server on loopback, UDP and TCP, whose answers and failures a test chooses."""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset

# Moods: ways to fail. A number of seconds is one too: the delay of the answer.
NEVER = "never"
SERVFAIL = "servfail"
TRUNCATED = "truncated"
FORGED = "forged"
# The answer is truncated in the middle.
CUT = "cut"
# An answer of 14 KB over TCP, generated at once.
LONG = "long"
# It never answers over TCP.
SILENT_TCP = "silent tcp"
# Responses to a query with EDNS; queries without EDNS are answered.
FORMERR, NOTIMP, BADVERS = "formerr", "notimp", "badvers"
# It answers a different question over TCP.
MISLED = "misled"
# The name in the answer is in capitals.
SHOUTED = "shouted"

# A TXT record without data, which RFC 1035 does not allow.
EMPTY: dns.rdata.Rdata = dns.rdata.GenericRdata(dns.rdataclass.IN, dns.rdatatype.TXT, b"")

Zones = Mapping[str, Sequence[dns.rdata.Rdata]]


def record(rdtype: str, text: str) -> dns.rdata.Rdata:
    """Return a record from the format of zone files."""
    return dns.rdata.from_text("IN", rdtype, text, origin=dns.name.root, relativize=False)


def txt(*strings: str | bytes) -> dns.rdata.Rdata:
    """Return a TXT record of strings that need no quoting."""
    octets = [string.encode() if isinstance(string, str) else string for string in strings]
    return dns.rdtypes.ANY.TXT.TXT(dns.rdataclass.IN, dns.rdatatype.TXT, octets)


def addresses(*texts: str) -> list[dns.rdata.Rdata]:
    """Return A and AAAA records."""
    return [record("AAAA" if ":" in text else "A", text) for text in texts]


def _capitals(name: dns.name.Name) -> dns.name.Name:
    return dns.name.Name([label.upper() for label in name.labels])


def _text(name: dns.name.Name) -> str:
    return b".".join(name.labels[:-1]).decode("latin-1").lower()


def _long(query: dns.message.Message) -> bytes:
    texts = [f"text {number} of the many that some domains have".encode() for number in range(240)]
    # The queried name, TXT, IN, TTL, length, and one string.
    records = [struct.pack("!HHHIHB", 0xC00C, 16, 1, 300, len(text) + 1, len(text)) + text for text in texts]
    head = dns.message.make_response(query)
    head.use_edns(False)
    wire = head.to_wire()
    return wire[:6] + struct.pack("!HHH", len(records), 0, 0) + wire[12:] + b"".join(records)


class DnsServer:
    """Answers from ``zones`` (names in lower case, without final dot); NXDOMAIN for other names.

    :param tcp: whether it also listens on TCP.
    :ivar moods: how the server fails, by name, ``(name, type)`` or ``.suffix``.
    :ivar questions: ``(name, type, protocol)`` of every query, in order.
    :ivar ttl: of every record, and of negative answers.
    """

    def __init__(
        self,
        zones: Zones,
        moods: Mapping[Any, str | float] | None = None,
        ttl: int = 300,
        tcp: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self._host = host
        self.zones = dict(zones)
        self.moods: dict[Any, str | float] = dict(moods or {})
        self.ttl = ttl
        self.questions: list[tuple[str, str, str]] = []
        self._open()
        if not tcp:
            self._tcp.close()
        self._stopping = False
        self._timers: set[threading.Timer] = set()
        self._thread = threading.Thread(target=self._serve, name="dns server", daemon=True)
        self._thread.start()

    def _open(self) -> None:
        for _ in range(50):
            self._udp = socket.socket(self._family, socket.SOCK_DGRAM)
            self._udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._udp.bind((self._host, 0))
            self.port = int(self._udp.getsockname()[1])
            self._tcp = socket.socket(self._family)
            with contextlib.suppress(OSError):
                self._tcp.bind((self._host, self.port))
                self._tcp.listen(64)
                return
            self._udp.close()
            self._tcp.close()
        raise OSError("no port is free for UDP and TCP both")

    @property
    def address(self) -> tuple[str, int]:
        return self._host, self.port

    @property
    def _family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self._host else socket.AF_INET

    def asked(self, name: str, rdtype: str) -> int:
        """Return how often a question was received over UDP."""
        return self.questions.count((name, rdtype, "udp"))

    def stop(self) -> None:
        self._stopping = True
        with socket.socket(self._family, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.address)
        self._thread.join(5)
        for timer in tuple(self._timers):
            timer.cancel()
        self._udp.close()
        self._tcp.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._udp, selectors.EVENT_READ)
            if self._tcp.fileno() >= 0:
                selector.register(self._tcp, selectors.EVENT_READ)
            while not self._stopping:
                for key, _ in selector.select():
                    if key.fileobj is self._udp:
                        self._answer_datagram()
                    else:
                        threading.Thread(target=self._answer_stream, args=self._tcp.accept(), daemon=True).start()

    def _answer_datagram(self) -> None:
        wire, client = self._udp.recvfrom(65535)
        with contextlib.suppress(dns.exception.DNSException):
            query = dns.message.from_wire(wire)
            mood = self._mood(query, "udp")
            if mood == FORGED:
                for forgery in self._forgeries(query):
                    self._udp.sendto(forgery, client)
            if mood == NEVER:
                return
            answer = self._answer(query, mood, max(query.payload, 512))
            if mood == CUT:
                answer = answer[:-5]
            if isinstance(mood, (int, float)):
                self._later(mood, answer, client)
            else:
                self._udp.sendto(answer, client)

    def _later(self, seconds: float, answer: bytes, client: Any) -> None:
        def send() -> None:
            self._timers.discard(timer)
            with contextlib.suppress(OSError):
                self._udp.sendto(answer, client)

        timer = threading.Timer(seconds, send)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()

    def _answer_stream(self, connection: socket.socket, _: Any) -> None:
        with connection, contextlib.suppress(OSError, struct.error, dns.exception.DNSException):
            connection.settimeout(10)
            [length] = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
            query = dns.message.from_wire(connection.recv(length, socket.MSG_WAITALL))
            mood = self._mood(query, "tcp")
            if mood == SILENT_TCP:
                connection.recv(1)
            if mood in (NEVER, SILENT_TCP):
                return
            if mood == MISLED:
                *_, answer = self._forgeries(query)
            else:
                answer = _long(query) if mood == LONG else self._answer(query, "" if mood == TRUNCATED else mood, 65535)
            connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _mood(self, query: dns.message.Message, protocol: str) -> str | float:
        [question] = query.question
        name = _text(question.name)
        rdtype = dns.rdatatype.to_text(question.rdtype)
        self.questions.append((name, rdtype, protocol))
        keys = [(name, rdtype), name, "." + name.partition(".")[2], "." + ".".join(name.rsplit(".", 2)[-2:])]
        return next((self.moods[key] for key in keys if key in self.moods), "")

    def _answer(self, query: dns.message.Message, mood: str | float, most: int) -> bytes:
        response = dns.message.make_response(query, recursion_available=True)
        if mood == SHOUTED:
            [asked] = query.question
            response.question = [dns.rrset.RRset(_capitals(asked.name), asked.rdclass, asked.rdtype)]
        if mood == SERVFAIL:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif mood in (FORMERR, NOTIMP, BADVERS) and query.edns >= 0:
            response.set_rcode(dns.rcode.from_text(str(mood)))
            if mood == FORMERR:
                response.question.clear()
        elif mood in (TRUNCATED, SILENT_TCP, LONG, MISLED):
            response.flags |= dns.flags.TC
        else:
            self._fill(response, query.question[0])
        try:
            return response.to_wire(max_size=most)
        except dns.exception.TooBig:
            return self._answer(query, TRUNCATED, most)

    def _fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> None:
        name = question.name
        for _ in range(20):
            there = self.zones.get(_text(name))
            wanted = [rdata for rdata in there or () if rdata.rdtype == question.rdtype]
            aliases: list[Any] = [rdata for rdata in there or () if rdata.rdtype == dns.rdatatype.CNAME]
            if wanted or not aliases:
                break
            response.answer.append(dns.rrset.from_rdata(name, self.ttl, aliases[0]))
            name = aliases[0].target
        if wanted:
            response.answer.append(dns.rrset.from_rdata_list(name, self.ttl, wanted))
            return
        soa = record("SOA", f". . 1 1 1 1 {self.ttl}")
        response.authority.append(dns.rrset.from_rdata(dns.name.root, self.ttl, soa))
        if there is None:
            response.set_rcode(dns.rcode.NXDOMAIN)

    def _forgeries(self, query: dns.message.Message) -> Iterator[bytes]:
        """Yield a response with a wrong id, and one to another question."""
        response = dns.message.make_response(query)
        response.answer.append(dns.rrset.from_rdata_list(query.question[0].name, 300, [txt("v=spf1 +all")]))
        response.id = (query.id + 1) % 65536
        yield response.to_wire()
        response.id = query.id
        response.question = [dns.rrset.RRset(dns.name.root, dns.rdataclass.IN, dns.rdatatype.TXT)]
        yield response.to_wire()
