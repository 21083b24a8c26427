"""Runs the policies of one listener, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, LiveState, Outdated, Spent, StateUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import message_of
from chapps_tw.policies.pending import Decided, PendingDecision, Spend, charge

DEFER = "DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, please try again later"
PASS = "DUNNO"


class Policy(Protocol):
    """Decides about requests."""

    name: str

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decided | Awaitable[Decided]:
        """Decide about a request, given the decisions of the earlier policies, except those that are pending.

        What is returned is awaited if it is no decision yet: a policy that has not to wait is faster without.
        """

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decided | Awaitable[Decided]:
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


class _Pending(NamedTuple):
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


_DECIDED = (Decision, PendingDecision)

Settle = Callable[[OutboundPPR, Decision], Awaitable[Decision]]


class Pipeline:
    """The policies of one listener.

    :param exempted: returns the decision that replaces those of the inbound policies; ``None`` if the client is not
        exempt.
    :param failed: called with the policy's name and every unexpected exception.
    :param timeout: the exception that a policy raises on timeout.
    :param settle: runs on accepting answers other than DUNNO, and returns the final answer.
    :param state: is charged, and confirms the assumptions of a request.
    """

    def __init__(
        self,
        listener: str,
        slots: Sequence[PolicySlot],
        exempted: Callable[[OutboundPPR], Decision | None],
        failed: Callable[[str, Exception], None],
        timeout: type[Exception],
        settle: Settle,
        state: LiveState,
    ) -> None:
        self.listener = listener
        self._slots = tuple(slots)
        self._outbound = tuple(slot for slot in slots if not slot.inbound)
        self._guarded = len(self._outbound) < len(self._slots)
        self._exempted = exempted
        self._failed = failed
        self._timeout = timeout
        self._settle = settle
        self._state = state

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies, in order."""
        return tuple(slot.policy.name for slot in self._slots)

    @property
    def inbound(self) -> bool:
        """Whether there are inbound policies and no outbound ones."""
        return self._guarded and all(slot.both for slot in self._outbound)

    async def decide(self, request: OutboundPPR) -> Answer:
        """Answer a request. Never raises: if a policy fails, its ``on_failure`` applies.

        The answer is the first decision that stops the mail; otherwise the last one other than DUNNO.
        """
        decisions: list[Decision] = []
        pending: list[_Pending] = []
        stopping = False
        for slot in self._asked(request, decisions) if self._guarded else self._slots:
            try:
                decided = slot.policy.decide(request, decisions)
                if not isinstance(decided, _DECIDED):
                    decided = await decided
                if isinstance(decided, PendingDecision):
                    pending.append(_Pending(slot, decided, len(decisions)))
                    continue
                # Here, since a policy of another package that returns no Decision has failed.
                stopping = decided.stops
            except Outdated:
                return await self._again(request)
            except Exception as error:
                decided = self._failure(slot, error)
                stopping = decided.stops
            if slot.shadow:
                decided, stopping = _shadowed(decided), False
            decisions.append(decided)
            if stopping:
                break
        if pending and not stopping and not await self._charge(request, pending, decisions):
            return await self._again(request)
        answer = decisions[0] if len(decisions) == 1 else _sent(decisions)
        if request.assumptions or (answer.action != PASS and not answer.stops):
            return await self._complete(request, answer, decisions)
        return Answer(answer, decisions)

    async def _again(self, request: OutboundPPR) -> Answer:
        """Let all policies decide again: a decision was based on an assumption that is wrong."""
        request.clear_assumptions()
        return await self.decide(request)

    async def _charge(self, request: OutboundPPR, pending: Sequence[_Pending], decisions: list[Decision]) -> bool:
        """Charge the request, and insert the pending decisions; return False if an assumption is wrong."""
        reserve = min([each.decision.reserve for each in pending]) if len(pending) > 1 else pending[0].decision.reserve
        message = message_of(request, request.get("protocol_state"), reserve)

        async def spend(charges: Sequence[Charge]) -> Spent:
            spent = await self._state.spend(message, charges, request.assumptions)
            if spent.outcome is Outcome.OUTDATED:
                raise Outdated
            if request.assumptions:
                request.clear_assumptions()
            return spent

        try:
            found = await _concluded(spend, partial(self._state.peek, message), pending)
        except Outdated:
            return False
        except Exception as error:
            found = [self._failure(each.slot, error) for each in pending]
        _insert(found, pending, decisions)
        return True

    async def _complete(self, request: OutboundPPR, answer: Decision, decisions: list[Decision]) -> Answer:
        """Confirm the assumptions and settle the answer."""
        try:
            if request.assumptions and not await self._state.confirm(request.assumptions):
                return await self._again(request)
            if answer.action != PASS and not answer.stops:
                answer = await self._settle(request, answer)
        except Exception as error:
            answer = self._failure(self._failing(request, answer), error)
        return Answer(answer, decisions)

    def _failing(self, request: OutboundPPR, answer: Decision) -> PolicySlot:
        """Return the policy whose ``on_failure`` applies: the one that answers.

        If assumptions could not be confirmed, any policy may have made them: the first one that defers.
        """
        if request.assumptions:
            for slot in self._slots:
                if not slot.accept_on_failure and not slot.shadow:
                    return slot
        names = [slot.policy.name for slot in self._slots]
        return self._slots[names.index(answer.policy) if answer.policy in names else -1]

    async def explain(self, request: OutboundPPR) -> Answer:
        """Return what :meth:`decide` would answer, with the decisions of all policies, even after one stops the mail.

        Changes nothing. Does not run ``settle``, which may change the live state.
        """
        decisions: list[Decision] = []
        pending: list[_Pending] = []
        for slot in self._asked(request, decisions) if self._guarded else self._slots:
            try:
                decided = slot.policy.explain(request, decisions)
                if not isinstance(decided, _DECIDED):
                    decided = await decided
                if isinstance(decided, PendingDecision):
                    pending.append(_Pending(slot, decided, len(decisions)))
                    continue
                if not isinstance(decided, Decision):
                    raise TypeError(f"explain() returned {decided!r:.80}, which is not a Decision")
            except Exception as error:
                decided = self._failure(slot, error)
            decisions.append(_shadowed(decided) if slot.shadow else decided)
        stopped = next((decision for decision in decisions if decision.stops), None)
        if not pending:
            return Answer(_sent(decisions), decisions)
        together = await self._peek(request, pending)
        _insert(together, pending, sent := list(decisions))
        alone = [found or (await self._peek(request, [each]))[0] for found, each in zip(together, pending, strict=True)]
        _insert(alone, pending, decisions)
        return Answer(stopped or _sent(sent), decisions)

    async def _peek(self, request: OutboundPPR, pending: Sequence[_Pending]) -> Sequence[Decision | None]:
        """Return what the pending decisions would be if all policies were charged together."""
        message = message_of(request, request.get("protocol_state"))
        try:
            peek = partial(self._state.peek, message)
            return await _concluded(peek, peek, pending)
        except Exception as error:
            return [self._failure(each.slot, error) for each in pending]

    def unreadable(self, why: str) -> Decision:
        """Return the answer to an invalid policy request."""
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


async def _concluded(spend: Spend, peek: Spend, pending: Sequence[_Pending]) -> Sequence[Decision | None]:
    """Charge a request, and return the decisions that were pending: see :func:`~chapps_tw.policies.pending.charge`."""
    slot, (charges, conclude, _, advisory), _ = pending[0]
    if len(pending) == 1 and not advisory and not slot.shadow:
        # Fast path.
        spent = await spend(charges)
        decision = conclude(charges, spent)
        if spent.decisive < 0 or decision.stops or len(charges) == 1:
            return (decision,)
    return await charge(spend, peek, [each.decision for each in pending], [not each.slot.shadow for each in pending])


def _insert(found: Sequence[Decision | None], pending: Sequence[_Pending], decisions: list[Decision]) -> None:
    """Insert decisions that were pending. Those that were not made are left out."""
    for (slot, _, place), decision in zip(reversed(pending), reversed(found), strict=True):
        if decision is not None:
            decisions.insert(place, _shadowed(decision) if slot.shadow else decision)


def _sent(decisions: Sequence[Decision]) -> Decision:
    """Select the decision that is sent: the first that stops the mail; otherwise the last one other than DUNNO."""
    sent = decisions[-1]
    for decision in reversed(decisions):
        if decision.action != PASS and (decision.stops or sent.action == PASS):
            sent = decision
    return sent


def _shadowed(decision: Decision) -> Decision:
    """Return a decision in shadow mode, without effect."""
    shadow = decision.shadow if decision.action == PASS else decision.action
    detail = f"{decision.detail}; would ask for greylisting" if decision.greylist else decision.detail
    return decision._replace(action=PASS, shadow=shadow, detail=detail, greylist=False, client="")
