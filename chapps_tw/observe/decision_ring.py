"""The decision ring: the last decisions of this node, to be searched and followed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from itertools import islice
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain, unicode_domain
from chapps_tw.mail.network import client_address
from chapps_tw.observe.decision_record import Entry, Record, as_record

MAX_DECISIONS = 5_000
MAX_BYTES = 16 << 20

# Overhead of an entry in bytes, and the most that a character has.
_ENTRY, _CHARACTER = 1000, 4

# Place of each field in an entry that can be searched for.
_PLACES = {
    "listener": 1, "user": 2, "sender": 3, "recipient": 4, "client": 5, "instance": 6, "queue_id": 7, "stage": 8,
}  # fmt: skip


class SequencedRecord(NamedTuple):
    """A decision of the ring, with its sequence number."""

    sequence: int
    record: Record

    def as_dict(self) -> dict[str, object]:
        """Return the record with its sequence number as a dictionary for JSON."""
        return {"sequence": self.sequence, **self.record.as_dict()}


class Search(NamedTuple):
    """A lazy search of the ring.

    :ivar records: matching records, and ``None`` for each other entry, so that the caller can pause. Newest first, or
        oldest first with ``after``.
    :ivar searched: number of entries.
    :ivar since: epoch seconds of the oldest entry, 0.0 if there is none.
    :ivar last_sequence: sequence number of the newest decision when the search began.
    :ivar dropped: whether decisions between ``after`` and the oldest entry are missing, or may be.
    """

    records: Iterator[SequencedRecord | None]
    searched: int
    since: float
    last_sequence: int
    dropped: bool = False


class DecisionRing:
    """A ring buffer of decisions, bounded in entries and in bytes. Each decision has a sequence number.

    :param start: sequence number before the first decision. With the microseconds since the epoch at the start of the
        process, all numbers are higher than those of the previous process, so that clients cannot confuse them.
    :param max_entries: maximum number of decisions.
    :param max_bytes: maximum size, by estimate.
    :ivar last_sequence: sequence number of the newest decision; ``start`` if there is none.
    """

    def __init__(self, start: int = 0, max_entries: int = MAX_DECISIONS, max_bytes: int = MAX_BYTES) -> None:
        self.last_sequence = start
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._size = 0
        self._entries: deque[Entry] = deque()
        self._sizes: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def extend(self, added: Sequence[Entry]) -> None:
        """Add decisions. If the ring is full, the oldest ones are dropped."""
        entries, sizes, size = self._entries, self._sizes, [_size_of(entry) for entry in added]
        entries += added
        sizes += size
        self.last_sequence += len(added)
        self._size += sum(size)
        while len(entries) > self._max_entries or self._size > self._max_bytes:
            entries.popleft()
            self._size -= sizes.popleft()

    def search(self, wanted: Mapping[str, str], after: int | None = None) -> Search:
        """Search for decisions by the values of their fields.

        Senders and recipients are compared without case, and with their domains as A-labels or U-labels; a domain
        matches all addresses in it. A client is an address or a network. Other values are compared as they are.

        :param wanted: field name to value.
        :param after: a sequence number: returns only later decisions, oldest first. If this process has not assigned
            the number, or the next decision is dropped, all decisions are searched.
        """
        last, first = self.last_sequence, self.last_sequence - len(self._entries) + 1
        dropped = after is not None and not first - 1 <= after <= last
        begin = first if after is None or dropped else after + 1
        entries = tuple(islice(self._entries, begin - first, None))
        numbered: Iterable[tuple[int, Entry]] = enumerate(entries, begin)
        if after is None:
            numbered = zip(range(last, begin - 1, -1), reversed(entries), strict=True)
        since = as_record(entries[0]).time if entries else 0.0
        return Search(_matching(numbered, wanted), len(entries), since, last, dropped)


def _matching(numbered: Iterable[tuple[int, Entry]], wanted: Mapping[str, str]) -> Iterator[SequencedRecord | None]:
    """Yield the record of each matching entry, and ``None`` for the others."""
    # Domains of entries are not converted: clients could force thousands of expensive conversions.
    matches = [(_PLACES[name], _MATCHERS.get(name, _exactly)(value)) for name, value in wanted.items()]
    for sequence, entry in numbered:
        fits = all(match(str(entry[place])) for place, match in matches)
        yield SequencedRecord(sequence, as_record(entry)) if fits else None


Match = Callable[[str], bool]


def _exactly(value: str) -> Match:
    return value.__eq__


def _client(value: str) -> Match:
    """Match clients by address or network."""
    address = client_address(value)
    if address is not None:
        return lambda text: client_address(text) == address
    if "/" not in value:
        return value.__eq__
    network = ip_network(value)
    return lambda text: (found := client_address(text)) is not None and found in network


def _address(value: str) -> Match:
    """Match mail addresses by address or domain."""
    forms = _forms(value)
    domains = frozenset() if "@" in value.removeprefix("@") else _forms(value.removeprefix("@"))

    def match(text: str) -> bool:
        lower = text.lower()
        return lower in forms or ("@" in lower and lower.rpartition("@")[2] in domains)

    return match


_MATCHERS: Mapping[str, Callable[[str], Match]] = {"client": _client, "sender": _address, "recipient": _address}


def _forms(address: str) -> frozenset[str]:
    """Return the lower-case spellings of an address or a domain: domain unchanged, as A-labels and as U-labels."""
    lower = address.lower()
    local, at, domain = lower.rpartition("@")
    name = normal_domain(domain)
    return frozenset((lower, f"{local}{at}{name}", f"{local}{at}{unicode_domain(name)}") if name else (lower,))


def _size_of(entry: Entry) -> int:
    """Estimate the size of an entry in bytes."""
    decision = entry[9]
    texts = (*entry[1:9], decision.action, decision.shadow, decision.detail, entry[10])
    return _ENTRY + _CHARACTER * sum(map(len, texts))
