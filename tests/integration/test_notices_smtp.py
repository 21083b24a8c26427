"""Mails to a relay: what is sent, what is refused, and what is told of it."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from chapps_tw.config.notify import Relay as Address
from chapps_tw.config.settings import Notify
from chapps_tw.notify import smtp
from chapps_tw.notify.message import Message, compose
from chapps_tw.notify.notice import Outcome
from chapps_tw.notify.smtp import Relay
from chapps_tw.notify.templates import Text
from tests.support.servers.receivers import SmtpReceiver
from tests.support.servers.redis import Authority

PASSWORD = "pa55word"


def mail(to: str = "ann@example.com", subject: str = "Hello", body: str = "Hello,\n\nann.\n") -> Message:
    return Message("", to, compose(Text(subject, body), "postmaster@example.com", to, "1234", 1_790_000_000.0))


class RelayTests(TestCase):
    def receiver(self, *, up: bool = True, **options: object) -> SmtpReceiver:
        found = SmtpReceiver(**options)  # type: ignore[arg-type]
        self.addCleanup(found.down)
        return found.up() if up else found

    async def send(self, receiver: SmtpReceiver, *mails: Message, **options: object) -> list[str]:
        return [outcome.problem for outcome in await self.outcomes(receiver, *mails, **options)]

    async def outcomes(self, receiver: SmtpReceiver, *mails: Message, **options: object) -> list[Outcome]:
        notify = replace(Notify(), relay=Address("127.0.0.1", receiver.port), **options)  # type: ignore[arg-type]
        return await Relay(notify, PASSWORD, "mx1.example.com", reactor).send(mails)

    async def test_mails_share_a_connection_and_have_the_null_sender(self) -> None:
        receiver = self.receiver()
        self.assertEqual(await self.send(receiver, mail(), mail("bob@example.com")), ["", ""])
        self.assertEqual([(each.sender, each.recipient) for each in receiver.mails], [
            ("", "ann@example.com"), ("", "bob@example.com"),
        ])  # fmt: skip
        self.assertEqual((receiver.connections, receiver.commands[:2]), (1, ["EHLO mx1.example.com", "MAIL FROM:<>"]))

    async def test_a_mail_that_is_refused_does_not_keep_others_back(self) -> None:
        receiver = self.receiver(reply=lambda line: "550 5.1.1 who?" if "nobody" in line else "")
        found = await self.send(receiver, mail(), mail("nobody@example.com"), mail("bob@example.com"))
        self.assertEqual(found, ["", "550 5.1.1 who?", ""])
        self.assertEqual([each.recipient for each in receiver.mails], ["ann@example.com", "bob@example.com"])

    async def test_what_the_relay_refuses_permanently_is_final_and_that_it_refuses_us_is_not(self) -> None:
        for command, reply, final in (
            ("RCPT", "550 5.1.1 who?", True), ("RCPT", "450 4.2.1 later", False), (".", "554 5.6.0 no", True),
            ("AUTH", "535 5.7.8 no", False),
        ):  # fmt: skip
            receiver = self.receiver(
                extensions=("AUTH PLAIN",),
                reply=lambda line, wanted=command, told=reply: told if line.startswith(wanted) else "",
            )
            [outcome] = await self.outcomes(receiver, mail("nobody@example.com"), relay_user="chapps")
            self.assertEqual((bool(outcome.problem), outcome.is_final), (True, final), outcome)

    async def test_the_authority_of_the_relay_may_be_named(self) -> None:
        directory = TemporaryDirectory(prefix="authority-")
        self.addCleanup(directory.cleanup)
        authority = Authority(Path(directory.name))
        for mode, extensions in (("tls", ()), ("starttls", ("STARTTLS",))):
            receiver = self.receiver(extensions=extensions, certificate=authority.issue("127.0.0.1"))
            self.assertEqual(await self.send(receiver, mail(), relay_tls=mode, relay_ca_file=str(authority.path)), [""])

    async def test_what_is_refused_at_its_end_was_not_taken(self) -> None:
        receiver = self.receiver(reply=lambda line: "451 4.3.0 later" if line == "." else "")
        self.assertEqual(await self.send(receiver, mail()), ["451 4.3.0 later"])

    async def test_without_a_relay_nothing_is_taken(self) -> None:
        [why] = await self.send(self.receiver(up=False), mail())
        self.assertRegex(why, "^no connection to 127.0.0.1:.*refused")

    async def test_a_relay_that_hangs_is_left(self) -> None:
        receiver, end = self.receiver(up=False), threading.Event()
        receiver.hang_until(end)
        receiver.up()
        with patch.object(smtp, "SEND_SECONDS", 0.2):
            self.assertEqual(await self.send(receiver, mail()), ["the relay did not take the mails in 0.2 s"])
        end.set()

    async def test_a_reply_that_is_no_smtp_is_told(self) -> None:
        [why] = await self.send(self.receiver(reply=lambda line: "\x1b[31mwhat" if "EHLO" in line else ""), mail())
        self.assertIn("Invalid response", why)
        self.assertNotIn("\x1b", why)

    async def test_a_password_is_sent_if_there_is_a_user_and_never_told(self) -> None:
        receiver = self.receiver(extensions=("AUTH PLAIN",))
        self.assertEqual(await self.send(receiver, mail(), relay_user="chapps"), [""])
        [login] = [line for line in receiver.commands if line.startswith("AUTH")]
        refusing = self.receiver(
            extensions=("AUTH PLAIN",), reply=lambda line: "535 no" if line.startswith("AUTH") else ""
        )
        [why] = await self.send(refusing, mail(), relay_user="chapps")
        self.assertEqual(why, "535 no")
        self.assertNotIn(login.split()[-1], why)
        self.assertEqual(refusing.mails, [])

    async def test_without_the_login_that_is_configured_nothing_is_sent(self) -> None:
        receiver = self.receiver()
        [why] = await self.send(receiver, mail(), relay_user="chapps")
        self.assertIn("Authentication", why)
        self.assertEqual(receiver.mails, [])

    async def test_without_the_tls_that_is_configured_nothing_is_sent(self) -> None:
        receiver = self.receiver()
        [why] = await self.send(receiver, mail(), relay_tls="starttls")
        self.assertIn("TLS", why)
        self.assertEqual(receiver.mails, [])

    async def test_with_tls_the_certificate_must_be_right_for_the_relay(self) -> None:
        directory = TemporaryDirectory(prefix="authority-")
        self.addCleanup(directory.cleanup)
        authority = Authority(Path(directory.name))
        for mode, extensions in (("tls", ()), ("starttls", ("STARTTLS",))):
            right, wrong = (
                self.receiver(extensions=extensions, certificate=authority.issue(name))
                for name in ("127.0.0.1", "mail.example.com")
            )
            [distrusted] = await self.send(right, mail(), relay_tls=mode)
            with patch.dict(os.environ, {"SSL_CERT_FILE": str(authority.path)}):
                [other] = await self.send(wrong, mail(), relay_tls=mode)
                self.assertEqual(await self.send(right, mail(), mail(), relay_tls=mode), ["", ""])
            self.assertIn("certificate verify failed", distrusted)
            self.assertRegex(other, "VerificationError|certificate")
            self.assertEqual((len(right.mails), wrong.mails), (2, []))

    async def test_what_looks_like_the_end_of_a_mail_is_not(self) -> None:
        receiver = self.receiver()
        body = "x\n" * 8000 + ".\n.\nRCPT TO:<evil@example.com>\n..\n" + ".\n" * 9000
        self.assertEqual(await self.send(receiver, mail(body=body), mail(body="next\n")), ["", ""])
        texts = [each.message.get_content().replace("\r\n", "\n") for each in receiver.mails]
        self.assertEqual(texts, [body, "next\n"])
        self.assertNotIn("RCPT TO:<evil@example.com>", receiver.commands)
