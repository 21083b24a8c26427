"""The declaration of a policy: what the registry knows about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from chapps_tw.config.settings import PolicySection, Settings
from chapps_tw.interfaces.book import PolicyBook
from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import ReasonCode
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.policies.events import Events
from chapps_tw.policies.exemptions import Exempt, nobody
from chapps_tw.policies.refresh import never
from chapps_tw.policies.slots import Policy
from chapps_tw.policies.stages import Need


class Direction(Enum):
    """Whether a policy decides about mail from users, mail from the Internet, or both.

    An inbound policy is skipped for authenticated clients and for those that the configuration exempts.
    """

    OUTBOUND = "outbound"
    INBOUND = "inbound"
    BOTH = "both"


@dataclass(frozen=True)
class Dependencies:
    """The objects that a policy may use.

    :ivar check_spf: takes client address, HELO name and MAIL FROM; never fails.
    :ivar receiver: name of this host, for headers.
    :ivar now: epoch seconds.
    :ivar monotonic: monotonic clock.
    :ivar events: notes events near a limit.
    :ivar warn: logs a sentence for the administrator.
    :ivar due: whether a cached value is to be compared with the policy book now
        (:meth:`~chapps_tw.policies.refresh.Refresh.is_due`); each policy gets its own.
    :ivar exempt: finds the exemption of a request from the policy or from a limit.
    """

    settings: Settings
    state: LiveState
    book: PolicyBook
    check_spf: Callable[[str, str, str], Awaitable[SpfResult]]
    receiver: str
    now: Callable[[], float]
    monotonic: Callable[[], float]
    events: Events
    warn: Callable[[str], None]
    due: Callable[[Hashable], bool] = never
    exempt: Exempt = nobody


def _none(_settings: Settings) -> float:
    return 0.0


def _no_needs(_: object) -> Iterable[Need]:
    return ()


@dataclass(frozen=True)
class PolicySpec:
    """The declaration of a policy.

    :ivar section: its configuration section; the section's name is the policy's name.
    :ivar make: factory, called for each listener with the policy, at the start and whenever the configuration is read
        again. An exception stops the start of the service; later, the former configuration stays in force.
    :ivar reasons: its own reasons, in addition to :class:`~chapps_tw.mail.decision.Reason`.
    :ivar extra_time: seconds that it may take in addition to ``request_timeout``.
    :ivar needs: the stages at which Postfix must ask; none if the policy applies at every stage.
    :ivar learned: takes the policy; returns the needs that it has learned of from the policy book.
    :ivar cache: label, in the metrics, of the cache whose ``looks`` and ``misses`` the policy counts; ``""`` if none.
    """

    section: type[PolicySection]
    direction: Direction
    make: Callable[[Dependencies], Policy]
    reasons: type[ReasonCode] | None = None
    extra_time: Callable[[Settings], float] = _none
    needs: Callable[[Settings], Iterable[Need]] = _no_needs
    learned: Callable[[Any], Iterable[Need]] = _no_needs
    cache: str = ""

    @property
    def name(self) -> str:
        """The policy's name, as in ``[Listener NAME] policies``."""
        return self.section.section
