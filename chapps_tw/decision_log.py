"""The decisions of this node: written down, and the last of them for whoever asks why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from chapps_tw.decision import Decision
from chapps_tw.decision_record import Form, Record
from chapps_tw.memo import Recent
from chapps_tw.names import normal_domain, unicode_domain
from chapps_tw.request import PostfixPolicyRequest

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


class Found(NamedTuple):
    """What was found among the last decisions.

    :ivar searched: how many were looked through.
    :ivar since: epoch seconds of the oldest of them, 0.0 where there is none.
    """

    records: Sequence[Record]
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

    def find(self, wanted: Mapping[str, str], limit: int) -> Found:
        """The newest records first, whose fields have the values that are wanted.

        Addresses of senders and recipients compare without their case, and their domains in whatever form.
        """
        exact = [(name, value) for name, value in wanted.items() if name not in _ADDRESSES]
        # Only what is wanted is converted: whoever sends mail could make thousands of conversions necessary.
        forms = [(name, _forms(value)) for name, value in wanted.items() if name in _ADDRESSES]
        matching = (
            record
            for record in map(self._form.read, self._likely(wanted))
            if all(getattr(record, name) == value for name, value in exact)
            and all(getattr(record, name).lower() in values for name, values in forms)
        )
        since = self._form.read(self.recent[0]).time if self.recent else 0.0
        return Found(list(islice(matching, limit)), len(self.recent), since)

    def _likely(self, wanted: Mapping[str, str]) -> Iterator[str]:
        """Lines that may be of what is wanted, newest first. Reading a line takes fifty times the time of this look."""
        value = self._form.value
        exact = [value(text) for name, text in wanted.items() if name not in _ADDRESSES]
        # The domain may stand there in another form.
        addresses = [text.lower().partition("@")[0] for name, text in wanted.items() if name in _ADDRESSES]
        locals_ = [text for text in addresses if text.isascii() and text in value(text)]
        for line in reversed(self.recent):
            if all(text in line for text in exact) and (not locals_ or _holds(line.lower(), locals_)):
                yield line


def _holds(line: str, texts: Sequence[str]) -> bool:
    return all(text in line for text in texts)


def _forms(address: str) -> frozenset[str]:
    """The ways to write an address in lower case: its domain as it is, as A-labels and as U-labels."""
    lower = address.lower()
    local, at, domain = lower.rpartition("@")
    name = normal_domain(domain)
    return frozenset((lower, f"{local}{at}{name}", f"{local}{at}{unicode_domain(name)}") if name else (lower,))
