"""The last decisions of this node, for whoever asks why, and for whoever follows them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_network
from itertools import islice
from typing import NamedTuple, cast

from chapps_tw.mail.addresses import normal_domain, unicode_domain
from chapps_tw.mail.network import client_address
from chapps_tw.observe.decision_record import FIELDS, Entry, Record, as_record

RECENT = 5_000
RECENT_ROOM = 8 << 20


class SequencedRecord(NamedTuple):
    """A decision that is kept, with its sequence number."""

    sequence: int
    record: Record

    def as_dict(self) -> dict[str, object]:
        """The record with its sequence number, for JSON."""
        return {"sequence": self.sequence, **self.record.as_dict()}


class Search(NamedTuple):
    """A look through the last decisions, which goes on as far as it is asked to.

    :ivar records: with ``None`` for each that is not wanted: a place to pause at. Newest first, or oldest first of
        those after a sequence number.
    :ivar searched: how many there are.
    :ivar since: epoch seconds of the oldest of them, 0.0 where there is none.
    :ivar last_sequence: the number of the newest decision that there was when the search began.
    :ivar dropped: whether decisions between the sequence number and the oldest of them are missing, or may be.
    """

    records: Iterator[SequencedRecord | None]
    searched: int
    since: float
    last_sequence: int
    dropped: bool = False


class DecisionRing:
    """The last decisions, oldest first, within bounds of number and of bytes. Each has a sequence number.

    :param start: the number before the first. A process that begins at the microseconds of the epoch goes on from
        numbers higher than all that the process before it gave: nobody who follows takes one for the other.
    :ivar last_sequence: of the newest decision; ``start`` before the first.
    """

    def __init__(self, start: int = 0, most: int = RECENT, room: int = RECENT_ROOM) -> None:
        self.last_sequence = start
        self._most = most
        self._room = room
        self._taken = 0
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry) -> None:
        """Keep a decision, in place of the oldest where there is no more room."""
        entries = self._entries
        entries.append(entry)
        self.last_sequence += 1
        self._taken += entry[-1]
        while len(entries) > self._most or self._taken > self._room:
            self._taken -= entries.popleft()[-1]

    def search(self, wanted: Mapping[str, str], after: int | None = None) -> Search:
        """Begin to look for the decisions whose fields have the values that are wanted.

        Addresses of senders and recipients compare without their case, and their domains in whatever form; a domain
        alone stands for all addresses in it. A client is an address or a network. The rest compare as they are.

        :param wanted: name of a field to value.
        :param after: a sequence number: only what came after it, oldest first. One that was not given since the
            start of this process, or whose next decision is dropped, stands before all there are.
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
    """For each entry, its record if it is wanted."""
    # Only what is wanted is converted: whoever sends mail could make thousands of conversions necessary.
    matches = [(FIELDS.index(name), _MATCHERS.get(name, _exactly)(value)) for name, value in wanted.items()]
    for sequence, entry in numbered:
        fits = all(match(cast(str, entry[place])) for place, match in matches)
        yield SequencedRecord(sequence, as_record(entry)) if fits else None


Match = Callable[[str], bool]


def _exactly(value: str) -> Match:
    return value.__eq__


def _client(value: str) -> Match:
    """Whether a client is the address that is wanted, or in the network."""
    address = client_address(value)
    if address is not None:
        return lambda text: client_address(text) == address
    if "/" not in value:
        return value.__eq__
    network = ip_network(value)
    return lambda text: (found := client_address(text)) is not None and found in network


def _address(value: str) -> Match:
    """Whether an address is the one that is wanted, or in the domain."""
    forms = _forms(value)
    domains = frozenset() if "@" in value.removeprefix("@") else _forms(value.removeprefix("@"))

    def match(text: str) -> bool:
        lower = text.lower()
        return lower in forms or ("@" in lower and lower.rpartition("@")[2] in domains)

    return match


_MATCHERS: Mapping[str, Callable[[str], Match]] = {"client": _client, "sender": _address, "recipient": _address}


def _forms(address: str) -> frozenset[str]:
    """The ways to write an address or a domain in lower case: the domain as it is, as A-labels and as U-labels."""
    lower = address.lower()
    local, at, domain = lower.rpartition("@")
    name = normal_domain(domain)
    return frozenset((lower, f"{local}{at}{name}", f"{local}{at}{unicode_domain(name)}") if name else (lower,))
