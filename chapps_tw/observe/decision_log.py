"""The decisions of this node: written down, and the last of them for whoever asks why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import NamedTuple

from chapps_tw.mail.addresses import normal_domain, unicode_domain
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.memo import Recent
from chapps_tw.mail.network import client_address
from chapps_tw.mail.request import PostfixPolicyRequest
from chapps_tw.observe.decision_record import Form, Record

RECENT = 5_000
RECENT_ROOM = 8 << 20
FLUSH_SECONDS = 0.1

_ADDRESSES = ("sender", "recipient")


def beside(sent: Decision, decisions: Sequence[Decision]) -> str:
    """What policies said after the one that answers: ``policy:reason``, with a comma between two; mostly nothing.

    Greylisting lets mail pass, or does not want it, for one, and what is sent is the header that SPF gave it. Those
    before the one that answers are left out: they let the mail through, or it would not have been asked. So are
    those in shadow mode that have a record of their own.

    :param decisions: of every policy that was asked, in order.
    """
    if decisions[-1].policy == sent.policy:
        return ""
    names = [decision.policy for decision in decisions]
    after = decisions[names.index(sent.policy) + 1 :]
    return ",".join([f"{decision.policy}:{decision.reason}" for decision in after if not decision.shadow])


class Search(NamedTuple):
    """A look through the last decisions, which goes on as far as it is asked to.

    :ivar records: newest first, with ``None`` for each that is not wanted: a place to pause at.
    :ivar searched: how many there are.
    :ivar since: epoch seconds of the oldest of them, 0.0 where there is none.
    """

    records: Iterator[Record | None]
    searched: int
    since: float


class DecisionLog:
    """Makes lines, hands them on in batches, and remembers the last ones.

    What is remembered is the line alone: it takes a third of the memory of what it is made from.

    :param write: takes a batch of lines as bytes; does not block. ``None``: nothing is written.
    :param later: calls a function after some seconds.
    """

    def __init__(
        self,
        form: Form,
        write: Callable[[bytes], None] | None,
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._form = form
        self._write = write
        self._later = later
        self._lines: list[str] = []
        self.recent = Recent(RECENT, RECENT_ROOM)

    def add(
        self, listener: str, user: str, request: PostfixPolicyRequest, decision: Decision, now: float, also: str = ""
    ) -> None:
        """Log a decision. ``also`` is what :func:`beside` tells."""
        line = self._form.write(listener, user, request, decision, now, also)
        self.recent.append(line)
        if self._write is None:
            return
        if not self._lines:
            self._later(FLUSH_SECONDS, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Hand on what was logged since the last time."""
        lines, self._lines = self._lines, []
        if lines and self._write is not None:
            self._write(("\n".join(lines) + "\n").encode("utf-8", "backslashreplace"))

    def search(self, wanted: Mapping[str, str]) -> Search:
        """Begin to look for the records whose fields have the values that are wanted.

        Addresses of senders and recipients compare without their case, and their domains in whatever form; a domain
        alone stands for all addresses in it. A client is an address or a network.
        """
        lines = tuple(self.recent)
        since = self._form.read(lines[0]).time if lines else 0.0
        return Search(self._matching(lines, wanted), len(lines), since)

    def _matching(self, lines: Sequence[str], wanted: Mapping[str, str]) -> Iterator[Record | None]:
        """For each line, newest first, its record if it is wanted."""
        # Only what is wanted is converted: whoever sends mail could make thousands of conversions necessary.
        matches = [(name, _MATCHERS.get(name, _exactly)(value)) for name, value in wanted.items()]
        parts = self._parts(wanted)
        for line in reversed(lines):
            # Reading a line takes fifty times the time of this look.
            if not all(part in line or part in line.lower() for part in parts):
                yield None
                continue
            record = self._form.read(line)
            yield record if all(match(getattr(record, name)) for name, match in matches) else None

    def _parts(self, wanted: Mapping[str, str]) -> list[str]:
        """What a line must hold, as it is or in lower case, to be of what is wanted."""
        value = self._form.value
        parts = [value(text) for name, text in wanted.items() if name not in _MATCHERS]
        # A domain may stand there in another form.
        locals_ = [
            text.lower().partition("@")[0] for name, text in wanted.items() if name in _ADDRESSES and "@" in text
        ]
        return parts + [text for text in locals_ if text.isascii() and text in value(text)]


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
