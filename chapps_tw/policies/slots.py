"""Policies in their places in a listener, and the answers that they make together."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Final, NamedTuple, Protocol

from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.pending import Asked, Decided, PendingDecision

PASS: Final = "DUNNO"


class Policy(Protocol):
    """Decides about requests.

    A policy may have an attribute ``depends_on``, the names of all attributes of a request that it looks at; besides,
    it may look at whether ``recipient`` is empty. Then it is not asked about each request that is like an earlier one
    for which it called :meth:`~chapps_tw.outbound.OutboundPPR.rely_on` with ``alike``.
    """

    name: str

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decided | Asked | Awaitable[Decided]:
        """Decide about a request, given the decisions of the earlier policies, except those that are pending.

        What is returned is awaited if it is no decision yet: a policy that has not to wait is faster without.
        """

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decided | Asked | Awaitable[Decided]:
        """Return the same decision, and change nothing."""


class PolicySlot(NamedTuple):
    """A policy of a listener.

    :ivar shadow: whether it is in shadow mode: its decisions are logged but have no effect.
    :ivar accept_on_failure: whether mail passes if the policy fails; otherwise it is deferred.
    :ivar inbound: whether it is skipped for exempt clients.
    :ivar both: whether it decides about inbound and outbound mail alike.
    """

    policy: Policy
    shadow: bool = False
    accept_on_failure: bool = False
    inbound: bool = False
    both: bool = False


class Pending(NamedTuple):
    """A pending decision.

    :ivar place: number of decisions before it that are not pending.
    """

    slot: PolicySlot
    decision: PendingDecision
    place: int


class Answer(NamedTuple):
    """The answer of a listener.

    :ivar decision: the decision that is sent.
    :ivar decisions: those of all policies that ran, in order.
    """

    decision: Decision
    decisions: Sequence[Decision]


def insert(found: Sequence[Decision | None], pending: Sequence[Pending], decisions: list[Decision]) -> None:
    """Insert decisions that were pending. Those that were not made are left out."""
    for (slot, _, place), decision in zip(reversed(pending), reversed(found), strict=True):
        if decision is not None:
            decisions.insert(place, shadowed(decision) if slot.shadow else decision)


def sent(decisions: Sequence[Decision]) -> Decision:
    """Select the decision that is sent: the first that stops the mail; otherwise the last one other than DUNNO."""
    found = decisions[-1]
    for decision in reversed(decisions):
        if decision.action != PASS and (decision.stops or found.action == PASS):
            found = decision
    return found


def shadowed(decision: Decision) -> Decision:
    """Return a decision in shadow mode, without effect."""
    shadow = decision.shadow if decision.action == PASS else decision.action
    detail = f"{decision.detail}; would ask for greylisting" if decision.greylist else decision.detail
    return decision._replace(action=PASS, shadow=shadow, detail=detail, greylist=False, client="")
