"""Asks the policies of one listener, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR

DEFER = "DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, please try again later"
PASS = "DUNNO"


class Policy(Protocol):
    """One question about a request."""

    name: str

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        """Answer a request, given the decisions of the policies before this one."""

    async def explain(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        """Answer the same, and change nothing."""


class PolicySlot(NamedTuple):
    """A policy at a listener.

    :ivar shadow: it decides, but what it decides does not count.
    :ivar accept_on_failure: when it cannot decide, the mail passes; else it is deferred.
    :ivar inbound: it is not asked about clients that are exempt.
    """

    policy: Policy
    shadow: bool = False
    accept_on_failure: bool = False
    inbound: bool = False


class Answer(NamedTuple):
    """What a listener answers.

    :ivar decision: the one that is sent.
    :ivar decisions: of every policy that was asked, in order.
    """

    decision: Decision
    decisions: Sequence[Decision]


Settle = Callable[[OutboundPPR, Decision], Awaitable[Decision]]


class Pipeline:
    """The policies of one listener.

    :param exempted: gives the decision that stands for those of the inbound policies; ``None`` where they are asked.
    :param failed: told of every exception that a policy did not foresee, with the policy's name.
    :param timeout: the exception that a policy sees when its time is up.
    :param settle: runs on accepting answers other than DUNNO; what it returns is the answer.
    """

    def __init__(
        self,
        listener: str,
        slots: Sequence[PolicySlot],
        exempted: Callable[[OutboundPPR], Decision | None],
        failed: Callable[[str, Exception], None],
        timeout: type[Exception],
        settle: Settle,
    ) -> None:
        self.listener = listener
        self._slots = tuple(slots)
        self._outbound = tuple(slot for slot in slots if not slot.inbound)
        self._guarded = len(self._outbound) < len(self._slots)
        self._exempted = exempted
        self._failed = failed
        self._timeout = timeout
        self._settle = settle

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the policies, in the order they are asked."""
        return tuple(slot.policy.name for slot in self._slots)

    @property
    def inbound(self) -> bool:
        """Whether all of the policies are for mail from the world."""
        return not self._outbound

    async def decide(self, request: OutboundPPR) -> Answer:
        """Answer a request. Never raises: a policy that fails is answered for by its ``on_failure``.

        The first decision that stops the mail is the answer; of the others, the last that is not
        DUNNO.
        """
        decisions: list[Decision] = []
        answer = answering = None
        for slot in self._asked(request, decisions) if self._guarded else self._slots:
            try:
                decision = await slot.policy.decide(request, decisions)
                stopping = decision.stops
            except Exception as error:
                decision = self._failure(slot, error)
                stopping = decision.stops
            if slot.shadow:
                decision, stopping = _shadowed(decision), False
            decisions.append(decision)
            if stopping:
                return Answer(decision, decisions)
            if answer is None or decision.action != PASS or answer.action == PASS:
                answer, answering = decision, slot
        if answer is None or answering is None:
            return Answer(decisions[-1], decisions)
        if answer.action != PASS:
            try:
                answer = await self._settle(request, answer)
            except Exception as error:
                answer = self._failure(answering, error)
        return Answer(answer, decisions)

    async def explain(self, request: OutboundPPR) -> Answer:
        """What would be answered now, and what every policy would, also after one that stops the mail.

        Changes nothing, and does not run ``settle``, which may use something up.
        """
        decisions: list[Decision] = []
        for slot in self._asked(request, decisions) if self._guarded else self._slots:
            try:
                decision = await slot.policy.explain(request, decisions)
                if not isinstance(decision, Decision):
                    raise TypeError(f"it explained with {decision!r:.80}, which is no Decision")
            except Exception as error:
                decision = self._failure(slot, error)
            decisions.append(_shadowed(decision) if slot.shadow else decision)
        return Answer(_sent(decisions), decisions)

    def unreadable(self, why: str) -> Decision:
        """The answer to something that is no policy request."""
        first = self._slots[0]
        action = PASS if first.accept_on_failure or first.shadow else DEFER
        return Decision(action, Reason.REQUEST_UNREADABLE, first.policy.name, detail=why)

    def _asked(self, request: OutboundPPR, decisions: list[Decision]) -> Sequence[PolicySlot]:
        exempt = self._exempted(request)
        if exempt is None:
            return self._slots
        decisions.append(exempt)
        return self._outbound

    def _failure(self, slot: PolicySlot, error: Exception) -> Decision:
        if isinstance(error, StateUnavailable):
            reason = Reason.STATE_UNAVAILABLE
        elif isinstance(error, BookUnavailable):
            reason = Reason.BOOK_UNAVAILABLE
        elif isinstance(error, self._timeout):
            reason = Reason.TIMED_OUT
        else:
            reason = Reason.POLICY_FAILED
            self._failed(slot.policy.name, error)
        action = PASS if slot.accept_on_failure else DEFER
        return Decision(action, reason, slot.policy.name, detail=str(error))


def _sent(decisions: Sequence[Decision]) -> Decision:
    """Of what all policies answer, the one that is sent."""
    stopping = (decision for decision in decisions if decision.stops)
    telling = (decision for decision in reversed(decisions) if decision.action != PASS)
    return next(stopping, None) or next(telling, decisions[-1])


def _shadowed(decision: Decision) -> Decision:
    """A decision without its consequences."""
    shadow = "" if decision.action == PASS else decision.action
    detail = f"{decision.detail}; would ask for greylisting" if decision.greylist else decision.detail
    return decision._replace(action=PASS, shadow=shadow, detail=detail, greylist=False, client="")
