"""Adds a header once per message, not once per recipient."""

from __future__ import annotations

from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import Decision
from chapps_tw.mail.request import PolicyRequest

# Longer than any transaction; Postfix closes a session after 1000 s.
_TTL = 3600.0


async def one_header(state: LiveState, request: PolicyRequest, decision: Decision) -> Decision:
    """Replace PREPEND by DUNNO if the message already has the policy's header.

    Postfix adds a header for each PREPEND it receives. This runs on the final decision of the listener: a PREPEND
    that a later policy overrides must not count, or the header would be lost for all other recipients.

    :raises StateUnavailable: if the live state is unavailable.
    """
    instance = request.get("instance")
    if not instance or decision.verb != "PREPEND":
        return decision
    if await state.first_time(f"{decision.policy} header", instance, _TTL):
        return decision
    return decision._replace(action="DUNNO")
