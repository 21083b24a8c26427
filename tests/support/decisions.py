"""Decisions for tests of the log and of searches."""

from __future__ import annotations

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import Entry, entry_of

REFUSED = Decision(
    "REJECT quota fulfilled", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": 12, "used": 12, "wait": 60}
)
ATTRIBUTES = {
    "protocol_state": "RCPT",
    "sender": "bob@example.org",
    "recipient": "x@example.net",
    "client_address": "192.0.2.1",
    "instance": "1.2.3",
    "queue_id": "ABC",
}
MOMENT = 1763636645.1234


def entry(
    decision: Decision = REFUSED, also: str = "", user: str = "bob", listener: str = "outbound", **attributes: str
) -> Entry:
    """Return the entry of a decision about a message with :data:`ATTRIBUTES`, some of which can be overridden."""
    return entry_of(listener, user, PolicyRequest(ATTRIBUTES | attributes), decision, MOMENT, also)
