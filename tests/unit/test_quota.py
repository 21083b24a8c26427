"""The quota policy, with the embedded store. Counting is tested with the stores."""

from __future__ import annotations

import dataclasses

from twisted.internet.defer import Deferred

from chapps_tw.config.settings import Chapps, Settings
from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.values import parse_margin
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.quota import OutboundQuotaPolicy
from tests.support.policy_case import PolicyCase, quota_policy


class QuotaTests(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.quotas = {"bob": 3, "free": None}
        self.policy = self.make()

    def make(self, **options: object) -> OutboundQuotaPolicy:
        options.setdefault("margin", parse_margin("0"))
        section = dataclasses.replace(Section(), **options)  # type: ignore[arg-type]
        self.settings = Settings(chapps=Chapps(), oqp=section)
        return quota_policy(self, self.settings)

    def request(self, instance: str = "i1", **attributes: str) -> OutboundPPR:
        return OutboundPPR(
            {
                "protocol_state": "RCPT",
                "sender": "bob@example.org",
                "recipient": "x@example.net",
                "recipient_count": "0",
                "sasl_username": "bob",
                "instance": instance,
            }
            | attributes,
            cfg=self.settings,
        )

    def decide(self, instance: str = "i1", **attributes: str) -> Decision:
        return self.run_now(self.decision(self.policy, self.request(instance, **attributes)))

    def test_a_user_can_send_up_to_the_quota(self) -> None:
        reasons = [self.decide(f"i{number}").reason for number in range(4)]
        self.assertEqual(reasons, [Reason.WITHIN_QUOTA] * 3 + [Reason.QUOTA_EXCEEDED])

    def test_the_figures_of_a_decision(self) -> None:
        self.assertEqual(self.decide().figures, {"limit": 3, "used": 1, "remaining": 2})
        refused = [self.decide(f"i{number}") for number in range(2, 5)][-1]
        self.assertEqual(refused.figures, {"limit": 3, "used": 3, "remaining": 0, "wait": 86400})

    def test_a_repeated_request_is_counted_once(self) -> None:
        for _ in range(3):
            self.decide(recipient="a@x")
            self.decide(recipient="b@x")
        decision = self.decide(recipient="b@x")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.COUNTED_BEFORE, 2))

    def test_the_last_stage_determines_the_cost(self) -> None:
        for recipient in ("a@x", "b@x", "c@x"):
            self.decide(recipient=recipient)
        self.assertEqual(self.decide(protocol_state="DATA", recipient="", recipient_count="2").figures["used"], 2)
        decision = self.decide(protocol_state="END-OF-MESSAGE", recipient="", recipient_count="2")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.COUNTED_BEFORE, 2))

    def test_a_message_is_counted_completely_or_not_at_all(self) -> None:
        decision = self.decide(protocol_state="DATA", recipient="", recipient_count="4")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.QUOTA_EXCEEDED, 0))
        self.assertEqual(self.decide("i2", protocol_state="DATA", recipient_count="3").reason, Reason.WITHIN_QUOTA)

    def test_messages_are_counted_without_counting_recipients(self) -> None:
        self.policy = self.make(counting_recipients=False)
        for recipient in ("a@x", "b@x", "c@x", "d@x"):
            self.assertEqual(self.decide(recipient=recipient).figures["used"], 1)
        decision = self.decide(protocol_state="DATA", recipient="", recipient_count="4")
        self.assertEqual(decision.figures["used"], 1)

    def test_a_message_below_the_limit_can_use_the_margin(self) -> None:
        self.policy = self.make(margin=parse_margin("2"))
        self.decide("i1")
        self.assertEqual(self.decide("i2", protocol_state="DATA", recipient_count="4").figures["used"], 5)
        self.assertEqual(self.decide("i3").reason, Reason.QUOTA_EXCEEDED)

    def test_min_delta_separates_messages(self) -> None:
        self.policy = self.make(min_delta=10.0)
        self.decide("i1", recipient="a@x")
        self.assertEqual(self.decide("i1", recipient="b@x").reason, Reason.WITHIN_QUOTA)
        self.clock.advance(4)
        decision = self.decide("i2")
        self.assertEqual((decision.reason, decision.figures["wait"]), (Reason.TOO_SOON, 6))
        # For now only: who waits can send it.
        self.assertEqual(decision.action, "DEFER_IF_PERMIT Too soon after the message before, try again in 6 seconds")
        self.clock.advance(6)
        self.assertEqual(self.decide("i3").reason, Reason.WITHIN_QUOTA)

    def test_no_quota_and_unknown_user_are_different_reasons(self) -> None:
        for _ in range(2):
            self.assertEqual(self.decide(sasl_username="free").reason, Reason.NO_QUOTA)
            self.assertEqual(self.decide(sasl_username="eve").reason, Reason.UNKNOWN_USER)
            self.assertTrue(self.decide(sasl_username="eve").stops)
        self.assertEqual(self.book.asked, 3)
        self.book.quotas["eve"] = 5
        self.clock.advance(61)
        self.assertEqual(self.decide(sasl_username="eve").reason, Reason.WITHIN_QUOTA)

    def test_a_request_without_a_user_gets_no_user_key_response(self) -> None:
        decision = self.decide(sasl_username="")
        self.assertEqual(
            (decision.action, decision.reason), ("REJECT Rejected - Authentication failed", Reason.NO_USER)
        )

    def test_only_stages_with_an_instance_are_counted(self) -> None:
        for stage in ("CONNECT", "EHLO", "MAIL", "VRFY", "ETRN"):
            self.assertEqual(self.decide("", protocol_state=stage).reason, Reason.STAGE_NOT_JUDGED)
        self.assertEqual(self.decide().figures["used"], 1)

    def test_the_null_sender_counts_for_its_user_and_needs_null_sender_ok_without_one(self) -> None:
        self.assertEqual(self.decide("i1", sender="").reason, Reason.WITHIN_QUOTA)
        self.assertEqual(self.decide("i2", sender="", sasl_username="").reason, Reason.NO_USER)
        self.policy = self.make(null_sender_ok=True)
        self.assertEqual(self.decide("i3", sender="").figures["used"], 2)
        self.assertEqual(self.decide("i4", sender="", sasl_username="").reason, Reason.NULL_SENDER_ACCEPTED)

    def test_cached_limits_apply_while_the_database_is_unavailable(self) -> None:
        self.decide("i1")
        self.book.away = True
        self.assertEqual(self.decide("i2").reason, Reason.WITHIN_QUOTA)
        unknown = Deferred.fromCoroutine(self.decision(self.policy, self.request(sasl_username="new")))
        self.failureResultOf(unknown, BookUnavailable)

    def test_explain_returns_the_same_and_counts_nothing(self) -> None:
        for instance in ("i1", "i2", "i3", "i4"):
            request = self.request(instance)
            explained = self.run_now(self.explanation(self.policy, request))
            self.assertEqual(self.run_now(self.explanation(self.policy, request)), explained)
            decided = self.decide(instance)
            self.assertEqual((explained.action, explained.reason), (decided.action, decided.reason))

    def test_rejection_message_is_filled_in(self) -> None:
        text = "REJECT {user}: {used} of {limit} used, {remaining} left, again in {retry_after} s"
        self.policy = self.make(rejection_message=text)
        for number in range(3):
            self.decide(f"i{number}")
        self.clock.advance(86000.5)
        self.assertEqual(self.decide("i9").action, "REJECT bob: 3 of 3 used, 0 left, again in 400 s")

    def test_acceptance_message_is_filled_in(self) -> None:
        text = "PREPEND X-Quota: {user} {sender} {remaining} of {limit}, {used} used, wait {retry_after}"
        self.policy = self.make(acceptance_message=text, null_sender_ok=True)
        counted = "PREPEND X-Quota: bob bob@example.org 2 of 3, 1 used, wait 0"
        self.assertEqual([self.decide().action, self.decide().action], [counted, counted])
        nobody = self.decide("i2", sender="", sasl_username="")
        self.assertEqual(nobody.action, "PREPEND X-Quota: - - - of -, - used, wait 0")
        self.assertEqual(self.decide("i3", protocol_state="DATA", recipient_count="1").figures["used"], 2)

    def test_no_quota_and_unknown_user_have_their_own_messages(self) -> None:
        for user, told in (("free", "free has no quota for outgoing mail"), ("eve", "eve may not send mail here")):
            for _ in range(2):
                self.assertEqual(self.decide(sasl_username=user).action, f"REJECT Rejected - {told}; ask your provider")
        self.policy = self.make(no_quota_message="450 {user} {limit}", unknown_user_message="550 {sender}?")
        self.assertEqual(self.decide(sasl_username="free").action, "450 free 0")
        self.assertEqual(self.decide(sasl_username="eve").action, "550 bob@example.org?")

    def test_a_refusal_contains_the_wait_in_words(self) -> None:
        for number in range(3):
            self.decide(f"i{number}")
        self.clock.advance(75_000)
        told = "REJECT Rejected - outbound quota fulfilled: 3 of 3 used, try again in 4 hours"
        self.assertEqual(self.decide("i9").action, told)

    def test_a_message_that_can_never_fit_gets_too_large_message(self) -> None:
        told = "REJECT Rejected - this message alone is more than the outbound quota of 3"
        whole = {"protocol_state": "DATA", "recipient": ""}
        self.assertEqual(self.decide("i1", **whole, recipient_count="4").action, told)
        self.decide("i2")
        self.assertEqual(self.decide("i3", **whole, recipient_count="4").action, told)
        self.assertIn("try again in", self.decide("i4", **whole, recipient_count="3").action)
        self.policy = self.make(margin=parse_margin("50%"))
        self.assertIn("try again in", self.decide("i5", **whole, recipient_count="4").action)
        self.assertEqual(self.decide("i6", **whole, recipient_count="5").action, told)
        self.book.quotas["none"] = 0
        self.assertTrue(self.decide("i7", sasl_username="none").action.endswith("more than the outbound quota of 0"))
