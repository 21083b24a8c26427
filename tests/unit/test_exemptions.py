"""Exemptions of the book: policies let pass who is exempt, until the end."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.task import deferLater

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import BookUnavailable, Exemption
from chapps_tw.interfaces.state import Fresh
from chapps_tw.interfaces.value_keys import EXEMPTIONS
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.exemptions import GREYLISTING, SENDER_AUTHORIZATION, SPF, TTL, Exemptions
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from chapps_tw.policies.spf import SPFEnforcementPolicy
from tests.support.policy_case import PolicyCase, awaited

T = TypeVar("T")

PARTNER, STRANGER = "192.0.2.9", "198.51.100.1"
PERIOD = 60.0


class ExemptionsCase(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.exemptions = self.new_process()
        self.until = self.clock.seconds() + 3600

    def new_process(self) -> Exemptions:
        due = Refresh(PERIOD, self.clock.seconds).is_due
        return Exemptions(self.state, self.book, self.clock.seconds, True, due)

    def exempt(self, scope: str, kind: str = "client", value: str = "192.0.2.0/24", id: int = 7) -> None:
        self.book.exempt.append(Exemption(id, kind, value, scope, self.until, "our partner", "admin"))

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.run_now(wait())

    def request(self, client: str = PARTNER, **others: str) -> OutboundPPR:
        attributes = {
            "protocol_state": "RCPT",
            "client_address": client,
            "helo_name": "mail.example.com",
            "sender": "alice@example.com",
            "recipient": "bob@example.net",
            "instance": f"instance of {client}",
        }
        return OutboundPPR(attributes | others)

    def found(self, scope: str = SPF, client: str = PARTNER, keep: bool = True, of: Exemptions | None = None) -> int:
        """Return the id of the exemption of a client, 0 if there is none."""
        found = self.run_now((of or self.exemptions).of(self.request(client), scope, keep))
        return found.id if found else 0

    def drop(self) -> None:
        """Drop what a change of an exemption drops."""
        self.wait_for(self.state.drop_values([EXEMPTIONS]))


class PolicyTests(ExemptionsCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.flags = {"example.net": (True, True)}
        settings, of = Settings(), self.exemptions.of
        self.spf = SPFEnforcementPolicy(settings, self.state, self.book, self.check, exempt=of)
        self.greylisting = GreylistingPolicy(settings, self.state, self.book, exempt=of)
        self.senders = SenderDomainAuthPolicy(settings, self.state, self.book, exempt=of)

    def check(self, *_identities: str) -> Deferred[SpfResult]:
        return succeed(SpfResult("fail", "mailfrom", "example.com"))

    def judge(self, policy: Any, client: str = PARTNER) -> Decision:
        """Return the decision, which is also the explanation."""
        request = self.request(client)
        explained: Decision = self.run_now(self.explanation(policy, request))
        decided: Decision = self.run_now(self.decision(policy, request))
        self.assertEqual((explained.action, explained.reason), (decided.action, decided.reason))
        return decided

    def test_each_policy_lets_pass_who_is_exempt_from_it_until_the_end(self) -> None:
        for policy, scope, otherwise in (
            (self.spf, SPF, Reason.SPF_FAIL),
            (self.greylisting, GREYLISTING, Reason.GREYLIST_FIRST),
            (self.senders, SENDER_AUTHORIZATION, Reason.NO_USER),
        ):
            with self.subTest(scope):
                self.book.exempt.clear()
                self.until = self.clock.seconds() + 3600
                self.exempt(scope)
                self.drop()
                exempted = self.judge(policy)
                self.assertEqual((exempted.action, exempted.reason), ("DUNNO", Reason.EXEMPTED))
                self.assertEqual((exempted.policy, exempted.detail), (policy.name, "exemption 7: our partner"))
                self.assertEqual(self.judge(policy, STRANGER).reason, otherwise)
                for other in {self.spf, self.greylisting, self.senders} - {policy}:
                    self.assertNotEqual(self.judge(other).reason, Reason.EXEMPTED)
                self.clock.advance(3600)
                self.assertNotEqual(self.judge(policy).reason, Reason.EXEMPTED)

    def test_greylisting_leaves_no_trace_of_who_is_exempt(self) -> None:
        self.exempt(GREYLISTING)
        self.assertEqual(self.judge(self.greylisting).reason, Reason.EXEMPTED)
        last = self.wait_for(self.state.last_attempt("192.0.2.0/24", "alice@example.com", "bob@example.net"))
        self.assertEqual((last, self.wait_for(self.state.tally("192.0.2.0/24"))), (0.0, []))

    def test_an_spf_result_is_not_looked_up_for_who_is_exempt(self) -> None:
        self.exempt(SPF)
        self.spf = SPFEnforcementPolicy(
            Settings(), self.state, self.book, lambda *_: self.fail("looked up"), exempt=self.exemptions.of
        )
        self.assertEqual(self.judge(self.spf).reason, Reason.EXEMPTED)


class CacheTests(ExemptionsCase):
    def test_the_list_is_read_once(self) -> None:
        self.exempt(SPF)
        for client, id in ((PARTNER, 7), (STRANGER, 0), (PARTNER, 7)):
            self.assertEqual(self.found(client=client), id)
        self.assertEqual(self.book.asked, 1)
        self.assertEqual(self.found(of=self.new_process()), 7)
        self.assertEqual(self.book.asked, 2)

    def test_an_empty_list_is_cached_as_well(self) -> None:
        for _ in range(3):
            self.assertEqual(self.found(), 0)
        self.assertEqual(self.book.asked, 1)

    def test_a_change_is_in_force_for_the_next_request_of_every_process(self) -> None:
        processes = [self.new_process() for _ in range(2)]
        self.assertEqual([self.found(of=each) for each in processes], [0, 0])
        self.exempt(SPF)
        self.drop()
        self.assertEqual([self.found(of=each) for each in processes], [7, 7])
        self.book.exempt.clear()
        self.drop()
        self.assertEqual([self.found(of=each) for each in reversed(processes)], [0, 0])

    def test_a_cached_list_applies_while_the_database_is_unavailable(self) -> None:
        self.exempt(SPF)
        self.found()
        self.book.away = True
        self.clock.advance(PERIOD + 1)
        self.assertEqual([self.found(), self.found(of=self.new_process())], [7, 7])
        self.drop()
        self.failureResultOf(Deferred.fromCoroutine(awaited(self.exemptions.of(self.request(), SPF))), BookUnavailable)

    def test_a_change_in_the_database_is_noticed_after_a_period(self) -> None:
        self.found()
        self.exempt(SPF)
        self.assertEqual(self.found(), 0)
        self.clock.advance(PERIOD + 1)
        self.assertEqual(self.found(), 7)

    def test_a_list_that_is_no_longer_cached_is_read_again(self) -> None:
        for changed in (False, True):
            with self.subTest(changed=changed):
                self.book.exempt.clear()
                self.exempt(SPF, id=7)
                self.drop()
                self.found()
                digest = self.wait_for(self.state.values([EXEMPTIONS]))[0].value or ""
                self.wait_for(self.state.drop_values([EXEMPTIONS._replace(name=digest)]))
                if changed:
                    self.book.exempt.clear()
                    self.exempt(SPF, id=8)
                process = self.new_process()
                self.assertEqual(self.found(of=process), 8 if changed else 7)
                self.assertEqual(self.found(of=process), 8 if changed else 7)
                self.assertEqual(self.found(), 8 if changed else 7)

    def test_an_explanation_caches_nothing(self) -> None:
        self.exempt(SPF)
        for _ in range(2):
            self.assertEqual(self.found(keep=False), 7)
        self.assertIsNone(self.wait_for(self.state.values([EXEMPTIONS]))[0].value)

    def test_the_list_of_another_version_is_replaced(self) -> None:
        [cached] = self.wait_for(self.state.values([EXEMPTIONS]))
        self.wait_for(self.state.keep_values([Fresh(EXEMPTIONS, "0:unknown form", cached.token)], TTL))
        self.exempt(SPF)
        self.assertEqual(self.found(), 7)

    def test_the_list_is_cached_for_long(self) -> None:
        self.found()
        self.clock.advance(TTL - 1)
        self.assertIsNotNone(self.wait_for(self.state.values([EXEMPTIONS]))[0].value)


class ManyRequestsTests(ExemptionsCase):
    def test_requests_that_find_a_new_list_at_the_same_time_parse_it_once(self) -> None:
        self.found()
        self.exempt(SPF)
        self.drop()
        # As from a database, in a later turn.
        self.book.exemptions = lambda: deferLater(self.clock, 0, tuple, self.book.exempt)  # type: ignore[method-assign]
        requests = [awaited(self.exemptions.of(self.request(), SPF)) for _ in range(5)]
        first, *others = self.wait_for(gatherResults([Deferred.fromCoroutine(each) for each in requests]))
        assert first is not None
        self.assertEqual([each is first for each in others], [True] * 4)
