"""What a listener would answer, and each of its policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import message_of
from chapps_tw.policies.pending import PendingDecision, charge, decided
from chapps_tw.policies.slots import Answer, Pending, PolicySlot, insert, sent, shadowed

Failure = Callable[[PolicySlot, Exception], Decision]


async def explain(
    request: OutboundPPR, slots: Sequence[PolicySlot], before: Sequence[Decision], state: LiveState, failure: Failure
) -> Answer:
    """Return what policies would answer together, with the decisions of all, even after one stops the mail.

    Changes nothing, and never raises.

    :param before: decisions before those of the policies.
    :param failure: returns the decision of a policy that failed.
    """
    decisions, pending = list(before), []
    for slot in slots:
        try:
            found = await decided(slot.policy.explain(request, decisions))
            if isinstance(found, PendingDecision):
                pending.append(Pending(slot, found, len(decisions)))
                continue
            if not isinstance(found, Decision):
                raise TypeError(f"explain() returned {found!r:.80}, which is not a Decision")
        except Exception as error:
            found = failure(slot, error)
        decisions.append(shadowed(found) if slot.shadow else found)
    stopped = next((decision for decision in decisions if decision.stops), None)
    if not pending:
        return Answer(sent(decisions), decisions)
    together = await _peek(request, pending, state, failure)
    insert(together, pending, answered := list(decisions))
    alone = [
        found or (await _peek(request, [each], state, failure))[0]
        for found, each in zip(together, pending, strict=True)
    ]
    insert(alone, pending, decisions)
    return Answer(stopped or sent(answered), decisions)


async def _peek(
    request: OutboundPPR, pending: Sequence[Pending], state: LiveState, failure: Failure
) -> Sequence[Decision | None]:
    """Return what the pending decisions would be if all these policies were charged together."""
    peek = partial(state.peek, message_of(request, request.get("protocol_state")))
    decisions, enforced = [each.decision for each in pending], [not each.slot.shadow for each in pending]
    try:
        return await charge(request, peek, peek, decisions, enforced)
    except Exception as error:
        return [failure(each.slot, error) for each in pending]
