"""One header for a message, however many recipients it has."""

from __future__ import annotations

from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import PolicyRequest

# A transaction does not last longer; Postfix closes a session after 1000 s.
_TTL = 3600.0


async def one_header(state: LiveState, request: PolicyRequest, decision: Decision) -> Decision:
    """Last word on a decision that is about to be the listener's answer.

    Postfix adds a header each time it is answered. Only here is it known that the answer is not
    replaced by a later policy's, which would lose the header for all the other recipients.

    :returns: the decision; or it as DUNNO, where the message has the policy's header already.
    :raises StateUnavailable: when that cannot be asked.
    """
    instance = request.get("instance")
    if not instance or decision.verb != "PREPEND":
        return decision
    if await state.first_time(f"{decision.policy} header", instance, _TTL):
        return decision
    return decision._replace(action="DUNNO")
