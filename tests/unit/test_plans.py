"""Plans of users, domains and pools, their limits and overrides, with the embedded store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import Deferred

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.config.values import parse_margin
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import BookUnavailable, DomainPlan, Limit, Override, Plan, UserPlan
from chapps_tw.interfaces.state import Account, Fresh, Unit, Window
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import LimitEvent
from chapps_tw.policies.quota_answers import with_action
from chapps_tw.policies.refresh import Refresh
from tests.support.policy_case import PolicyCase, quota_policy

T = TypeVar("T")

HOUR, DAY = 3600, 86400
ANN, BEN = "ann@example.org", "ben@example.org"


class PlanCase(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[LimitEvent] = []
        self.sent = 0
        self.make()

    def make(self, **options: object) -> None:
        options.setdefault("margin", parse_margin("0"))
        section = dataclasses.replace(Section(), **options)  # type: ignore[arg-type]
        self.settings = Settings(oqp=section)
        due = Refresh(60.0, self.clock.seconds).is_due
        self.policy = quota_policy(self, self.settings, due, self.events)

    def give(self, user: str, quota: int | None, *limits: Limit, overrides: tuple[Override, ...] = ()) -> None:
        """Give a user a plan of his own."""
        self.book.plans[1] = Plan(1, "basic", quota, limits)
        self.book.users[user] = UserPlan(True, 1, overrides)

    def give_domain(self, each: Plan | None, pool: Plan | None, *overrides: Override) -> None:
        for plan in (each, pool):
            if plan:
                self.book.plans[plan.id] = plan
        self.book.domains["example.org"] = DomainPlan(each and each.id, pool and pool.id, overrides)

    def request(self, user: str, recipients: int = 1, stage: str = "DATA", **attributes: str) -> OutboundPPR:
        return OutboundPPR(
            {
                "protocol_state": stage,
                "sender": "sales@example.net",
                "recipient": "",
                "recipient_count": str(recipients),
                "sasl_username": user,
                "instance": f"i{self.sent}",
            }
            | attributes,
            cfg=self.settings,
        )

    def send(self, user: str = ANN, recipients: int = 1, stage: str = "DATA", **attributes: str) -> Decision:
        """Decide about a new message. Before that, the explanation is the same."""
        self.sent += 1
        request = self.request(user, recipients, stage, **attributes)
        explained = self.run_now(self.explanation(self.policy, request))
        decided = self.run_now(self.decision(self.policy, request))
        self.assertEqual(explained[:2], decided[:2])
        self.assertEqual(explained.detail, decided.detail)
        return decided

    def decide(self, user: str = ANN) -> Decision:
        """Decide about a new message."""
        self.sent += 1
        return self.run_now(self.decision(self.policy, self.request(user)))

    def rcpt(self, recipient: str, user: str = ANN) -> Decision:
        return self.send(user, 0, "RCPT", recipient=recipient)

    def reasons(self, times: int, user: str = ANN) -> list[str]:
        return [self.send(user).reason for _ in range(times)]

    def used(self, space: str, name: str, unit: Unit = Unit.RECIPIENTS, seconds: float = DAY) -> int:
        [usage] = self.run_now(self._await(self.state.usage([Window(Account(space, name), unit, seconds)])))
        return usage.used

    async def _await(self, awaitable: Awaitable[T]) -> T:
        return await awaitable


def limit(name: str, unit: str, amount: int, window: int, action: str = "refuse") -> Limit:
    return Limit(name, unit, amount, window, action)


def override(
    id: int, kind: str, value: int = 0, limit: str = "", begin: float = 0.0, until: float = 2e9, action: str = "refuse"
) -> Override:
    return Override(id, kind, value, limit, begin, until, "unpaid", action)


OVER, WITHIN = Reason.QUOTA_EXCEEDED, Reason.WITHIN_QUOTA


class LimitTests(PlanCase):
    def test_an_hour_and_a_day_hold_at_once(self) -> None:
        self.give(ANN, 5, limit("hour", "recipients", 2, HOUR))
        self.assertEqual(self.reasons(3), [WITHIN, WITHIN, OVER])
        self.clock.advance(HOUR)
        self.assertEqual(self.reasons(3), [WITHIN, WITHIN, OVER])
        self.clock.advance(HOUR)
        decisions = [self.send() for _ in range(2)]
        self.assertEqual([each.reason for each in decisions], [WITHIN, OVER])
        self.assertEqual(decisions[1].detail, "user:basic")
        self.assertEqual(decisions[1].figures, {"limit": 5, "used": 5, "remaining": 0, "wait": DAY - 2 * HOUR})

    def test_an_accepted_message_has_the_figures_of_the_tightest_limit(self) -> None:
        self.give(ANN, 10, limit("hour", "recipients", 4, HOUR))
        decision = self.send()
        self.assertEqual(decision.figures, {"limit": 4, "used": 1, "remaining": 3})
        self.assertEqual(decision.detail, "user:basic/hour")

    def test_what_a_limit_refuses_is_counted_in_no_other(self) -> None:
        self.give(ANN, 10, limit("hour", "recipients", 2, HOUR))
        self.give_domain(None, Plan(2, "shared", 100, ()))
        self.reasons(5)
        self.assertEqual((self.used("oqp", ANN), self.used("pool", "example.org")), (2, 2))

    def test_a_refusal_names_limit_window_and_level(self) -> None:
        self.make(margin=parse_margin("0"), rejection_message="REJECT {level}: {limit} in {window} ({limit_name})")
        self.give(ANN, None, limit("burst", "recipients", 1, 90))
        self.send()
        self.assertEqual(self.send().action, "REJECT user: 1 in 90 seconds (burst)")
        self.give_domain(None, Plan(2, "shared", 0, ()))
        self.clock.advance(61)
        self.make(too_large_message="REJECT {level}: {limit} in {window} ({limit_name})")
        self.assertEqual(self.decide().action, "REJECT domain pool: 0 in 1 day (shared)")

    def test_only_the_number_of_a_quota_has_a_margin(self) -> None:
        self.make(margin=parse_margin("100%"))
        self.give(ANN, 4, limit("hour", "recipients", 5, HOUR))
        self.assertEqual(self.send(recipients=5).reason, WITHIN)
        self.clock.advance(DAY)
        self.assertEqual(self.send(recipients=6).reason, OVER)

    def test_bytes_are_judged_at_the_end_for_each_recipient(self) -> None:
        self.give(ANN, None, limit("volume", "bytes", 1000, DAY))
        decision = self.send()
        self.assertEqual((decision.reason, decision.detail), (Reason.STAGE_NOT_JUDGED, "user:basic/volume"))
        self.assertEqual(self.send(ANN, 3, "END-OF-MESSAGE", size="300").figures["used"], 900)
        self.assertEqual(self.send(ANN, 1, "END-OF-MESSAGE", size="300").reason, OVER)

    def test_distinct_recipients_are_judged_where_one_is_named(self) -> None:
        self.give(ANN, None, limit("people", "distinct_recipients", 2, HOUR))
        told = [self.rcpt(name).reason for name in ("a@x.example", "b@x.example", "a@x.example", "c@x.example")]
        self.assertEqual(told, [WITHIN, WITHIN, Reason.COUNTED_BEFORE, OVER])
        self.assertEqual(self.send(recipients=9).reason, Reason.STAGE_NOT_JUDGED)

    def test_it_is_known_at_which_stages_the_limits_of_those_who_sent_are_judged(self) -> None:
        self.give(ANN, None, limit("volume", "bytes", 1000, DAY))
        self.assertEqual(list(self.policy.needs), [])
        self.send()
        (need,) = self.policy.needs
        self.assertEqual(need.stages, {"END-OF-MESSAGE"})

    def test_messages_are_counted_apart_from_recipients(self) -> None:
        self.give(ANN, 100, limit("letters", "messages", 2, HOUR))
        self.assertEqual([self.send(recipients=9).reason for _ in range(3)], [WITHIN, WITHIN, OVER])
        self.assertEqual(self.used("oqp", ANN), 18)
        self.assertEqual(self.used("oqp.messages", ANN, Unit.MESSAGES), 2)

    def test_min_delta_holds_whatever_limits_there_are(self) -> None:
        self.make(min_delta=10.0)
        self.give(ANN, None, limit("hour", "recipients", 5, HOUR))
        self.assertEqual(self.reasons(2), [WITHIN, Reason.TOO_SOON])

    def test_a_limit_may_defer_or_hold(self) -> None:
        self.give(ANN, None, limit("hour", "recipients", 1, HOUR, "defer"), limit("day", "recipients", 2, DAY, "hold"))
        self.send()
        told = "DEFER_IF_PERMIT Rejected - outbound quota fulfilled: 1 of 1 used, try again in 60 minutes"
        self.assertEqual(self.send().action, told)
        for _ in range(2):
            self.clock.advance(HOUR)
            held = self.send()
        self.assertEqual(held.action[:44], "HOLD Rejected - outbound quota fulfilled: 2 ")

    def test_actions_keep_the_text(self) -> None:
        for text, action, wanted in (
            ("REJECT over", "refuse", "REJECT over"),
            ("550 5.7.1 over", "defer", "DEFER_IF_PERMIT over"),
            ("554 over", "defer", "DEFER_IF_PERMIT over"),
            ("450 4.7.1 over", "defer", "450 4.7.1 over"),
            ("DEFER over", "defer", "DEFER over"),
            ("550 5.7.1 over", "hold", "HOLD over"),
            ("DISCARD", "hold", "HOLD "),
        ):
            self.assertEqual(with_action(text, action), wanted)


class LevelTests(PlanCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.plans[7] = Plan(7, "everybody", 1, ())

    def test_the_own_plan_comes_before_the_domain_s_and_that_before_the_default(self) -> None:
        self.make(default_quota="everybody")
        self.give_domain(Plan(2, "staff", 2, ()), None)
        self.give(ANN, 3)
        self.book.users[BEN] = UserPlan(True, None)
        told = {user: self.send(user).detail for user in (ANN, BEN, "eve@example.org", "eve@example.com")}
        self.assertEqual(list(told.values()), ["user:basic", "domain:staff", "domain:staff", "default:everybody"])
        self.assertEqual([self.reasons(1, "eve@example.com"), self.reasons(2, BEN)], [[OVER], [WITHIN, OVER]])

    def test_without_any_plan_nobody_sends(self) -> None:
        self.book.users[BEN] = UserPlan(True, None)
        self.assertEqual([self.send(BEN).reason, self.send(ANN).reason], [Reason.NO_QUOTA, Reason.UNKNOWN_USER])

    def test_a_default_that_does_not_exist_is_told(self) -> None:
        self.make(default_quota="nothing")
        decision = self.send()
        self.assertEqual(decision.reason, Reason.UNKNOWN_USER)
        self.assertEqual(decision.detail, "there is no quota nothing: see [OutboundQuotaPolicy] default_quota")

    def test_a_login_without_a_domain_has_that_of_the_sender(self) -> None:
        self.give_domain(Plan(2, "staff", 2, ()), None)
        self.assertEqual(self.send("eve", sender="x@example.org").detail, "domain:staff")
        self.assertEqual(self.send("eve", sender="x@example.com").reason, Reason.UNKNOWN_USER)
        self.assertEqual(self.send("eve", sender="").reason, Reason.UNKNOWN_USER)
        self.assertEqual(self.send("eve@example.com", sender="x@example.org").reason, Reason.UNKNOWN_USER)

    def test_a_pool_is_shared_in_addition_to_own_quotas(self) -> None:
        self.give_domain(Plan(2, "staff", 2, ()), Plan(3, "shared", 5, ()))
        users = (ANN, BEN, "cid@example.org")
        self.assertEqual([self.reasons(2, user) for user in users], [[WITHIN] * 2, [WITHIN] * 2, [WITHIN, OVER]])
        self.assertEqual(self.send(users[2]).detail, "pool:shared")
        self.assertEqual(self.send(ANN).figures["wait"], DAY)
        self.assertEqual(self.used("oqp", users[2]), 1)

    def test_who_is_covered_by_the_domain_sends_on_while_the_database_is_unavailable(self) -> None:
        self.give_domain(Plan(2, "staff", 1000, ()), None)
        self.send(ANN)
        self.book.away = True
        for _ in range(10):
            self.clock.advance(DAY / 12)
            self.assertEqual(self.send(ANN).reason, WITHIN)
        request = self.request("new@example.org")
        self.failureResultOf(Deferred.fromCoroutine(self.decision(self.policy, request)), BookUnavailable)

    def test_a_quota_that_was_deleted_counts_as_none(self) -> None:
        self.book.users[ANN] = UserPlan(True, 99)
        self.assertEqual(self.send().reason, Reason.NO_QUOTA)
        self.make(default_quota="everybody")
        self.assertEqual(self.send().detail, "default:everybody")

    def test_after_a_quota_is_deleted_the_next_level_applies_though_who_had_it_is_cached(self) -> None:
        self.make(default_quota="everybody")
        self.give(ANN, 9)
        self.give_domain(Plan(2, "staff", 9, ()), Plan(3, "shared", 9, ()))
        told = [self.send().detail]
        for quota in (1, 2, 7):
            name = self.book.plans.pop(quota).name
            keys = [value_keys.plan(quota), value_keys.plan_named(name)]
            self.run_now(self._await(self.state.drop_values(keys)))
            told += [self.send().detail for _ in range(2)]
        self.assertEqual(told[:5], ["user:basic", *["domain:staff"] * 2, *["default:everybody"] * 2])
        self.assertEqual(self.send().reason, Reason.NO_QUOTA)

    def test_in_place_of_a_quota_that_was_deleted_that_of_the_next_level_applies(self) -> None:
        self.make(default_quota="everybody")
        self.book.plans[7] = Plan(7, "everybody", 9, ())
        self.give_domain(Plan(2, "staff", 9, ()), Plan(3, "shared", 9, ()))
        self.give(ANN, 9)
        told = [self.send().detail]
        for quota in (1, 2):
            # What is cached of the user and of the domain still names it.
            del self.book.plans[quota]
            self.run_now(self.state.drop_values([value_keys.plan(quota)]))
            told.append(self.send().detail)
        self.assertEqual(told, ["user:basic", "domain:staff", "default:everybody"])
        self.assertEqual(self.used("pool", "example.org"), 3)


class OverrideTests(PlanCase):
    def test_extra_adds_until_it_is_over(self) -> None:
        self.give(ANN, 1, overrides=(override(4, "extra", 2, until=self.clock.seconds() + 50),))
        decisions = [self.send() for _ in range(4)]
        self.assertEqual([each.reason for each in decisions], [WITHIN] * 3 + [OVER])
        self.assertEqual((decisions[0].figures["limit"], decisions[0].detail), (3, "user:basic+extra:4"))
        self.clock.advance(50)
        self.assertEqual(self.send().figures["limit"], 1)

    def test_extra_may_be_for_one_limit_only(self) -> None:
        limits = (limit("hour", "recipients", 1, HOUR), limit("day", "recipients", 2, DAY))
        self.give(ANN, None, *limits, overrides=(override(4, "extra", 5, "hour"),))
        decisions = [self.send() for _ in range(3)]
        self.assertEqual([each.detail for each in decisions][-1], "user:basic/day")

    def test_extra_without_a_name_is_not_for_bytes(self) -> None:
        self.give(ANN, 5, limit("volume", "bytes", 10, DAY), overrides=(override(4, "extra", 1000),))
        decision = self.send(stage="END-OF-MESSAGE", size="11")
        self.assertEqual((decision.reason, decision.detail), (OVER, "user:basic/volume"))

    def test_unlimited_lifts_the_limits_and_counts_on(self) -> None:
        until = self.clock.seconds() + 50
        self.give(ANN, 1, overrides=(override(4, "unlimited", until=until),))
        decisions = [self.send() for _ in range(3)]
        self.assertEqual([each.reason for each in decisions], [WITHIN] * 3)
        self.assertEqual(decisions[2].figures, {"used": 3})
        self.clock.advance(50)
        self.assertEqual(self.send().figures, {"limit": 1, "used": 3, "remaining": 0, "wait": DAY - 50})

    def test_unlimited_needs_no_quota(self) -> None:
        self.book.users[ANN] = UserPlan(True, None, (override(4, "unlimited"),))
        self.assertEqual(self.send().reason, WITHIN)

    def test_a_suspended_user_is_told_why(self) -> None:
        until = self.clock.seconds() + 3 * HOUR
        self.give(ANN, 9, overrides=(override(4, "suspended", until=until),))
        decision = self.send()
        self.assertEqual(decision.reason, Reason.SUSPENDED)
        self.assertEqual(decision.action, f"REJECT Rejected - {ANN} is suspended from sending mail: unpaid")
        self.assertEqual((decision.detail, decision.figures), ("suspended:4", {"wait": 3 * HOUR}))
        self.clock.advance(3 * HOUR)
        self.assertEqual(self.send().figures["used"], 1)

    def test_a_suspension_may_defer_and_begin_later(self) -> None:
        begin = self.clock.seconds() + 30
        self.give(ANN, 9, overrides=(override(4, "suspended", begin=begin, action="defer"),))
        self.assertEqual(self.send().reason, WITHIN)
        self.clock.advance(30)
        self.assertEqual(self.send().verb, "DEFER_IF_PERMIT")

    def test_overrides_of_a_domain_are_for_its_pool_but_a_suspension_is_for_all(self) -> None:
        self.give(ANN, 2)
        self.give_domain(None, Plan(3, "shared", 1, ()), override(4, "extra", 9))
        self.assertEqual(self.reasons(3), [WITHIN, WITHIN, OVER])
        self.give_domain(None, None, override(5, "suspended"))
        self.clock.advance(61)
        self.assertEqual(self.decide().reason, Reason.SUSPENDED)


class CacheTests(PlanCase):
    def test_a_change_of_a_quota_is_in_force_for_all_who_have_it(self) -> None:
        self.give_domain(Plan(2, "staff", 1, ()), None)
        for user in (ANN, BEN):
            self.reasons(1, user)
        self.give_domain(Plan(2, "staff", 2, ()), None)
        self.run_now(self._await(self.state.drop_values([value_keys.plan(2)])))
        self.assertEqual([self.reasons(2, user) for user in (ANN, BEN)], [[WITHIN, OVER]] * 2)

    def test_a_change_made_in_the_database_is_in_force_after_a_period(self) -> None:
        self.give(ANN, 9)
        self.send()
        self.give(ANN, 9, limit("hour", "recipients", 1, HOUR))
        self.assertEqual(self.send().reason, WITHIN)
        self.clock.advance(61)
        self.assertEqual(self.decide().detail, "user:basic/hour")

    def test_what_cannot_be_read_is_read_from_the_book(self) -> None:
        self.give(ANN, 9)
        key = value_keys.user_plan(ANN)
        for text in ("", "5", "{}", "[1]", "[2,true,1,[]]", '[1,true,"1",[]]', "[1,true,1,[[1]]]", "[" * 100_000):
            [cached] = self.run_now(self._await(self.state.values([key])))
            self.run_now(self._await(self.state.keep_values([Fresh(key, text, cached.token)], 1000.0)))
            self.assertEqual(self.send().detail, "user:basic", text[:20])
            self.run_now(self._await(self.state.drop_values([key])))

    def test_an_explanation_caches_nothing(self) -> None:
        self.give(ANN, 9)
        for _ in range(2):
            self.assertEqual(self.run_now(self.explanation(self.policy, self.request(ANN))).source, "database")
        self.assertEqual((self.policy.looks, self.policy.misses), (2, 2))


class ReservationTests(PlanCase):
    def given_up(self, *stages: str, seconds: float = 600.0) -> int:
        """Have a message of another user judged at all stages; return what one counts that is given up after RCPT."""
        self.give(ANN, 9)
        self.book.users[BEN] = UserPlan(True, 1)
        for stage in stages:
            self.run_now(self.decision(self.policy, self.request(BEN, stage=stage, recipient="a@x.example")))
        self.run_now(self.decision(self.policy, self.request(ANN, stage="RCPT", recipient="a@x.example")))
        self.assertEqual(self.used("oqp", ANN), 1)
        self.clock.advance(seconds)
        return self.used("oqp", ANN)

    def test_what_was_given_up_is_given_back_where_data_is_asked_about(self) -> None:
        self.assertEqual(self.given_up("RCPT", "DATA"), 0)

    def test_it_is_given_back_where_the_end_is_asked_about(self) -> None:
        self.assertEqual(self.given_up("RCPT", "END-OF-MESSAGE"), 0)

    def test_it_is_given_back_after_the_time_that_is_configured(self) -> None:
        self.assertEqual(self.given_up("RCPT", "DATA", seconds=599.0), 1)

    def test_it_counts_where_rcpt_alone_is_asked_about(self) -> None:
        self.assertEqual(self.given_up("RCPT"), 1)

    def test_it_counts_if_that_is_off(self) -> None:
        self.make(reservation_ttl=0.0)
        self.assertEqual(self.given_up("RCPT", "DATA"), 1)

    def test_what_was_sent_stays(self) -> None:
        self.give(ANN, 9)
        for number in range(3):
            self.sent = number
            for stage in ("RCPT", "DATA"):
                self.run_now(self.decision(self.policy, self.request(ANN, stage=stage, recipient="a@x.example")))
        self.clock.advance(700)
        self.assertEqual(self.used("oqp", ANN), 3)

    def test_each_port_of_postfix_is_learned_by_itself(self) -> None:
        self.give(ANN, 9)
        for port, stage in (("587", "DATA"), ("25", "RCPT"), ("587", "RCPT")):
            self.sent += 1
            self.run_now(
                self.decision(self.policy, self.request(ANN, stage=stage, recipient="a@x.example", server_port=port))
            )
        self.clock.advance(700)
        self.assertEqual(self.used("oqp", ANN), 2)


class EventTests(PlanCase):
    def kinds(self) -> list[tuple[str, int]]:
        return [(event.kind, event.used) for event in self.events]

    def test_coming_near_and_reaching_a_limit_are_told_once_in_a_window(self) -> None:
        self.give(ANN, 10)
        for _ in range(12):
            self.send()
        self.assertEqual(self.kinds(), [("near_limit", 8), ("at_limit", 10)])
        self.clock.advance(DAY)
        self.send(recipients=9)
        self.assertEqual(self.kinds()[2:], [("near_limit", 9)])

    def test_an_event_names_whose_limit_it_is(self) -> None:
        self.give(ANN, None, limit("hour", "recipients", 1, HOUR))
        self.send()
        at = self.clock.seconds()
        wanted = LimitEvent("at_limit", "oqp", ANN, "hour", "user", 1, 1, HOUR, at, "recipients")
        self.assertEqual(self.events, [wanted])
        [text] = self.run_now(self._await(self.state.events(10)))
        self.assertEqual(json.loads(text), wanted._asdict())

    def test_a_message_that_does_not_fit_reaches_the_limit(self) -> None:
        self.give(ANN, 10)
        self.send(recipients=5)
        self.send(recipients=6)
        self.assertEqual(self.kinds(), [("at_limit", 5)])

    def test_a_message_that_never_fits_says_nothing_of_the_limit(self) -> None:
        self.give(ANN, 10)
        self.send(recipients=11)
        self.assertEqual(self.kinds(), [])

    def test_another_node_does_not_tell_it_again(self) -> None:
        self.give(ANN, 1)
        self.send()
        self.make()
        self.send()
        self.assertEqual(self.kinds(), [("at_limit", 1)])

    def test_the_percentage_is_configured_and_none_is_off(self) -> None:
        for percent, wanted in ((50, [("near_limit", 5), ("at_limit", 10)]), (0, [])):
            self.events.clear()
            self.clock.advance(DAY)
            self.make(warn_at=percent)
            self.give(ANN, 10)
            for _ in range(11):
                self.send()
            self.assertEqual(self.kinds(), wanted)
