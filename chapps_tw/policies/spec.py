"""What a policy declares of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from enum import Enum

from chapps_tw.config.settings import PolicySection, Settings
from chapps_tw.interfaces.book import PolicyBook
from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import ReasonCode
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.policies.pipeline import Policy
from chapps_tw.policies.refresh import never


class Direction(Enum):
    """Whose mail a policy judges.

    An inbound one is not asked about who has logged in, nor about the clients that the configuration exempts.
    """

    OUTBOUND = "outbound"
    INBOUND = "inbound"


@dataclass(frozen=True)
class Dependencies:
    """What a policy may use.

    :ivar check_spf: checks client address, HELO name and MAIL FROM; never fails.
    :ivar receiver: name of this host, for headers.
    :ivar due: whether a copy of what the book says is to be compared with it now
        (:meth:`~chapps_tw.policies.refresh.Refresh.is_due`); each policy has its own.
    """

    settings: Settings
    state: LiveState
    book: PolicyBook
    check_spf: Callable[[str, str, str], Awaitable[SpfResult]]
    receiver: str
    due: Callable[[Hashable], bool] = never


def _none(_settings: Settings) -> float:
    return 0.0


@dataclass(frozen=True)
class PolicySpec:
    """A policy, as the registry knows it.

    :ivar section: its section of the configuration, whose name is the policy's too.
    :ivar make: makes the policy, one for each listener that asks it. What it raises keeps the service from starting.
    :ivar reasons: those of its own; none where those of :class:`~chapps_tw.mail.decision.Reason` do.
    :ivar extra_time: seconds that it may take besides ``request_timeout``.
    :ivar cache: name, in the metrics, of a cache whose ``looks`` and ``misses`` the policy counts; else empty.
    """

    section: type[PolicySection]
    direction: Direction
    make: Callable[[Dependencies], Policy]
    reasons: type[ReasonCode] | None = None
    extra_time: Callable[[Settings], float] = _none
    cache: str = ""

    @property
    def name(self) -> str:
        """The policy's name, as a listener asks for it."""
        return self.section.section
