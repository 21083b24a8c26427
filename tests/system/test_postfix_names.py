"""However a client of a real Postfix spells a login or a sender, it is the one in the book."""

from __future__ import annotations

from tests.support.postfix_case import PostfixTestCase
from tests.support.servers.service import Service
from tests.support.smtp_client import Replies, SMTPClient

REFUSED = 554


class SpellingTests(PostfixTestCase):
    def setUp(self) -> None:
        self.service = Service()
        self.addCleanup(self.service.remove)
        self.service.start()
        self.service.add_user("ann@example.com", 8, ["example.com"], ["friend@elsewhere.example"])
        self.run_postfix({"RCPT": [self.service.endpoint()]})

    def send(self, login: str, sender: str) -> Replies:
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", LOGIN=login)
            return client.message(sender, ["r@example.net"])

    def test_all_spellings_are_one_and_quotes_do_not_hide_the_domain(self) -> None:
        sent = [
            ("ann@example.com", "ann@example.com"),
            ("Ann@EXAMPLE.com", "Ann@Example.COM"),
            ("ANN@example.com", "Friend@Elsewhere.Example"),
            ("ann@example.com", "friend+shop@elsewhere.example"),
            ("ann@example.com", '"x@evil.example"@example.com'),
        ]
        for login, sender in sent:
            self.assertEqual(self.send(login, sender).delivered, 1, (login, sender))
        refused = [
            ("ann@example.com", '"x@example.com"@evil.example'),
            ("ann@example.com", '"friend@elsewhere.example"@evil.example'),
            ("ann@example.com", "foe+friend@elsewhere.example"),
            ("ann@example.org", "ann@example.com"),
        ]
        for login, sender in refused:
            self.assertEqual(self.send(login, sender).codes, [REFUSED], (login, sender))
        self.assertEqual(len(self.postfix.delivered(len(sent))), len(sent))
        self.assertEqual(self.service.remaining("ANN@example.com"), 8 - len(sent))
