"""Runs the policies of one listener, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import Final

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import LiveState, StateUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.explaining import explain
from chapps_tw.policies.slots import PASS, Answer, PolicySlot
from chapps_tw.postfix.asked_before import AskedBefore

DEFER: Final = "DEFER_IF_PERMIT 4.3.0 Service temporarily unavailable, please try again later"

Settle = Callable[[OutboundPPR, Decision], Awaitable[Decision]]


class Pipeline:
    """The policies of one listener.

    :ivar slots: in order.
    :param exempted: returns the decision that replaces those of the inbound policies; ``None`` if the client is not
        exempt.
    :param failed: called with the policy's name and every unexpected exception.
    :param timeout: the exception that a policy raises on timeout.
    :param settle: runs on accepting answers other than DUNNO, and returns the final answer.
    :param state: is charged, and confirms the version that a request relies on.
    :param time_limit: seconds that a request may take.

    A :class:`~chapps_tw.postfix.run.Run` answers a request with it.

    :ivar asked_before: what the policies said about earlier requests.
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
        time_limit: float = inf,
    ) -> None:
        self.listener = listener
        self.time_limit = time_limit
        self.state = state
        self.settle = settle
        self.slots = tuple(slots)
        self._outbound = tuple(slot for slot in slots if not slot.inbound)
        self._guarded = len(self._outbound) < len(self.slots)
        self._exempted = exempted
        self._failed = failed
        self._timeout = timeout
        self.asked_before = AskedBefore(self.slots, state)

    @property
    def policies(self) -> tuple[str, ...]:
        """Names of the policies, in order."""
        return tuple(slot.policy.name for slot in self.slots)

    @property
    def inbound(self) -> bool:
        """Whether there are inbound policies and no outbound ones."""
        return self._guarded and all(slot.both for slot in self._outbound)

    def asked(self, request: OutboundPPR, decisions: list[Decision]) -> Sequence[PolicySlot]:
        """Return the policies that decide about a request; add the decision that replaces the others."""
        exempt = self._exempted(request) if self._guarded else None
        if exempt is None:
            return self.slots
        decisions.append(exempt)
        return self._outbound

    async def explain(self, request: OutboundPPR) -> Answer:
        """Return what would be answered, with the decisions of all policies, even after one stops the mail.

        Changes nothing. Does not run ``settle``, which may change the live state.
        """
        decisions: list[Decision] = []
        slots = self.asked(request, decisions)
        return await explain(request, slots, decisions, self.state, self.failure)

    def unreadable(self, why: str) -> Decision:
        """Return the answer to an invalid policy request."""
        first = self.slots[0]
        action = PASS if first.accept_on_failure or first.shadow else DEFER
        return Decision(action, Reason.REQUEST_UNREADABLE, first.policy.name, detail=why)

    def failure(self, slot: PolicySlot, error: Exception) -> Decision:
        """Return the decision of a policy that failed."""
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

    def failing(self, request: OutboundPPR, answer: Decision) -> PolicySlot:
        """Return the policy whose ``on_failure`` applies if an answer cannot be given: the one that answers.

        If what the request relies on could not be confirmed, that may be any policy: the first one that defers.
        """
        if request.version is not None:
            for slot in self.slots:
                if not slot.accept_on_failure and not slot.shadow:
                    return slot
        names = [slot.policy.name for slot in self.slots]
        return self.slots[names.index(answer.policy) if answer.policy in names else -1]
