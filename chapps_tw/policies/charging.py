"""What one request costs: the rule that the quota and all limits share.

Postfix names the recipient at RCPT, and at later stages if there is only one. The number of recipients is known at DATA
and END-OF-MESSAGE, the size at END-OF-MESSAGE: https://www.postfix.org/SMTPD_POLICY_README.html.
"""

from __future__ import annotations

from typing import Final

from chapps_tw.config.limits import STAGES_OF
from chapps_tw.interfaces.state import Message, Unit
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.policies.inbound import mail_address

_RCPT: Final = "RCPT"
_END: Final = "END-OF-MESSAGE"

# Of a size: more than that is not a message.
_MAX_DIGITS: Final = 15

STAGES: Final = STAGES_OF[Unit.MESSAGES]
"""The protocol states at which a message can be counted."""


def message_of(request: PolicyRequest, stage: str, reserve: float = 0.0) -> Message:
    """Return what a request says of its message, for the live state.

    :param stage: its ``protocol_state``, one of :data:`STAGES`.
    :param reserve: seconds after which the cost at RCPT is given back if the message is not sent; 0.0 for never.
    """
    recipient = mail_address(request.get("recipient"))
    return Message(request.get("instance"), recipient, stage != _RCPT or not recipient, reserve)


def amount_of(unit: Unit, request: PolicyRequest, stage: str) -> int | None:
    """Return the amount of a :class:`~chapps_tw.interfaces.state.Charge`, 0 if the state knows it better.

    :param stage: as for :func:`message_of`.
    :returns: ``None`` if the request does not tell: limits in this unit are not judged then.
    """
    if unit is Unit.RECIPIENTS:
        return 0 if stage == _RCPT else request.recipients
    if unit is Unit.MESSAGES:
        return 1
    if unit is Unit.DISTINCT_RECIPIENTS:
        return 0 if request.get("recipient") else None
    size = request.get("size") if stage == _END else ""
    if not (size.isascii() and size.isdigit() and len(size) < _MAX_DIGITS):
        return None
    return int(size) * max(1, request.recipients)
