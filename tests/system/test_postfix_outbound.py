"""Outbound mail through a real Postfix: what is accepted, what the client is told, what is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tests.support.postfix_case import PostfixTestCase
from tests.support.servers.common import wait_until
from tests.support.servers.service import PATIENT, Options, Service, new_name, shared_service
from tests.support.smtp_client import Replies, SMTPClient

ANN = "ann@example.com"
REFUSED = 554


class OutboundTestCase(PostfixTestCase):
    """A service and a Postfix that asks it. The user of the test may send as example.com, and has a quota.

    :ivar user: who sends.
    """

    def setUp(self) -> None:
        self.user = new_name("ann")

    def run_both(
        self,
        stages: Sequence[str],
        quota: int,
        options: Options | None = None,
        twice: bool = False,
        users: Mapping[str, str] | None = None,
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        """Start Postfix, and the service if it is one with options."""
        self.service = self.run_service(options) if options else shared_service()
        self.service.add_user(self.user, quota, ["example.com"])
        asked = {stage: [self.service.endpoint()] * (1 + twice) for stage in stages}
        self.run_postfix(asked, users=users, parameters=parameters)

    def run_service(self, options: Options) -> Service:
        service = Service({**PATIENT, **options})
        self.addCleanup(service.remove)
        return service.start()

    @property
    def remaining(self) -> int:
        """What the user has left."""
        return self.service.remaining(self.user)

    def session(self, login: str | None = None) -> SMTPClient:
        """A session of the user's, of another one's, or of nobody's (``""``)."""
        login = self.user if login is None else login
        client = SMTPClient(self.postfix.port)
        self.addCleanup(client.close)
        client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", **({"LOGIN": login} if login else {}))
        return client

    def send(self, messages: int, recipients: int = 3) -> list[Replies]:
        """Send messages of the user's, each in a session of its own."""
        names = [f"r{number}@example.net" for number in range(recipients)]
        told = []
        for _ in range(messages):
            with self.session() as client:
                told.append(client.message(ANN, names))
        return told


class EveryStageTests(OutboundTestCase):
    def check(self, stages: Sequence[str], quota: int, delivered: Sequence[int], remaining: int) -> list[Replies]:
        self.run_both(stages, quota)
        told = self.send(len(delivered))
        self.assertEqual([message.delivered for message in told], list(delivered))
        self.assertEqual(self.remaining, remaining)
        self.assertEqual(len(self.postfix.delivered(sum(delivered))), sum(delivered))
        return told

    def test_at_rcpt_twelve_transmissions_pass_and_the_fifth_message_is_refused(self) -> None:
        last = self.check(["RCPT"], 12, [3, 3, 3, 3, 0], 0)[-1]
        self.assertEqual(last.codes, [REFUSED] * 3)
        self.assertIn("outbound quota fulfilled", last.recipients[0][1])

    def test_at_data_twelve_transmissions_pass_and_the_fifth_message_is_refused(self) -> None:
        last = self.check(["DATA"], 12, [3, 3, 3, 3, 0], 0)[-1]
        self.assertEqual(last.codes, [250] * 3)
        assert last.data
        self.assertEqual(last.data[0], REFUSED)
        self.assertIn("outbound quota fulfilled", last.data[1])

    def test_at_end_of_message_twelve_transmissions_pass_and_the_fifth_message_is_refused(self) -> None:
        last = self.check(["END-OF-MESSAGE"], 12, [3, 3, 3, 3, 0], 0)[-1]
        assert last.data and last.end
        self.assertEqual((last.data[0], last.end[0]), (354, REFUSED))
        self.assertIn("outbound quota fulfilled", last.end[1])

    def test_at_all_three_stages_a_message_is_counted_once(self) -> None:
        last = self.check(["RCPT", "DATA", "END-OF-MESSAGE"], 12, [3, 3, 3, 3, 0], 0)[-1]
        self.assertEqual(last.codes, [REFUSED] * 3)

    def test_the_margin_lets_a_message_that_begins_below_the_limit_run_over_it(self) -> None:
        for stage in ("RCPT", "DATA", "END-OF-MESSAGE"):
            with self.subTest(stage):
                self.user = new_name("ann")
                self.check([stage], 11, [3, 3, 3, 3, 0], 0)

    def test_without_room_for_all_at_data_nothing_is_counted(self) -> None:
        self.check(["DATA"], 10, [3, 3, 3, 0], 1)

    def test_at_rcpt_the_recipients_that_fit_are_accepted(self) -> None:
        told = self.check(["RCPT", "DATA", "END-OF-MESSAGE"], 8, [3, 3, 2, 0], 0)
        self.assertEqual(told[2].codes, [250, 250, REFUSED])


class CountingTests(OutboundTestCase):
    ALL = ("RCPT", "DATA", "END-OF-MESSAGE")

    def test_messages_of_one_session_are_counted_apart(self) -> None:
        self.run_both(["RCPT", "DATA"], 12)
        with self.session() as client:
            told = [client.message(ANN, ["r1@example.net", "r2@example.net"]) for _ in range(3)]
        self.assertEqual([message.delivered for message in told], [2, 2, 2])
        self.assertEqual(self.remaining, 6)

    def test_the_policy_twice_in_a_list_counts_once(self) -> None:
        self.run_both(self.ALL, 12, twice=True)
        self.assertEqual([message.delivered for message in self.send(5)], [3, 3, 3, 3, 0])
        self.assertEqual(self.remaining, 0)

    def test_a_recipient_given_twice_counts_once_at_rcpt(self) -> None:
        self.run_both(["RCPT"], 12)
        with self.session() as client:
            self.assertEqual(client.message(ANN, ["r1@example.net"] * 2).codes, [250, 250])
        self.assertEqual(self.remaining, 11)

    def test_after_rset_a_new_message_is_counted(self) -> None:
        self.run_both(["RCPT"], 12)
        with self.session() as client:
            for _ in range(2):
                client.command(f"MAIL FROM:<{ANN}>")
                self.assertEqual(client.command("RCPT TO:<r1@example.net>")[0], 250)
                client.command("RSET")
            client.message(ANN, ["r1@example.net"])
        self.assertEqual(self.remaining, 9)

    def test_a_refused_message_that_is_sent_again_is_refused_again_and_costs_nothing(self) -> None:
        self.run_both(["END-OF-MESSAGE"], 4, {"OutboundQuotaPolicy": {"margin": 0}})
        with self.session() as client:
            told = [client.message(ANN, [f"r{n}@example.net" for n in range(3)]) for _ in range(3)]
        self.assertEqual([message.delivered for message in told], [3, 0, 0])
        self.assertEqual(self.remaining, 1)

    def test_at_end_of_message_a_message_that_was_given_up_costs_nothing(self) -> None:
        self.run_both(["END-OF-MESSAGE"], 12)
        with self.session() as client:
            client.command(f"MAIL FROM:<{ANN}>")
            self.assertEqual(client.command("RCPT TO:<r1@example.net>")[0], 250)
        self.assertEqual(self.remaining, 12)

    def test_counting_messages_each_costs_one(self) -> None:
        self.run_both(self.ALL, 2, {"OutboundQuotaPolicy": {"margin": 0, "counting_recipients": False}})
        self.assertEqual([message.delivered for message in self.send(3)], [3, 3, 0])
        self.assertEqual(self.remaining, 0)

    def test_real_authentication_names_the_user(self) -> None:
        self.run_both(["RCPT"], 12, users={self.user: "secret"})
        full = f"{self.user}@mx.example.com"
        self.service.add_user(full, 5, ["example.com"])
        with SMTPClient(self.postfix.port) as client:
            client.login(self.user, "secret")
            self.assertEqual(client.message(ANN, ["r1@example.net"]).delivered, 1)
        self.assertEqual(self.service.remaining(full), 4)
        self.assertEqual(self.remaining, 12)


class SenderTests(OutboundTestCase):
    def refusal(self, login: str, sender: str) -> str:
        """What a user is told at the first recipient, which must be a permanent refusal."""
        with self.session(login) as client:
            code, text = client.message(sender, ["bob@example.com"]).recipients[0]
        self.assertEqual(code, REFUSED, text)
        return text

    def test_a_sender_that_does_not_belong_to_the_user_is_refused_and_not_counted(self) -> None:
        self.run_both(["RCPT"], 12)
        eve = new_name("eve")
        self.service.add_user(eve, 12, [], ["eve@example.com"])
        for login, sender in [
            (self.user, "ann@example.org"),
            (self.user, "ann@sub.example.com"),
            (self.user, "ann"),
            (self.user, '"ann@example.com"@example.org'),
            (eve, "ann@example.com"),
        ]:
            with self.subTest(login=login, sender=sender):
                self.assertIn(f"{login} is not allowed to send mail as ", self.refusal(login, sender))
        self.assertEqual((self.remaining, self.service.remaining(eve)), (12, 12))
        with self.session(eve) as client:
            self.assertEqual(client.message("eve@EXAMPLE.com", ["r@example.net"]).delivered, 1)

    def test_nobody_logged_in_is_refused(self) -> None:
        self.run_both(["RCPT"], 12)
        self.assertIn("Authentication failed", self.refusal("", ANN))

    def test_an_unknown_user_is_refused(self) -> None:
        self.run_both(["RCPT"], 12)
        self.refusal("nobody", ANN)

    def test_the_null_sender_is_refused_unless_configured(self) -> None:
        self.run_both(["RCPT"], 12)
        self.refusal(self.user, "")

    def test_the_null_sender_may_be_let_through_and_costs_whoever_has_logged_in(self) -> None:
        sections = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy")
        self.run_both(["RCPT", "DATA"], 1, {section: {"null_sender_ok": True} for section in sections})
        for login, codes in [(self.user, [250]), (self.user, [REFUSED]), ("", [250])]:
            with self.subTest(login), self.session(login) as client:
                self.assertEqual(client.message("", ["r1@example.com"]).codes, codes)

    def test_shadow_mode_lets_through_what_it_would_refuse(self) -> None:
        sections = ("SenderDomainAuthPolicy", "OutboundQuotaPolicy")
        self.run_both(["RCPT"], 1, {section: {"mode": "shadow"} for section in sections})
        with self.session() as client:
            self.assertEqual(client.message("ann@example.org", ["r1@example.net", "r2@example.net"]).delivered, 2)


class ConnectionTests(OutboundTestCase):
    def test_postfix_keeps_one_connection_over_many_sessions(self) -> None:
        one_smtpd = {"default_process_limit": "1"}
        self.run_both(["RCPT", "DATA", "END-OF-MESSAGE"], 100, parameters=one_smtpd)
        self.send(1)
        # Those of the test before may take a moment to be gone.
        wait_until(lambda: len(self.service.open_connections()) == 1, "one connection")
        before = self.service.open_connections()
        self.send(5)
        self.assertEqual(self.service.open_connections(), before)

    def test_a_restart_of_the_service_is_not_seen_by_the_smtp_client(self) -> None:
        self.run_both(["RCPT"], 12, PATIENT)
        self.send(1)
        self.service.stop()
        self.service.start()
        self.assertEqual(self.send(1)[0].delivered, 3)
        self.assertEqual(self.remaining, 6)

    def test_a_service_that_is_away_means_a_temporary_failure(self) -> None:
        self.run_both(["RCPT"], 12, PATIENT)
        self.service.kill()
        self.assertEqual([code // 100 for code in self.send(1)[0].codes], [4, 4, 4])


class GivenUpTests(OutboundTestCase):
    """A client that gives up before DATA: as the examples have it, that costs its user nothing."""

    def left(self, stage: str) -> int:
        self.run_both([stage], 12)
        with self.session() as client:
            client.command(f"MAIL FROM:<{ANN}>")
            codes = [client.command(f"RCPT TO:<r{number}@example.net>")[0] for number in range(3)]
            self.assertEqual([*codes, client.command("RSET")[0]], [250] * 4)
        return self.remaining

    def test_asked_at_data_it_costs_nothing(self) -> None:
        self.assertEqual(self.left("DATA"), 12)

    def test_asked_at_rcpt_it_costs_what_was_asked_about(self) -> None:
        self.assertEqual(self.left("RCPT"), 9)
