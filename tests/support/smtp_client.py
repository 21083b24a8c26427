"""An SMTP client that records the replies of Postfix at each stage."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from typing import NamedTuple

from tests.support.servers.common import HANGS

Reply = tuple[int, str]


class Replies(NamedTuple):
    """The replies in one transaction; ``None`` for stages that were not reached.

    :ivar recipients: one for each recipient.
    :ivar data: to DATA.
    :ivar end: to the end of the message.
    """

    mail: Reply
    recipients: list[Reply]
    data: Reply | None
    end: Reply | None

    @property
    def codes(self) -> list[int]:
        """The reply codes to the recipients."""
        return [code for code, _ in self.recipients]

    @property
    def delivered(self) -> int:
        """The number of recipients that the message was accepted for."""
        return self.codes.count(250) if self.end and self.end[0] == 250 else 0


class SMTPClient(smtplib.SMTP):
    """One SMTP session."""

    def __init__(self, port: int, timeout: float = HANGS) -> None:
        super().__init__("127.0.0.1", port, "client.example.net", timeout)
        self.ehlo()

    def command(self, line: str) -> Reply:
        """Send a command; return code and text."""
        code, text = self.docmd(line)
        return code, text.decode("utf-8", "replace")

    def xclient(self, **attributes: str) -> None:
        """Act for another client: ``ADDR``, ``NAME``, ``HELO``, ``LOGIN`` ... as in XCLIENT_README."""
        code, text = self.command("XCLIENT " + " ".join(f"{name}={value}" for name, value in attributes.items()))
        if code != 220:
            raise smtplib.SMTPResponseException(code, text)
        self.ehlo(attributes.get("HELO", "client.example.net"))

    def message(self, sender: str, recipients: Sequence[str], text: str = "Subject: test\r\n\r\nHello\r\n") -> Replies:
        """Send a message as far as Postfix accepts it; then the transaction is over."""
        mail = self.command(f"MAIL FROM:<{sender}>")
        told = [self.command(f"RCPT TO:<{recipient}>") for recipient in recipients]
        data = end = None
        if any(code == 250 for code, _ in told):
            data = self.command("DATA")
            if data[0] == 354:
                end = self.text(text)
        if end is None or end[0] != 250:
            self.command("RSET")
        return Replies(mail, told, data, end)

    def text(self, text: str) -> Reply:
        """Send the text of a message and its final dot."""
        self.send(text + ".\r\n")
        code, reply = self.getreply()
        return code, reply.decode("utf-8", "replace")
