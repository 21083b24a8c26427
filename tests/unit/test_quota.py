"""Who has sent too much: the policy over the embedded store. How it counts is tested with the stores."""

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
from tests.support.policy_case import PolicyCase


class QuotaTests(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.quotas = {"bob": 3, "free": None}
        self.policy = self.make()

    def make(self, **options: object) -> OutboundQuotaPolicy:
        options.setdefault("margin", parse_margin("0"))
        section = dataclasses.replace(Section(), **options)  # type: ignore[arg-type]
        self.settings = Settings(chapps=Chapps(), oqp=section)
        return OutboundQuotaPolicy(self.settings, self.state, self.book)

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
        return self.run_now(self.policy.decide(self.request(instance, **attributes)))

    def test_a_user_sends_as_much_as_the_quota_says(self) -> None:
        reasons = [self.decide(f"i{number}").reason for number in range(4)]
        self.assertEqual(reasons, [Reason.WITHIN_QUOTA] * 3 + [Reason.QUOTA_EXCEEDED])

    def test_the_figures_say_what_was_counted(self) -> None:
        self.assertEqual(self.decide().figures, {"limit": 3, "used": 1, "remaining": 2})
        refused = [self.decide(f"i{number}") for number in range(2, 5)][-1]
        self.assertEqual(refused.figures, {"limit": 3, "used": 3, "remaining": 0, "wait": 86400})

    def test_each_recipient_counts_once_however_often_it_is_asked(self) -> None:
        for _ in range(3):
            self.decide(recipient="a@x")
            self.decide(recipient="b@x")
        decision = self.decide(recipient="b@x")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.COUNTED_BEFORE, 2))

    def test_the_last_stage_says_what_a_message_costs(self) -> None:
        for recipient in ("a@x", "b@x", "c@x"):
            self.decide(recipient=recipient)
        self.assertEqual(self.decide(protocol_state="DATA", recipient="", recipient_count="2").figures["used"], 2)
        decision = self.decide(protocol_state="END-OF-MESSAGE", recipient="", recipient_count="2")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.COUNTED_BEFORE, 2))

    def test_all_of_a_message_is_counted_or_none(self) -> None:
        decision = self.decide(protocol_state="DATA", recipient="", recipient_count="4")
        self.assertEqual((decision.reason, decision.figures["used"]), (Reason.QUOTA_EXCEEDED, 0))
        self.assertEqual(self.decide("i2", protocol_state="DATA", recipient_count="3").reason, Reason.WITHIN_QUOTA)

    def test_messages_are_counted_instead_when_recipients_are_not(self) -> None:
        self.policy = self.make(counting_recipients=False)
        for recipient in ("a@x", "b@x", "c@x", "d@x"):
            self.assertEqual(self.decide(recipient=recipient).figures["used"], 1)
        decision = self.decide(protocol_state="DATA", recipient="", recipient_count="4")
        self.assertEqual(decision.figures["used"], 1)

    def test_a_message_that_begins_below_the_limit_may_use_the_margin(self) -> None:
        self.policy = self.make(margin=parse_margin("2"))
        self.decide("i1")
        self.assertEqual(self.decide("i2", protocol_state="DATA", recipient_count="4").figures["used"], 5)
        self.assertEqual(self.decide("i3").reason, Reason.QUOTA_EXCEEDED)

    def test_messages_must_keep_their_distance(self) -> None:
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

    def test_a_user_without_quota_and_an_unknown_one_have_their_own_reasons(self) -> None:
        for _ in range(2):
            self.assertEqual(self.decide(sasl_username="free").reason, Reason.NO_QUOTA)
            self.assertEqual(self.decide(sasl_username="eve").reason, Reason.UNKNOWN_USER)
            self.assertTrue(self.decide(sasl_username="eve").stops)
        self.assertEqual(self.book.asked, 2)
        self.book.quotas["eve"] = 5
        self.clock.advance(61)
        self.assertEqual(self.decide(sasl_username="eve").reason, Reason.WITHIN_QUOTA)

    def test_nobody_gets_the_answer_for_nobody(self) -> None:
        decision = self.decide(sasl_username="")
        self.assertEqual(
            (decision.action, decision.reason), ("REJECT Rejected - Authentication failed", Reason.NO_USER)
        )

    def test_only_stages_with_an_instance_are_counted(self) -> None:
        for stage in ("CONNECT", "EHLO", "MAIL", "VRFY", "ETRN"):
            self.assertEqual(self.decide("", protocol_state=stage).reason, Reason.STAGE_NOT_JUDGED)
        self.assertEqual(self.decide().figures["used"], 1)

    def test_the_null_sender_counts_for_its_user_and_passes_without_one_only_when_it_may(self) -> None:
        self.assertEqual(self.decide("i1", sender="").reason, Reason.WITHIN_QUOTA)
        self.assertEqual(self.decide("i2", sender="", sasl_username="").reason, Reason.NO_USER)
        self.policy = self.make(null_sender_ok=True)
        self.assertEqual(self.decide("i3", sender="").figures["used"], 2)
        self.assertEqual(self.decide("i4", sender="", sasl_username="").reason, Reason.NULL_SENDER_ACCEPTED)

    def test_known_limits_hold_while_the_database_is_away(self) -> None:
        self.decide("i1")
        self.book.away = True
        self.assertEqual(self.decide("i2").reason, Reason.WITHIN_QUOTA)
        unknown = Deferred.fromCoroutine(self.policy.decide(self.request(sasl_username="new")))
        self.failureResultOf(unknown, BookUnavailable)

    def test_explaining_answers_the_same_and_counts_nothing(self) -> None:
        for instance in ("i1", "i2", "i3", "i4"):
            request = self.request(instance)
            explained = self.run_now(self.policy.explain(request))
            self.assertEqual(self.run_now(self.policy.explain(request)), explained)
            decided = self.decide(instance)
            self.assertEqual((explained.action, explained.reason), (decided.action, decided.reason))

    def test_messages_tell_limit_use_and_when_to_try_again(self) -> None:
        text = "REJECT {user}: {used} of {limit} used, {remaining} left, again in {retry_after} s"
        self.policy = self.make(rejection_message=text)
        for number in range(3):
            self.decide(f"i{number}")
        self.clock.advance(86000.5)
        self.assertEqual(self.decide("i9").action, "REJECT bob: 3 of 3 used, 0 left, again in 400 s")

    def test_acceptance_tells_the_same_figures(self) -> None:
        text = "PREPEND X-Quota: {user} {sender} {remaining} of {limit}, {used} used, wait {retry_after}"
        self.policy = self.make(acceptance_message=text, null_sender_ok=True)
        counted = "PREPEND X-Quota: bob bob@example.org 2 of 3, 1 used, wait 0"
        self.assertEqual([self.decide().action, self.decide().action], [counted, counted])
        nobody = self.decide("i2", sender="", sasl_username="")
        self.assertEqual(nobody.action, "PREPEND X-Quota: - - - of -, - used, wait 0")
        self.assertEqual(self.decide("i3", protocol_state="DATA", recipient_count="1").figures["used"], 2)

    def test_who_has_no_quota_and_who_is_unknown_are_told_so(self) -> None:
        for user, told in (("free", "free has no quota for outgoing mail"), ("eve", "eve may not send mail here")):
            for _ in range(2):
                self.assertEqual(self.decide(sasl_username=user).action, f"REJECT Rejected - {told}; ask your provider")
        self.policy = self.make(no_quota_message="450 {user} {limit}", unknown_user_message="550 {sender}?")
        self.assertEqual(self.decide(sasl_username="free").action, "450 free 0")
        self.assertEqual(self.decide(sasl_username="eve").action, "550 bob@example.org?")

    def test_a_refusal_says_in_words_when_to_try_again(self) -> None:
        for number in range(3):
            self.decide(f"i{number}")
        self.clock.advance(75_000)
        told = "REJECT Rejected - outbound quota fulfilled: 3 of 3 used, try again in 4 hours"
        self.assertEqual(self.decide("i9").action, told)

    def test_nobody_is_told_to_wait_for_room_that_will_never_be(self) -> None:
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
