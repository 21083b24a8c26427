"""Limits on mail of any kind, with the embedded store."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import CancelledError, Deferred

from chapps_tw.config.limits import RateLimit, parse_match, parse_window
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Exemption
from chapps_tw.interfaces.state import Unit
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events, LimitEvent
from chapps_tw.policies.exemptions import Exemptions
from chapps_tw.policies.limit_rules import Rule
from chapps_tw.policies.rate_limit import RateLimitPolicy
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.slots import PolicySlot
from chapps_tw.postfix.pipeline import Pipeline
from tests.support.policy_case import PolicyCase
from tests.support.replies import answer_of


def limit(name: str, per: str = "client", amount: int = 2, match: str = "", **options: object) -> RateLimit:
    window = parse_window("10m")
    made = RateLimit(name=name, per=per, unit=Unit.MESSAGES, amount=amount, window=window, match=parse_match(match))
    return replace(made, **options)  # type: ignore[arg-type]


async def settled(request: OutboundPPR, decision: Decision) -> Decision:
    return decision


class RateLimitCase(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.noted: list[LimitEvent] = []
        self.failures: list[Exception] = []
        self.addCleanup(lambda: self.assertEqual(self.failures, []))

    def use(self, *limits: RateLimit) -> None:
        """Have a listener with these limits."""
        clock = self.clock.seconds
        self.settings = Settings(limits=limits)
        policy = RateLimitPolicy(
            self.settings,
            Events(self.state, clock, clock, Deferred.fromCoroutine, self.noted.append),
            Reservations(self.settings.rlp.reservation_ttl, clock),
            Exemptions(self.state, self.book, clock).of,
        )
        self.pipeline = Pipeline(
            "limits",
            [PolicySlot(policy, both=True)],
            lambda request: None,
            lambda name, error: self.failures.append(error),
            CancelledError,
            settled,
            self.state,
        )

    def request(self, instance: str = "i1", stage: str = "RCPT", **attributes: str) -> OutboundPPR:
        named = {"recipient": "x@example.net"} if stage == "RCPT" else {"recipient_count": "1"}
        base = {"protocol_state": stage, "client_address": "192.0.2.7", "instance": instance, "sender": "a@example.org"}
        return OutboundPPR({**base, **named, **attributes}, cfg=self.settings)

    def decide(self, instance: str = "i1", stage: str = "RCPT", **attributes: str) -> Decision:
        return self.run_now(answer_of(self.pipeline, self.request(instance, stage, **attributes))).decision

    def explain(self, instance: str = "i1", stage: str = "RCPT", **attributes: str) -> Decision:
        return self.run_now(self.pipeline.explain(self.request(instance, stage, **attributes))).decision

    def used(self, rule: RateLimit, what: str) -> int:
        async def usage() -> int:
            return (await self.state.usage([Rule(rule, self.settings).window(what)]))[0].used

        return self.run_now(usage())


class DecisionTests(RateLimitCase):
    def test_mail_within_the_limit_passes_and_more_is_deferred_until_there_is_room(self) -> None:
        self.use(limit("flood"))
        self.assertEqual(
            [self.decide(f"i{n}").reason for n in range(3)], [Reason.WITHIN_LIMITS] * 2 + [Reason.RATE_LIMITED]
        )
        self.clock.advance(600)
        self.assertEqual(self.decide("i4").reason, Reason.WITHIN_LIMITS)

    def test_a_decision_has_figures_and_names_the_limit_and_what_it_counts(self) -> None:
        self.use(limit("flood"))
        first = self.decide("i1")
        self.assertEqual((first.action, first.figures), ("DUNNO", {"limit": 2, "used": 1, "remaining": 1}))
        self.assertEqual(first.detail, "limit flood, client 192.0.2.7")
        self.decide("i2")
        self.clock.advance(60)
        refused = self.decide("i3")
        self.assertEqual(refused.figures, {"limit": 2, "used": 2, "remaining": 0, "wait": 540})
        self.assertEqual(refused.detail, "limit flood, client 192.0.2.7")
        self.assertEqual(
            refused.action, "DEFER_IF_PERMIT Rate limit exceeded: 2 of 2 in 10 minutes, try again in 9 minutes"
        )

    def test_a_repeated_request_costs_nothing(self) -> None:
        self.use(limit("flood"))
        self.decide()
        self.assertEqual(self.decide().reason, Reason.COUNTED_BEFORE)
        self.assertEqual(self.decide(stage="DATA").figures["used"], 1)

    def test_a_request_to_which_no_limit_applies_passes(self) -> None:
        self.use(limit("flood", match="sasl_username:!empty"))
        self.assertEqual((self.decide().action, self.decide().reason), ("DUNNO", Reason.NOT_LIMITED))

    def test_a_request_before_there_is_a_message_is_not_judged(self) -> None:
        self.use(limit("flood"))
        self.assertEqual(self.decide(stage="MAIL").reason, Reason.STAGE_NOT_JUDGED)

    def test_what_is_counted_apart_is_limited_apart(self) -> None:
        self.use(limit("flood", amount=1))
        self.decide("i1")
        self.assertEqual(self.decide("i2", client_address="192.0.2.8").reason, Reason.WITHIN_LIMITS)
        self.assertEqual(self.decide("i3").reason, Reason.RATE_LIMITED)

    def test_all_limits_are_charged_or_none(self) -> None:
        wide, narrow = limit("wide", "everybody", 9), limit("narrow", amount=1)
        self.use(wide, narrow)
        self.decide("i1")
        refused = self.decide("i2")
        self.assertEqual(refused.detail, "limit narrow, client 192.0.2.7")
        self.assertEqual(self.used(wide, "everybody"), 1)

    def test_mail_that_passes_shows_the_limit_of_which_most_is_used(self) -> None:
        self.use(limit("wide", "everybody", 9), limit("narrow", amount=3))
        self.assertEqual(self.decide().detail, "limit narrow, client 192.0.2.7")

    def test_limits_of_several_windows_hold_together(self) -> None:
        self.use(limit("short", amount=1), limit("long", amount=2, window=parse_window("1h")))
        reasons = []
        for number in range(4):
            reasons.append(self.decide(f"i{number}").detail)
            self.clock.advance(601)
        self.assertEqual(reasons[:2], ["limit short, client 192.0.2.7"] * 2)
        self.assertEqual(reasons[2:], ["limit long, client 192.0.2.7"] * 2)

    def test_bytes_are_counted_at_the_end_of_the_message(self) -> None:
        big = limit("big", amount=5000, unit=Unit.BYTES)
        self.use(big)
        self.assertEqual(self.decide(size="9999").reason, Reason.NOT_LIMITED)
        self.assertEqual(self.decide("i1", "END-OF-MESSAGE", size="2000", recipient_count="2").figures["used"], 4000)
        self.assertEqual(self.decide("i2", "END-OF-MESSAGE", size="2000").reason, Reason.RATE_LIMITED)
        self.assertEqual(self.used(big, "192.0.2.7"), 4000)

    def test_distinct_recipients_count_once(self) -> None:
        self.use(limit("many", unit=Unit.DISTINCT_RECIPIENTS))
        names = ("a", "A", "b", "a", "c")
        found = [self.decide(f"i{place}", recipient=f"{name}@x.example").reason for place, name in enumerate(names)]
        self.assertEqual(found[:4], [Reason.WITHIN_LIMITS, found[1], Reason.WITHIN_LIMITS, found[3]])
        self.assertNotIn(Reason.RATE_LIMITED, found[:4])
        self.assertEqual(found[4], Reason.RATE_LIMITED)


class ActionTests(RateLimitCase):
    def exceed(self, **options: object) -> str:
        """Return the action of a message over a limit of one."""
        made = limit(f"n{len(options)}", amount=1)
        self.use(replace(made, **options))  # type: ignore[arg-type]
        self.decide("i1")
        return self.decide("i2").action

    def test_the_action_is_the_one_of_the_limit(self) -> None:
        text = "Rate limit exceeded: 1 of 1 in 10 minutes, try again in 10 minutes"
        self.assertEqual(self.exceed(action="refuse"), f"REJECT {text}")
        self.assertEqual(self.exceed(action="defer", warn_at=0), f"DEFER_IF_PERMIT {text}")
        self.assertEqual(self.exceed(action="hold", warn_at=0, mode="enforce"), f"HOLD {text}")

    def test_a_whole_answer_is_sent_as_it_is_with_its_figures(self) -> None:
        told = self.exceed(action="450 4.7.1 {limit_name}: {used}/{limit} in {window}, {retry_after} s = {retry_in}")
        self.assertEqual(told, "450 4.7.1 n1: 1/1 in 10 minutes, 600 s = 10 minutes")

    def test_the_text_is_that_of_the_limit(self) -> None:
        self.assertEqual(
            self.exceed(action="refuse", message="4.7.1 Slow down ({limit_name})"), "REJECT 4.7.1 Slow down (n2)"
        )

    def test_a_message_that_no_wait_helps_is_refused_and_not_deferred_for_days(self) -> None:
        self.use(limit("big", amount=10, unit=Unit.RECIPIENTS))
        decision = self.decide("i1", "DATA", recipient_count="11")
        self.assertEqual(decision.action, "REJECT This message alone exceeds the limit of 10 in 10 minutes")
        self.assertEqual(decision.figures["wait"], 0)
        self.assertEqual(self.noted, [])

    def test_a_message_that_no_wait_helps_is_held_if_others_are(self) -> None:
        self.use(limit("big", amount=10, unit=Unit.RECIPIENTS, action="hold"))
        told = self.decide("i1", "DATA", recipient_count="11").action
        self.assertEqual(told, "HOLD This message alone exceeds the limit of 10 in 10 minutes")


class ShadowTests(RateLimitCase):
    def test_a_limit_in_shadow_mode_lets_mail_pass_and_tells_what_it_would_have_done(self) -> None:
        self.use(limit("flood", amount=1, mode="shadow", action="450 4.7.1 No"))
        self.decide("i1")
        decision = self.decide("i2")
        self.assertEqual((decision.action, decision.shadow), ("DUNNO", "450 4.7.1 No"))
        self.assertEqual((decision.reason, decision.stops), (Reason.RATE_LIMITED, False))

    def test_a_limit_in_shadow_mode_that_is_exceeded_does_not_keep_others_from_counting(self) -> None:
        real = limit("real", amount=5)
        self.use(limit("trial", amount=1, mode="shadow"), real)
        for number in range(3):
            self.decide(f"i{number}")
        self.assertEqual(self.used(real, "192.0.2.7"), 3)

    def test_a_limit_in_shadow_mode_counts_what_others_let_pass(self) -> None:
        trial = limit("trial", amount=9, mode="shadow")
        self.use(trial, limit("real", amount=2))
        for number in range(4):
            self.decide(f"i{number}")
        self.assertEqual(self.used(trial, "192.0.2.7"), 2)

    def test_a_limit_in_shadow_mode_does_not_hide_that_mail_is_to_be_held(self) -> None:
        trials = [limit(name, amount=0, mode="shadow") for name in ("before", "after")]
        self.use(trials[0], limit("held", amount=1, action="hold", message="wait"), trials[1])
        self.decide("i1")
        self.assertEqual(self.decide("i2").action, "HOLD wait")

    def test_the_figures_are_those_of_a_limit_that_is_enforced_if_one_applies(self) -> None:
        self.use(limit("trial", amount=9, mode="shadow"), limit("real"))
        self.assertEqual(self.decide().detail, "limit real, client 192.0.2.7")
        self.use(limit("trial", amount=9, mode="shadow"), limit("real", match="sasl_username:!empty"))
        self.assertEqual(self.decide("i2").detail, "limit trial, client 192.0.2.7")


class ExplainTests(RateLimitCase):
    def test_an_explanation_is_the_decision_and_changes_nothing(self) -> None:
        flood = limit("flood", amount=1)
        self.use(flood)
        self.assertEqual(self.explain("i1").reason, Reason.WITHIN_LIMITS)
        self.assertEqual(self.used(flood, "192.0.2.7"), 0)
        self.decide("i1")
        self.assertEqual(self.explain("i2"), self.decide("i2"))
        self.assertEqual(self.used(flood, "192.0.2.7"), 1)

    def test_an_explanation_at_data_does_not_make_later_costs_reservations(self) -> None:
        flood = limit("flood", amount=9, window=parse_window("1d"))
        self.use(flood)
        self.explain("i1", "DATA")
        self.decide("i2")
        self.clock.advance(601)
        self.assertEqual(self.used(flood, "192.0.2.7"), 1)


class ReservationTests(RateLimitCase):
    def test_where_whole_messages_are_asked_about_a_message_that_is_given_up_costs_nothing_in_the_end(self) -> None:
        flood = limit("flood", amount=9, window=parse_window("1d"))
        self.use(flood)
        self.decide("i1", "DATA")
        self.decide("given up")
        self.assertEqual(self.used(flood, "192.0.2.7"), 2)
        self.clock.advance(601)
        self.assertEqual(self.used(flood, "192.0.2.7"), 1)

    def test_what_no_later_request_settles_is_not_given_back(self) -> None:
        inbox = limit("inbox", "recipient", 9, window=parse_window("1d"))
        self.use(inbox)
        self.decide("i1", "DATA", recipient="x@example.net")
        self.decide("two recipients")
        self.clock.advance(601)
        self.assertEqual(self.used(inbox, "x@example.net"), 2)


class ExemptionTests(RateLimitCase):
    def exempt(self, scope: str) -> None:
        self.book.exempt = [Exemption(7, "client", "192.0.2.0/24", scope, 1_800_000_000.0, "a partner", "ann")]

    def test_an_exempt_client_is_not_limited(self) -> None:
        flood = limit("flood", amount=1)
        self.use(flood)
        self.exempt("limit:flood")
        decisions = [self.decide(f"i{number}") for number in range(3)]
        self.assertEqual(
            {(each.reason, each.detail) for each in decisions}, {(Reason.EXEMPTED, "exemption 7: a partner")}
        )
        self.assertEqual(self.used(flood, "192.0.2.7"), 0)

    def test_an_exemption_from_one_limit_is_none_from_others(self) -> None:
        self.use(limit("flood", amount=1), limit("other", amount=2))
        self.exempt("limit:flood")
        found = [self.decide(f"i{number}").detail for number in range(3)]
        self.assertEqual(found, ["limit other, client 192.0.2.7"] * 3)


class EventTests(RateLimitCase):
    def kinds(self) -> list[tuple[str, str, int]]:
        return [(event.kind, event.account, event.used) for event in self.noted]

    def test_a_limit_that_is_almost_reached_and_reached_is_an_event_once_in_its_window(self) -> None:
        self.use(limit("flood", amount=5))
        for number in range(8):
            self.decide(f"i{number}")
        account = "flood:192.0.2.7"
        self.assertEqual(self.kinds(), [("near_limit", account, 4), ("at_limit", account, 5)])
        self.clock.advance(601)
        for number in range(8, 12):
            self.decide(f"i{number}")
        self.assertEqual(self.kinds()[2:], [("near_limit", account, 4)])

    def test_warn_at_zero_is_no_event(self) -> None:
        self.use(limit("flood", amount=1, warn_at=0))
        for number in range(3):
            self.decide(f"i{number}")
        self.assertEqual(self.noted, [])

    def test_an_explanation_is_no_event(self) -> None:
        self.use(limit("flood", amount=1))
        self.explain()
        self.assertEqual(self.noted, [])
