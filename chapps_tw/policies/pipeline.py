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

# What an exempt client is not asked about.
INBOUND_POLICIES = frozenset(("GreylistingPolicy", "SPFEnforcementPolicy"))


class Policy(Protocol):
    """One question about a request."""

    name: str

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        """Answer a request, given the decisions of the policies before this one."""

    async def explain(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        """Answer the same, and change nothing."""


class Seat(NamedTuple):
    """A policy at a listener.

    :ivar shadow: it decides, but what it decides does not count.
    :ivar accept_on_failure: when it cannot decide, the mail passes; else it is deferred.
    """

    policy: Policy
    shadow: bool = False
    accept_on_failure: bool = False


class Answer(NamedTuple):
    """What a listener answers.

    :ivar decision: the one that is sent.
    :ivar decisions: of every policy that was asked, in order.
    """

    decision: Decision
    decisions: Sequence[Decision]


Settle = Callable[[OutboundPPR, Decision], Awaitable[Decision]]


class Switchboard:
    """The policies of one listener.

    :param exempted: gives the decision that stands for those of the inbound policies; ``None`` where they are asked.
    :param failed: told of every exception that a policy did not foresee, with the policy's name.
    :param timeout: the exception that a policy sees when its time is up.
    :param settle: has the last word on an answer that lets the mail go on and is not DUNNO.
    """

    def __init__(
        self,
        listener: str,
        seats: Sequence[Seat],
        exempted: Callable[[OutboundPPR], Decision | None],
        failed: Callable[[str, Exception], None],
        timeout: type[Exception],
        settle: Settle,
    ) -> None:
        self.listener = listener
        self._seats = tuple(seats)
        self._guarded = any(seat.policy.name in INBOUND_POLICIES for seat in seats)
        self._exempted = exempted
        self._failed = failed
        self._timeout = timeout
        self._settle = settle

    @property
    def policies(self) -> tuple[str, ...]:
        """The names of the policies, in the order they are asked."""
        return tuple(seat.policy.name for seat in self._seats)

    async def decide(self, request: OutboundPPR) -> Answer:
        """Answer a request. Never raises: a policy that fails is answered for by its ``on_failure``.

        The first decision that stops the mail is the answer; of the others, the last that is not
        DUNNO.
        """
        decisions: list[Decision] = []
        answer = answering = None
        for seat in self._asked(request, decisions) if self._guarded else self._seats:
            try:
                decision = await seat.policy.decide(request, decisions)
            except Exception as error:
                decision = self._failure(seat, error)
            if seat.shadow:
                decision = _shadowed(decision)
            decisions.append(decision)
            if decision.stops:
                return Answer(decision, decisions)
            if answer is None or decision.action != PASS or answer.action == PASS:
                answer, answering = decision, seat
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

        Changes nothing. Nobody has the last word (``settle``), since that may use something up.
        """
        decisions: list[Decision] = []
        for seat in self._asked(request, decisions) if self._guarded else self._seats:
            try:
                decision = await seat.policy.explain(request, decisions)
            except Exception as error:
                decision = self._failure(seat, error)
            decisions.append(_shadowed(decision) if seat.shadow else decision)
        return Answer(_sent(decisions), decisions)

    def unreadable(self, why: str) -> Decision:
        """The answer to something that is no policy request."""
        first = self._seats[0]
        action = PASS if first.accept_on_failure or first.shadow else DEFER
        return Decision(action, Reason.REQUEST_UNREADABLE, first.policy.name, detail=why)

    def _asked(self, request: OutboundPPR, decisions: list[Decision]) -> Sequence[Seat]:
        exempt = self._exempted(request)
        if exempt is None:
            return self._seats
        decisions.append(exempt)
        return [seat for seat in self._seats if seat.policy.name not in INBOUND_POLICIES]

    def _failure(self, seat: Seat, error: Exception) -> Decision:
        if isinstance(error, StateUnavailable):
            reason = Reason.STATE_UNAVAILABLE
        elif isinstance(error, BookUnavailable):
            reason = Reason.BOOK_UNAVAILABLE
        elif isinstance(error, self._timeout):
            reason = Reason.TIMED_OUT
        else:
            reason = Reason.POLICY_FAILED
            self._failed(seat.policy.name, error)
        action = PASS if seat.accept_on_failure else DEFER
        return Decision(action, reason, seat.policy.name, detail=str(error))


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
