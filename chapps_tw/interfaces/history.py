"""The history: the decisions of all nodes, kept over restarts."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from chapps_tw.mail.network import Network

# The most decisions, or groups of them, that one call returns.
MAX_FOUND: Final = 1000


class HistoryUnavailable(Exception):
    """The history cannot be read now. The message is a sentence."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which decisions. Empty fields filter nothing.

    :ivar user: exactly as the policies know it.
    :ivar sender, recipient: ignoring case: an address; the addresses of a domain, if it begins with ``@``; else a part.
    :ivar client: an address is a network of one.
    :ivar unknown_client: only those whose client has no address.
    :ivar action: its first word, such as ``REJECT``, ignoring case.
    :ivar since, until: epoch seconds: from ``since`` until before ``until``; 0 is no bound.
    :ivar refused: only mail that was refused, deferred or discarded.
    """

    user: str = ""
    sender: str = ""
    recipient: str = ""
    client: Network | None = None
    unknown_client: bool = False
    queue_id: str = ""
    instance: str = ""
    listener: str = ""
    policy: str = ""
    reason: str = ""
    action: str = ""
    node: str = ""
    since: float = 0.0
    until: float = 0.0
    refused: bool = False


class KeptDecision(NamedTuple):
    """A decision of the history.

    :ivar id: unique, and greater than those of earlier decisions.
    :ivar time: epoch seconds, in milliseconds.
    :ivar node: name of the node that decided.
    :ivar refused: whether the mail was refused, deferred or discarded.

    The others are as in the decision log. Long texts are cut, senders and recipients are in lower case.
    """

    id: int
    time: float
    node: str
    listener: str
    policy: str
    action: str
    refused: bool
    reason: str
    figures: Mapping[str, int | float]
    user: str
    sender: str
    recipient: str
    client: str
    instance: str
    queue_id: str
    stage: str
    shadow: str
    detail: str
    source: str
    also: str


class Page(NamedTuple):
    """A part of the decisions that were wanted, newest first.

    :ivar next: where the next page begins (``before``); ``None`` if there is none.
    :ivar searched_since: epoch seconds: how far back was searched, 0.0 for everything.
    """

    decisions: Sequence[KeptDecision]
    next: int | None
    searched_since: float


class GroupBy(StrEnum):
    """What decisions are counted by. Hours and days are in UTC; networks are /24 for IPv4, /64 for IPv6."""

    HOUR = "hour"
    DAY = "day"
    USER = "user"
    REASON = "reason"
    CLIENT = "client_network"


class Group(NamedTuple):
    """The decisions with the same user, reason or network, or in the same hour or day.

    :ivar key: the user, the reason, the network; of hours and days ``""``. ``""`` also if there is none.
    :ivar start: of hours and days: epoch seconds of their start, else 0.0.
    :ivar refused: how many of the decisions refused, deferred or discarded mail.
    :ivar senders, recipients: numbers of different addresses, for users and networks; else ``None``.
    """

    key: str
    start: float
    decisions: int
    refused: int
    senders: int | None = None
    recipients: int | None = None


class Counts(NamedTuple):
    """Numbers of decisions.

    :ivar groups: hours and days oldest first, others by number of decisions, the largest first.
    :ivar counted_since: epoch seconds: how far back was counted, 0.0 for everything.
    """

    groups: Sequence[Group]
    counted_since: float


class History(Protocol):
    """Searches the history. Both methods take a limited time: they return how far back they got.

    Both raise :exc:`HistoryUnavailable`.
    """

    def search(self, wanted: Wanted, before: int | None = None, limit: int = 100) -> Awaitable[Page]:
        """Return decisions, newest first, at most :data:`MAX_FOUND`.

        :param before: ``next`` of the page before.
        """

    def counts(self, wanted: Wanted, by: GroupBy, limit: int = 100) -> Awaitable[Counts]:
        """Count decisions in groups, at most :data:`MAX_FOUND`: the newest hours or days, the largest of others."""
