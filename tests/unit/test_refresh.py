"""Comparison of cached values with the book, and their use while the database is unavailable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.config.settings import Settings
from chapps_tw.config.values import parse_margin
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.memo import size_of
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from chapps_tw.policies.spf import SPFEnforcementPolicy
from tests.support.policy_case import PolicyCase, quota_policy

PERIOD = 60.0
DAY = 86400.0


class RefreshTests(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.settings = Settings()
        self.settings = dataclasses.replace(
            self.settings, oqp=dataclasses.replace(self.settings.oqp, margin=parse_margin("0"))
        )
        self.book.quotas = {"bob": 9}
        self.book.senders = {"bob": {"example.org"}}
        self.book.flags = {"example.net": (False, False)}
        due = Refresh(PERIOD, self.clock.seconds).is_due
        self.quota = quota_policy(self, self.settings, due)
        due = Refresh(PERIOD, self.clock.seconds).is_due
        self.senders = SenderDomainAuthPolicy(self.settings, self.state, self.book, due)
        due = Refresh(PERIOD, self.clock.seconds).is_due
        self.greylisting = GreylistingPolicy(self.settings, self.state, self.book, due)
        due = Refresh(PERIOD, self.clock.seconds).is_due
        self.spf = SPFEnforcementPolicy(self.settings, self.state, self.book, self.check, "here", due)
        self.asked = 0

    def check(self, *_identities: str) -> Deferred[SpfResult]:
        return succeed(SpfResult("fail", "mailfrom", "example.org"))

    def decide(self, policy: Any, explain: bool = False) -> Decision:
        self.asked += 1
        request = OutboundPPR(
            {
                "protocol_state": "RCPT",
                "sender": "bob@example.org",
                "recipient": "x@example.net",
                "recipient_count": "0",
                "sasl_username": "bob",
                "client_address": "192.0.2.1",
                "helo_name": "mail.example.org",
                "instance": f"i{self.asked}",
            },
            cfg=self.settings,
        )
        return self.run_now((self.explanation if explain else self.decision)(policy, request))

    def assert_in_force_after_a_period(self, policy: Any, before: Reason, after: Reason) -> None:
        self.assertEqual(self.decide(policy).reason, before)
        self.clock.advance(PERIOD / 2)
        self.change()
        self.assertEqual(self.decide(policy).reason, before)
        self.assertEqual(self.decide(policy, explain=True).reason, before)
        self.clock.advance(PERIOD)
        self.assertEqual(self.decide(policy).reason, after)

    change: Callable[[], None]

    def test_a_quota(self) -> None:
        self.change = lambda: self.book.quotas.update(bob=1)
        self.assert_in_force_after_a_period(self.quota, Reason.WITHIN_QUOTA, Reason.QUOTA_EXCEEDED)

    def test_a_removed_quota(self) -> None:
        self.change = lambda: self.book.quotas.update(bob=None)
        self.assert_in_force_after_a_period(self.quota, Reason.WITHIN_QUOTA, Reason.NO_QUOTA)

    def test_a_removed_user(self) -> None:
        self.change = self.book.quotas.clear
        self.assert_in_force_after_a_period(self.quota, Reason.WITHIN_QUOTA, Reason.UNKNOWN_USER)

    def test_a_removed_domain(self) -> None:
        self.change = lambda: self.book.senders.update(bob=set())
        self.assert_in_force_after_a_period(self.senders, Reason.AUTHORIZED_DOMAIN, Reason.SENDER_NOT_AUTHORIZED)

    def test_an_added_domain(self) -> None:
        self.book.senders["bob"] = set()
        self.change = lambda: self.book.senders.update(bob={"example.org"})
        self.assert_in_force_after_a_period(self.senders, Reason.SENDER_NOT_AUTHORIZED, Reason.AUTHORIZED_DOMAIN)

    def test_without_comparison_a_refusal_is_cached_for_a_minute(self) -> None:
        self.book.senders["bob"] = set()
        policy = SenderDomainAuthPolicy(self.settings, self.state, self.book)
        self.assertEqual(self.decide(policy).reason, Reason.SENDER_NOT_AUTHORIZED)
        self.book.senders["bob"] = {"example.org"}
        self.clock.advance(61)
        self.assertEqual(self.decide(policy).reason, Reason.AUTHORIZED_DOMAIN)

    def test_the_greylist_flag(self) -> None:
        self.change = lambda: self.book.flags.update({"example.net": (True, False)})
        self.assert_in_force_after_a_period(self.greylisting, Reason.NOT_GREYLISTED, Reason.GREYLIST_FIRST)
        self.book.flags["example.net"] = (False, False)
        self.clock.advance(PERIOD)
        self.assertEqual(self.decide(self.greylisting).reason, Reason.NOT_GREYLISTED)

    def test_the_check_spf_flag(self) -> None:
        self.assertIn("PREPEND", self.decide(self.spf).action)
        self.book.flags["example.net"] = (False, True)
        self.clock.advance(PERIOD)
        self.assertIn("550 5.7.1", self.decide(self.spf).action)

    def test_unchanged_values_are_compared_once_per_period(self) -> None:
        # The quota compares its user, its domain, and its plan.
        for policy, values in ((self.quota, 3), (self.senders, 1), (self.greylisting, 1), (self.spf, 1)):
            self.decide(policy)
            self.clock.advance(PERIOD)
            before = self.book.asked
            for _ in range(3):
                self.assertIn("cache", self.decide(policy).source)
            self.assertEqual(self.book.asked, before + values, policy.name)

    def test_cached_values_stay_valid_while_the_database_is_unavailable(self) -> None:
        self.book.quotas["bob"] = 100
        for policy in (self.quota, self.senders, self.greylisting, self.spf):
            before = self.decide(policy).reason
            self.book.away = True
            for _ in range(10):
                self.clock.advance(DAY / 12)
                self.assertEqual(self.decide(policy).reason, before)
            self.book.away = False

    def test_the_cache_of_keys_is_bounded_in_bytes(self) -> None:
        refresh = Refresh(PERIOD, self.clock.seconds)
        refresh.forget()
        for number in range(5_000):
            self.assertTrue(refresh.is_due(f"{number} {'x' * 50_000}"))
        self.assertFalse(refresh.is_due(f"4999 {'x' * 50_000}"))
        self.assertLess(sum(map(size_of, refresh._due)), 32 << 20)


class ManyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refresh = Refresh(PERIOD, self.clock.seconds)

    def due(self) -> int:
        """Return how many of many values are compared now."""
        return sum(self.refresh.is_due(number) for number in range(250))

    def test_many_values_are_compared_one_after_the_other(self) -> None:
        seen = []
        for _ in range(4):
            seen.append(self.due())
            self.clock.advance(1)
        self.assertEqual(seen, [100, 100, 50, 0])

    def test_all_are_compared_at_once_if_it_is_not_known_which_have_changed(self) -> None:
        self.due()
        self.refresh.forget()
        self.assertEqual(self.due(), 250)
        self.assertEqual(self.due(), 0)
