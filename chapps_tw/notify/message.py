"""Mails as they are sent: RFC 5322, with what keeps others from answering them (RFC 3834)."""

from __future__ import annotations

from email import policy
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from typing import NamedTuple

from chapps_tw.notify.facts import moment
from chapps_tw.notify.templates import Text


class Message(NamedTuple):
    """A mail and its envelope.

    :ivar sender: ``""`` is the null sender.
    :ivar data: the mail, with ``\\n`` at the end of lines.
    """

    sender: str
    recipient: str
    data: bytes


def compose(text: Text, from_address: str, to: str, id: str, sent: float) -> bytes:
    """Return a mail.

    :param from_address, to: from :func:`~chapps_tw.mail.addresses.mailbox`.
    :param id: of its notice: if it is sent twice, its Message-ID is the same.
    :param sent: epoch seconds.
    """
    mail = EmailMessage(policy.default.clone(linesep="\n", max_line_length=78))
    mail["From"] = Address(addr_spec=from_address)
    mail["To"] = Address(addr_spec=to)
    mail["Subject"] = text.subject
    mail["Date"] = format_datetime(moment(sent))
    mail["Message-ID"] = f"<{id}@{from_address.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text.body, charset="utf-8", cte="quoted-printable")
    # Twisted doubles the dot at the start of a line only if it does not read the line in two parts.
    return mail.as_bytes().replace(b"\n.", b"\n=2E")
