"""The greylisting policy, with the embedded store."""

from __future__ import annotations

import dataclasses

from chapps_tw.config.settings import GreylistingPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.config.values import parse_recipients
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.mail.decision import Decision, Reason, ReasonCode
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.greylisting_model import request
from tests.support.paths import RECORDED
from tests.support.policy_case import PolicyCase
from tests.support.replies import decision_of, deferred

DAY = 86400.0

FORCING = Decision("DUNNO", Reason.SPF_SOFTFAIL, "SPFEnforcementPolicy", greylist=True)
PASSING = Decision("DUNNO", Reason.SPF_PASS, "SPFEnforcementPolicy", client="example.com")


class GreylistingCase(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.flags = {"grey.example": (True, False), "open.example": (False, True)}
        self.policy = self.make()

    def make(self, **options: object) -> GreylistingPolicy:
        section = dataclasses.replace(Section(), **options)  # type: ignore[arg-type]
        return GreylistingPolicy(Settings(grl=section), self.state, self.book)

    def decide(self, instance: str = "i1", *earlier: Decision, **attributes: str) -> Decision:
        return self.run_now(decision_of(self.policy.decide(request(instance, **attributes), earlier)))

    def reason(self, instance: str = "i1", *earlier: Decision, **attributes: str) -> ReasonCode:
        return self.decide(instance, *earlier, **attributes).reason


class Waiting(GreylistingCase):
    def test_the_first_attempt_is_deferred_with_the_time_to_wait(self) -> None:
        decision = self.decide()
        self.assertEqual(decision.reason, Reason.GREYLIST_FIRST)
        self.assertEqual(
            decision.action, "DEFER_IF_PERMIT Service temporarily unavailable - greylisted, retry in 60 seconds"
        )
        self.assertEqual(decision.figures, {"wait": 60, "tally": 0, "threshold": 10})

    def test_the_wait_is_rounded_up_to_whole_seconds(self) -> None:
        self.decide()
        self.clock.advance(10.25)
        self.assertTrue(self.decide("i2").action.endswith("retry in 50 seconds"))

    def test_an_early_retry_does_not_restart_the_wait(self) -> None:
        self.decide()
        for attempt in range(2):
            self.clock.advance(20)
            self.assertEqual(self.reason(f"e{attempt}"), Reason.GREYLIST_EARLY)
        self.clock.advance(20)
        decision = self.decide("i3")
        self.assertEqual((decision.action, decision.reason), ("DUNNO", Reason.GREYLIST_PASSED))
        self.assertEqual(decision.figures, {"wait": 0, "tally": 1, "threshold": 10})

    def test_another_address_of_the_network_is_the_same_client(self) -> None:
        self.decide()
        self.clock.advance(60)
        self.assertEqual(self.reason("i2", client_address="192.0.2.200"), Reason.GREYLIST_PASSED)
        self.assertEqual(self.reason("i2", client_address="198.51.100.1"), Reason.GREYLIST_FIRST)

    def test_sender_and_recipient_are_compared_without_case(self) -> None:
        self.decide()
        self.clock.advance(60)
        self.assertEqual(self.reason("i2", sender="ALICE@Example.COM", recipient="Bob@GREY.example"), "greylist_passed")
        self.assertEqual(self.reason("i2", sender="carol@example.com"), Reason.GREYLIST_FIRST)
        self.assertEqual(self.reason("i2", recipient="dave@grey.example"), Reason.GREYLIST_FIRST)

    def test_a_client_that_passed_often_enough_is_exempt(self) -> None:
        self.policy = self.make(whitelist_threshold=2)
        for number in range(2):
            self.decide(f"a{number}", sender=f"s{number}@example.com")
            self.clock.advance(60)
            self.assertEqual(self.reason(f"b{number}", sender=f"s{number}@example.com"), Reason.GREYLIST_PASSED)
        decision = self.decide("new", sender="new@example.com")
        self.assertEqual((decision.action, decision.reason), ("DUNNO", Reason.KNOWN_CLIENT))
        self.assertEqual(decision.figures, {"wait": 0, "tally": 2, "threshold": 2})

    def test_messages_are_templates(self) -> None:
        self.policy = self.make(
            acceptance_message="PREPEND X-Greylist: {sender} to {recipient} passed, wait {retry_after}",
            rejection_message="450 4.7.1 {recipient}: {sender} back in {retry_after}",
        )
        self.assertEqual(self.decide().action, "450 4.7.1 bob@grey.example: alice@example.com back in 60")
        self.clock.advance(60)
        passed = "PREPEND X-Greylist: alice@example.com to bob@{} passed, wait 0"
        self.assertEqual(self.decide("i2").action, passed.format("grey.example"))
        self.assertEqual(self.decide("i3", recipient="bob@open.example").action, passed.format("open.example"))

    def test_a_sender_with_undecodable_bytes_is_greylisted(self) -> None:
        odd = {"sender": "\udce4@example.com", "recipient": "\udcff@grey.example", "client_address": "\udcff"}
        self.assertEqual(self.reason("i1", **odd), Reason.GREYLIST_FIRST)
        self.clock.advance(60)
        self.assertEqual(self.reason("i2", **odd), Reason.GREYLIST_PASSED)

    def test_explain_changes_nothing(self) -> None:
        for _ in range(2):
            self.assertEqual(self.run_now(decision_of(self.policy.explain(request()))).reason, Reason.GREYLIST_FIRST)
        self.decide()
        self.clock.advance(60)
        self.assertEqual(self.run_now(decision_of(self.policy.explain(request("i2")))).reason, Reason.GREYLIST_PASSED)
        self.assertEqual(self.run_now(decision_of(self.policy.explain(request("i3")))).figures["tally"], 1)


class WhatIsJudged(GreylistingCase):
    def test_the_flag_of_each_recipients_domain_applies(self) -> None:
        self.assertEqual(self.reason(recipient="bob@open.example"), Reason.NOT_GREYLISTED)
        self.assertEqual(self.reason(recipient="bob@elsewhere.example"), Reason.NOT_GREYLISTED)
        self.assertEqual(self.reason(recipient="root"), Reason.NOT_GREYLISTED)
        self.assertEqual(self.reason(recipient="bob@GREY.example."), Reason.GREYLIST_FIRST)

    def test_the_flag_is_cached(self) -> None:
        for number in range(5):
            self.decide(recipient=f"r{number}@grey.example")
            self.decide(recipient=f"r{number}@open.example")
        self.assertEqual(self.book.asked, 2)

    def test_an_earlier_policy_can_request_greylisting(self) -> None:
        self.assertEqual(self.reason("i1", FORCING, recipient="bob@open.example"), Reason.GREYLIST_FIRST)
        self.assertEqual(self.reason("i1", FORCING, recipient="root"), Reason.GREYLIST_FIRST)

    def test_a_domain_that_passed_spf_identifies_the_client(self) -> None:
        self.decide("i1", PASSING)
        self.clock.advance(60)
        self.assertEqual(self.reason("i2", PASSING, client_address="198.51.100.1"), Reason.GREYLIST_PASSED)
        self.policy = self.make(spf_identity=False)
        self.assertEqual(self.reason("i3", PASSING, client_address="203.0.113.1"), Reason.GREYLIST_FIRST)

    def test_network_and_spf_domain_identify_the_same_tuple(self) -> None:
        self.decide("i1")
        self.clock.advance(60)
        self.assertEqual(self.reason("i2", PASSING), Reason.GREYLIST_PASSED)
        self.assertEqual(self.reason("i3", PASSING, client_address="198.51.100.1"), Reason.GREYLIST_PASSED)
        # As when DNS does not answer this time.
        self.assertEqual(self.reason("i4", client_address="198.51.100.1"), Reason.GREYLIST_PASSED)

    def test_postmaster_and_abuse_are_exempt_even_on_request(self) -> None:
        for recipient in ("postmaster@grey.example", "Abuse@GREY.example", "POSTMASTER"):
            for earlier in ((), (FORCING,)):
                decision = self.decide("i1", *earlier, recipient=recipient)
                self.assertEqual((decision.action, decision.reason), ("DUNNO", Reason.RECIPIENT_EXEMPT), recipient)
        for recipient in ("postmaster2@grey.example", "grey.example@grey.example"):
            self.assertEqual(self.reason(recipient=recipient), Reason.GREYLIST_FIRST)

    def test_exempt_recipients_are_an_option(self) -> None:
        self.policy = self.make(exempt_recipients=parse_recipients("noc@grey.example, helpdesk@"))
        for recipient in ("NOC@grey.example", "helpdesk@grey.example", "helpdesk@open.example"):
            self.assertEqual(self.reason(recipient=recipient), Reason.RECIPIENT_EXEMPT)
        self.assertEqual(self.reason(recipient="noc@xn--bcher-kva.example"), Reason.NOT_GREYLISTED)
        self.policy = self.make(exempt_recipients=parse_recipients("noc@BÜCHER.example"))
        for recipient in ("noc@bücher.example", "noc@xn--bcher-kva.example"):
            self.assertEqual(self.reason("i1", FORCING, recipient=recipient), Reason.RECIPIENT_EXEMPT)
        for recipient in ("noc@other.example", "postmaster@grey.example"):
            self.assertEqual(self.reason("i1", FORCING, recipient=recipient), Reason.GREYLIST_FIRST)
        self.policy = self.make(exempt_recipients=())
        self.assertEqual(self.reason(recipient="helpdesk@grey.example"), Reason.GREYLIST_FIRST)

    def test_the_default_retry_window_and_pass_ttl(self) -> None:
        self.decide()
        self.clock.advance(2 * DAY)
        self.assertEqual(self.reason("i2"), Reason.GREYLIST_PASSED)
        self.clock.advance(35 * DAY)
        self.assertEqual(self.reason("i3"), Reason.GREYLIST_PASSED)
        self.clock.advance(35 * DAY + 1)
        self.assertEqual(self.reason("i4"), Reason.GREYLIST_FIRST)
        self.clock.advance(2 * DAY + 1)
        self.assertEqual(self.reason("i5"), Reason.GREYLIST_FIRST)

    def test_a_daily_newsletter_with_varying_senders_becomes_exempt(self) -> None:
        for day in range(10):
            for attempt, reason in enumerate((Reason.GREYLIST_FIRST, Reason.GREYLIST_PASSED)):
                instance, sender = f"{day}.{attempt}", f"bounce-{day}@news.example"
                self.assertEqual(self.reason(instance, sender=sender), reason)
                self.clock.advance(DAY / 2)
        self.assertEqual(self.reason("last", sender="bounce-last@news.example"), Reason.KNOWN_CLIENT)

    def test_a_flag_expires_after_flag_ttl(self) -> None:
        self.policy = self.make(flag_ttl=100.0)
        for pause, asked in ((0, 1), (99, 1), (2, 2)):
            self.clock.advance(pause)
            self.decide()
            self.assertEqual(self.book.asked, asked)

    def test_the_detail_names_the_client(self) -> None:
        self.assertEqual(self.decide().detail, "client 192.0.2.0/24")
        self.assertEqual(self.decide("i1", PASSING).detail, "client example.com, by SPFEnforcementPolicy")
        self.clock.advance(60)
        self.assertEqual(self.decide("i2").detail, "client 192.0.2.0/24")
        self.assertEqual(self.decide("i3", recipient="bob@open.example").detail, "")
        self.policy = self.make(spf_identity=False)
        self.assertEqual(self.decide("i4", PASSING).detail, "client 192.0.2.0/24")

    def test_the_detail_names_the_requesting_policy(self) -> None:
        asked = FORCING._replace(detail="mailfrom example.org ~all")
        decision = self.decide("i1", asked, recipient="bob@open.example")
        wanted = "client 192.0.2.0/24; asked for by SPFEnforcementPolicy (spf_softfail: mailfrom example.org ~all)"
        self.assertEqual(decision.detail, wanted)
        self.assertTrue(self.decide("i2", FORCING).detail.endswith("asked for by SPFEnforcementPolicy (spf_softfail)"))

    def test_u_labels_and_a_labels_are_the_same_domain(self) -> None:
        self.decide("i1", FORCING, sender="alice@bücher.example", recipient="bob@BÜCHER.example")
        self.clock.advance(60)
        mail = {"sender": "alice@xn--bcher-kva.example", "recipient": "bob@xn--bcher-kva.example"}
        self.assertEqual(self.reason("i2", FORCING, **mail), Reason.GREYLIST_PASSED)

    def test_the_null_sender_is_greylisted_like_any_other(self) -> None:
        self.assertEqual(self.reason(sender=""), Reason.GREYLIST_FIRST)
        self.policy = self.make(null_sender_ok=True)
        self.assertEqual(self.reason(sender=""), Reason.NULL_SENDER_ACCEPTED)

    def test_later_stages_repeat_the_decision_about_a_single_recipient(self) -> None:
        self.decide()
        self.clock.advance(60)
        for stage in ("RCPT", "DATA", "END-OF-MESSAGE"):
            decision = self.decide("i2", protocol_state=stage)
            self.assertEqual((decision.reason, decision.figures["tally"]), (Reason.GREYLIST_PASSED, 1))

    def test_other_stages_are_not_judged(self) -> None:
        for name in ("in-three-rcpt-04-DATA", "in-three-rcpt-05-END-OF-MESSAGE", "in-vrfy-01-VRFY", "in-etrn-01-ETRN"):
            recorded = OutboundPPR((RECORDED / f"{name}.req").read_bytes())
            self.assertEqual(
                self.run_now(decision_of(self.policy.decide(recorded))).reason, Reason.STAGE_NOT_JUDGED, name
            )

    def test_an_unavailable_book_raises_unless_the_flag_is_cached(self) -> None:
        self.book.away = True
        failed = deferred(decision_of(self.policy.decide(request())))
        self.clock.advance(0)
        self.failureResultOf(failed, BookUnavailable)
        self.book.away = False
        self.decide()
        self.book.away = True
        self.assertEqual(self.reason("i2"), Reason.GREYLIST_EARLY)

    def test_an_unavailable_state_raises(self) -> None:
        self.state = SqliteState("/dev/null/state.sqlite3", self.clock.seconds, self.clock)
        self.policy = self.make()
        failed = deferred(decision_of(self.policy.decide(request())))
        self.clock.advance(0)
        self.failureResultOf(failed, StateUnavailable)


class Clients(GreylistingCase):
    def test_the_prefixes_of_the_settings_apply(self) -> None:
        for options, same, other in (
            ({}, "192.0.2.200", "192.0.3.1"),
            ({"ipv4_prefix": 32}, "192.0.2.1", "192.0.2.2"),
            ({"ipv4_prefix": 16}, "192.0.200.1", "192.1.2.1"),
            ({"ipv6_prefix": 48}, "2001:db8:1:2::1", "2001:db8:2::1"),
        ):
            self.policy = self.make(**options)
            sender = f"{options}@example.net"
            first = "2001:db8:1::1" if ":" in other else "192.0.2.1"
            for address, expected in (
                (first, Reason.GREYLIST_FIRST),
                (same, Reason.GREYLIST_EARLY),
                (other, Reason.GREYLIST_FIRST),
            ):
                self.assertEqual(self.reason(sender=sender, client_address=address), expected, (options, address))


class Texts(GreylistingCase):
    def test_the_wait_of_each_attempt_is_filled_in(self) -> None:
        self.policy = self.make(rejection_message="DEFER {retry_after} {other}")
        self.assertEqual(self.decide().action, "DEFER 60 {other}")
        self.clock.advance(20)
        self.assertEqual(self.decide().action, "DEFER 40 {other}")

    def test_sender_and_recipient_of_each_message_are_filled_in(self) -> None:
        self.policy = self.make(rejection_message="DEFER {sender} {recipient} {retry_in}")
        for sender in ("ann@example.net", "bea@example.net"):
            action = self.decide(sender=sender, recipient="x@grey.example").action
            self.assertEqual(action, f"DEFER {sender} x@grey.example 60 seconds")
