"""Sender authorization."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable
from typing import TypeVar

from twisted.internet.defer import Deferred

from chapps_tw.config.settings import Chapps, Settings
from chapps_tw.config.settings import SenderDomainAuthPolicy as Section
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import BookUnavailable, SenderGrant
from chapps_tw.interfaces.state import Fresh
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from tests.support.policy_case import PolicyCase

T = TypeVar("T")


class SenderAuthTests(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.senders = {"bob": {"example.org", "sales@example.com"}, "none": set()}
        self.policy = self.make()

    def make(self, require_user_key: bool = True, fold_case: bool = True, **options: object) -> SenderDomainAuthPolicy:
        settings = Settings(
            chapps=dataclasses.replace(Chapps(), require_user_key=require_user_key, fold_case=fold_case),
            sda=dataclasses.replace(Section(), **options),  # type: ignore[arg-type]
        )
        self.settings = settings
        return SenderDomainAuthPolicy(settings, self.state, self.book)

    def wait_for(self, awaitable: Awaitable[T]) -> T:
        async def wait() -> T:
            return await awaitable

        return self.run_now(wait())

    def request(self, sender: str, user: str = "bob", stage: str = "RCPT") -> OutboundPPR:
        attributes = {"protocol_state": stage, "sender": sender, "sasl_username": user}
        return OutboundPPR(attributes, cfg=self.settings)

    def decide(self, sender: str, user: str = "bob", stage: str = "RCPT") -> Decision:
        return self.run_now(self.decision(self.policy, self.request(sender, user, stage)))

    def test_a_linked_domain_is_authorized(self) -> None:
        for sender in ("x@example.org", "Other+tag@Example.ORG", "x@example.org."):
            decision = self.decide(sender)
            self.assertEqual((decision.action, decision.reason), ("DUNNO", Reason.AUTHORIZED_DOMAIN))

    def test_the_book_is_not_asked_for_each_sender_of_an_authorized_domain(self) -> None:
        self.policy = SenderDomainAuthPolicy(
            self.settings, self.state, self.book, Refresh(60, self.clock.seconds).is_due
        )
        for number in range(50):
            self.assertEqual(self.decide(f"x{number}@example.org").reason, Reason.AUTHORIZED_DOMAIN)
        # The look-up, and one comparison in a minute.
        self.assertLessEqual(self.book.asked, 2)
        self.clock.advance(61)
        for number in range(50):
            self.decide(f"y{number}@example.org")
        self.assertLessEqual(self.book.asked, 3)

    def test_a_link_that_was_removed_by_hand_is_noticed_for_every_sender_of_the_domain(self) -> None:
        self.policy = SenderDomainAuthPolicy(
            self.settings, self.state, self.book, Refresh(60, self.clock.seconds).is_due
        )
        self.decide("x@example.org")
        self.decide("x@example.org")
        self.book.senders["bob"].remove("example.org")
        self.clock.advance(61)
        for sender in ("y@example.org", "x@example.org"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED)

    def test_a_linked_address_authorizes_no_other_address(self) -> None:
        self.assertEqual(self.decide("sales@EXAMPLE.com").reason, Reason.AUTHORIZED_EMAIL)
        for sender in ("sales-x@example.com", "boss@example.com", "x@sales@example.com"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED)

    def test_a_linked_domain_does_not_authorize_subdomains(self) -> None:
        for sender in ("x@sub.example.org", "x@org", "x@example.org.evil.example", "x@notexample.org"):
            decision = self.decide(sender)
            self.assertEqual(decision.reason, Reason.SENDER_NOT_AUTHORIZED)
            self.assertTrue(decision.stops)

    def test_a_sender_without_domain_is_refused(self) -> None:
        for sender in ("root", "x@", "x@[192.0.2.1]", "x@exa mple.org", "a@b@", "example.org@root\n"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_UNCLEAR, sender)

    def test_an_unknown_user_is_refused(self) -> None:
        self.assertEqual(self.decide("x@example.org", user="eve").reason, Reason.SENDER_NOT_AUTHORIZED)
        self.assertEqual(self.decide("x@example.org", user="none").reason, Reason.SENDER_NOT_AUTHORIZED)

    def test_the_detail_names_an_unknown_user_if_the_book_was_read(self) -> None:
        self.assertEqual(self.decide("x@example.com", user="none").detail, "")
        for _ in range(2):
            explained = self.run_now(self.explanation(self.policy, self.request("x@example.org", "eve")))
            self.assertEqual((explained.detail, explained.source), ("there is no such user", "database"))
        self.assertEqual(self.decide("x@example.org", user="eve").detail, "there is no such user")
        cached = self.decide("x@example.org", user="eve")
        self.assertEqual((cached.detail, cached.source), ("", "cache"))

    def test_the_domain_is_what_follows_the_last_at_sign(self) -> None:
        for sender in ("a@b@example.org", "x@evil.example@example.org", "@example.org", "\udce9@example.org"):
            self.assertEqual(self.decide(sender).reason, Reason.AUTHORIZED_DOMAIN, sender)
        for sender in ("x@example.org@evil.example", "sales@example.com@evil.example", "@evil.example"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED, sender)

    def test_an_address_with_two_at_signs_can_be_linked(self) -> None:
        self.book.senders["bob"].add("x@y@example.com")
        self.assertEqual(self.decide("X@y@Example.com").reason, Reason.AUTHORIZED_EMAIL)
        for sender in ("y@example.com", "z@y@example.com"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED, sender)

    def test_names_are_compared_without_case(self) -> None:
        for user in ("Bob", "BOB"):
            self.assertEqual(self.decide("x@example.org", user).reason, Reason.AUTHORIZED_DOMAIN)
            self.assertEqual(self.decide("Sales@Example.COM", user).reason, Reason.AUTHORIZED_EMAIL)
        self.assertEqual(self.book.asked, 2)

    def test_case_matters_without_fold_case(self) -> None:
        self.policy = self.make(fold_case=False)
        self.assertEqual(self.decide("sales@EXAMPLE.com").reason, Reason.AUTHORIZED_EMAIL)
        self.assertEqual(self.decide("Sales@example.com").reason, Reason.SENDER_NOT_AUTHORIZED)
        self.assertEqual(self.decide("x@example.org", "Bob").reason, Reason.SENDER_NOT_AUTHORIZED)

    def test_an_address_extension_of_a_linked_address_is_authorized(self) -> None:
        for sender in ("sales+shop@example.com", "Sales+a+b@example.com", "sales+@example.com"):
            self.assertEqual(self.decide(sender).reason, Reason.AUTHORIZED_EMAIL, sender)
        for sender in ("sal+es@example.com", "+sales@example.com", "boss+sales@example.com", "sales-shop@example.com"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED, sender)

    def test_a_linked_address_with_extension_authorizes_only_itself(self) -> None:
        self.book.senders["bob"] = {"sales+shop@example.com"}
        self.assertEqual(self.decide("sales+shop@example.com").reason, Reason.AUTHORIZED_EMAIL)
        for sender in ("sales@example.com", "sales+x@example.com", "sales+shop+x@example.com"):
            self.assertEqual(self.decide(sender).reason, Reason.SENDER_NOT_AUTHORIZED, sender)

    def test_subaddress_separators_are_an_option(self) -> None:
        for separators, allowed in (("", ""), ("-", "-"), ("+-", "+-")):
            self.policy = self.make(subaddress_separators=separators)
            for each in "+-=":
                wanted = Reason.AUTHORIZED_EMAIL if each in allowed else Reason.SENDER_NOT_AUTHORIZED
                explained = self.explanation(self.policy, self.request(f"sales{each}shop@example.com"))
                self.assertEqual(self.run_now(explained).reason, wanted, (separators, each))

    def test_an_extension_is_refused_after_the_address_is_unlinked(self) -> None:
        self.assertFalse(self.decide("sales+shop@example.com").stops)
        self.book.senders["bob"].clear()
        # What a change of the link drops; nobody knows which sub-addresses were used.
        self.wait_for(self.state.drop_values([value_keys.sender("bob", "sales@example.com")]))
        self.assertTrue(self.decide("sales+shop@example.com").stops)

    def test_the_null_sender_passes_only_with_null_sender_ok(self) -> None:
        self.assertEqual(self.decide("").reason, Reason.NULL_SENDER_REFUSED)
        self.policy = self.make(null_sender_ok=True)
        self.assertEqual(self.decide("").reason, Reason.NULL_SENDER_ACCEPTED)
        self.assertEqual(self.decide("x@evil.example").reason, Reason.SENDER_NOT_AUTHORIZED)

    def test_a_request_without_a_user_gets_no_user_key_response(self) -> None:
        decision = self.decide("x@example.org", user="")
        self.assertEqual(
            (decision.action, decision.reason), ("REJECT Rejected - Authentication failed", Reason.NO_USER)
        )
        self.policy = self.make(require_user_key=False)
        self.assertEqual(self.decide("", user="").reason, Reason.NO_USER)

    def test_protocol_states_without_a_sender_are_not_judged(self) -> None:
        for stage in ("CONNECT", "EHLO", "HELO", "VRFY", "ETRN"):
            self.assertEqual(self.decide("", stage=stage).reason, Reason.STAGE_NOT_JUDGED)
        for stage in ("MAIL", "DATA", "END-OF-MESSAGE"):
            self.assertTrue(self.decide("x@evil.example", stage=stage).stops)

    def test_a_verdict_is_cached(self) -> None:
        for _ in range(3):
            self.decide("x@example.org")
            self.decide("x@evil.example")
        self.assertEqual(self.book.asked, 2)

    def test_cached_verdicts_apply_while_the_database_is_unavailable(self) -> None:
        self.decide("x@example.org")
        self.decide("sales@example.com")
        self.book.away = True
        self.assertEqual(self.decide("other@example.org").reason, Reason.AUTHORIZED_DOMAIN)
        self.assertEqual(self.decide("sales@example.com").reason, Reason.AUTHORIZED_EMAIL)
        self.failureResultOf(
            Deferred.fromCoroutine(self.decision(self.policy, self.request("x@new.example"))), BookUnavailable
        )

    def test_an_invalidated_verdict_is_looked_up_again(self) -> None:
        self.decide("x@example.org")
        self.book.senders["bob"].clear()
        self.assertFalse(self.decide("x@example.org").stops)
        self.wait_for(self.state.drop_values([value_keys.sender("bob", "example.org")]))
        self.assertTrue(self.decide("x@example.org").stops)

    def drop_domain(self, domain: str) -> None:
        """Drop what a change drops that affects many users of a domain."""
        self.wait_for(self.state.drop_values([value_keys.senders_of_domain(domain)]))

    def unlink_after_the_next_answer(self) -> None:
        answer = self.book.senders_of

        async def senders_of(*names: str) -> SenderGrant:
            grant = await answer(*names)
            patched.restore()
            self.book.senders["bob"] = set()
            await self.state.drop_values([value_keys.senders_of_domain("example.org")])
            return grant

        patched = self.patch(self.book, "senders_of", senders_of)

    def test_one_key_outdates_all_verdicts_about_a_domain_and_its_addresses(self) -> None:
        users = [f"user{number}" for number in range(20)]
        senders = ("x@example.org", "sales@example.com", "y@other.example")
        self.book.senders |= {user: {"example.org", "sales@example.com", "other.example"} for user in users}
        for user in users:
            self.assertFalse(any(self.decide(sender, user).stops for sender in senders))
        self.book.senders |= {user: set() for user in users}
        for dropped, refused in (("example.org", 1), ("example.com", 2), ("other.example", 3)):
            self.drop_domain(dropped)
            for user in users:
                stops = [self.decide(sender, user).stops for sender in senders]
                self.assertEqual(stops, [True] * refused + [False] * (3 - refused))

    def test_verdicts_of_a_domain_are_cached_again_after_they_were_outdated(self) -> None:
        self.decide("x@example.org")
        self.decide("x@example.org", "none")
        self.drop_domain("example.org")
        for _ in range(3):
            self.assertFalse(self.decide("x@example.org").stops)
            self.assertTrue(self.decide("x@example.org", "none").stops)
        self.assertEqual(self.book.asked, 4)

    def test_a_verdict_without_a_version_is_looked_up_again(self) -> None:
        key, version_key = value_keys.sender("bob", "evil.example"), value_keys.senders_of_domain("evil.example")
        for version in ("", "some"):
            [verdict, about] = self.wait_for(self.state.values([key, version_key]))
            fresh = [Fresh(key, "1", verdict.token), Fresh(version_key, version, about.token)]
            self.wait_for(self.state.keep_values(fresh, 60))
            self.assertTrue(self.decide("x@evil.example").stops)

    def test_a_verdict_read_before_a_change_of_its_domain_is_not_used_after_it(self) -> None:
        for cached in (False, True):
            with self.subTest(version_is_cached=cached):
                self.book.senders["bob"] = {"example.org"}
                self.drop_domain("example.org")
                if cached:
                    self.decide("x@example.org", "none")
                self.unlink_after_the_next_answer()
                self.assertFalse(self.decide("x@example.org").stops)
                self.assertTrue(self.decide("x@example.org").stops)

    def test_an_unknown_user_is_cached_briefly(self) -> None:
        self.assertTrue(self.decide("x@new.example", user="new").stops)
        self.book.senders["new"] = {"new.example"}
        self.assertTrue(self.decide("x@new.example", user="new").stops)
        self.clock.advance(61)
        self.assertFalse(self.decide("x@new.example", user="new").stops)

    def test_of_a_refused_sender_nothing_is_cached_for_long(self) -> None:
        # Whoever has a login may try any number of domains.
        self.assertTrue(self.decide("x@other.example").stops)
        self.clock.advance(61)
        keys = [value_keys.senders_of_domain("other.example"), value_keys.sender("bob", "other.example")]
        kept = self.wait_for(self.state.values(keys))
        self.assertEqual([cached.value for cached in kept], [None, None])

    def test_explain_returns_the_same_and_caches_nothing(self) -> None:
        for sender in ("x@example.org", "sales@example.com", "x@evil.example", "root"):
            request = self.request(sender)
            explained = self.run_now(self.explanation(self.policy, request))
            names = ("example.org", "example.com", "evil.example")
            keys = [
                key for name in names for key in (value_keys.sender("bob", name), value_keys.senders_of_domain(name))
            ]
            kept = self.wait_for(self.state.values(keys))
            self.assertEqual({cached.value for cached in kept}, {None})
            self.assertEqual(explained.reason, self.run_now(self.explanation(self.make(), request)).reason)
        for sender in ("x@example.org", "x@evil.example"):
            self.assertEqual(self.run_now(self.explanation(self.policy, self.request(sender))), self.decide(sender))

    def test_messages_name_user_and_sender(self) -> None:
        self.policy = self.make(rejection_message="REJECT {user} may not send as {sender}")
        self.assertEqual(self.decide("x@evil.example").action, "REJECT bob may not send as x@evil.example")

    def test_acceptance_message_is_filled_in(self) -> None:
        self.policy = self.make(acceptance_message="PREPEND X-Sender: {user} as {sender}", null_sender_ok=True)
        for sender in ("x@example.org", "sales@example.com"):
            self.assertEqual(self.decide(sender).action, f"PREPEND X-Sender: bob as {sender}")
        self.assertEqual(self.decide("").action, "PREPEND X-Sender: bob as -")
        self.assertEqual(self.decide("", user="").action, "PREPEND X-Sender: - as -")

    def test_a_refusal_names_the_user_and_the_sender(self) -> None:
        for sender, shown in (("x@example.net", "x@example.net"), ("root", "root"), ("", "<>")):
            told = f"REJECT Rejected - bob is not allowed to send mail as {shown}"
            self.assertEqual(self.decide(sender).action, told)

    def test_a_user_may_send_as_his_login_if_own_address_is_on(self) -> None:
        logins = {
            "ann@example.com": ("Ann@Example.COM", "ann+shop@example.com"),
            "Ann@Example.com": ("ann@example.com",),
            "ann@b\u00fccher.example": ("ann@xn--bcher-kva.example", "ann@B\u00dcCHER.example"),
        }
        for own_address, reason in ((True, Reason.OWN_ADDRESS), (False, Reason.SENDER_NOT_AUTHORIZED)):
            self.policy = self.make(own_address=own_address)
            for login, senders in logins.items():
                for sender in senders:
                    self.assertEqual(self.decide(sender, login).reason, reason, (login, sender))

    def test_own_address_authorizes_nothing_else(self) -> None:
        self.policy = self.make(own_address=True)
        for login, sender in {
            "ann@example.com": "bob@example.com",
            "ann": "ann@example.com",
            "example.com": "ann@example.com",
            "ann@example.com ": "ann@example.net",
            "@example.com": "@example.com",
        }.items():
            self.assertEqual(self.decide(sender, login).reason, Reason.SENDER_NOT_AUTHORIZED, (login, sender))
        self.assertEqual(self.decide("", "ann@example.com").reason, Reason.NULL_SENDER_REFUSED)

    def test_own_address_asks_neither_state_nor_book(self) -> None:
        self.policy = self.make(own_address=True)
        self.decide("ann@example.com", "ann@example.com")
        self.assertEqual((self.policy.looks, self.policy.misses), (0, 0))
