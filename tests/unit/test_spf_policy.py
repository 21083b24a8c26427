"""SPF enforcement: actions for results, and one header per message."""

from __future__ import annotations

import dataclasses
from functools import partial

from twisted.internet.defer import CancelledError, Deferred, succeed

from chapps_tw.config.settings import PostfixSPFActions, Settings
from chapps_tw.config.settings import SPFEnforcementPolicy as Section
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.observe.decision_record import record_of
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.policies.one_header import one_header
from chapps_tw.policies.slots import Answer, PolicySlot
from chapps_tw.policies.spf import SPFEnforcementPolicy
from chapps_tw.postfix.pipeline import Pipeline
from tests.support.paths import RECORDED
from tests.support.policy_case import PolicyCase
from tests.support.replies import answer_of

HEADER = "PREPEND Received-SPF: "


def attributes(instance: str = "i1", **others: str) -> dict[str, str]:
    return {
        "protocol_state": "RCPT",
        "client_address": "192.0.2.1",
        "helo_name": "mail.example.com",
        "sender": "alice@example.com",
        "recipient": "bob@spf.example",
        "instance": instance,
    } | others


class SpfCase(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.flags = {
            "spf.example": (False, True),
            "grey.example": (True, False),
            "both.example": (True, True),
            "none.example": (False, False),
        }
        self.found = SpfResult("pass", "mailfrom", "example.com", mechanism="ip4:192.0.2.1")
        self.checked: list[tuple[str, str, str]] = []
        self.policy = self.make()

    def make(self, actions: dict[str, str] | None = None, **options: object) -> SPFEnforcementPolicy:
        settings = Settings(
            spf=dataclasses.replace(Section(), **options),  # type: ignore[arg-type]
            spf_actions=dataclasses.replace(PostfixSPFActions(), **actions or {}),
        )
        return SPFEnforcementPolicy(settings, self.state, self.book, self.check, "mx.example.org")

    def check(self, client: str, helo: str, sender: str) -> Deferred[SpfResult]:
        self.checked.append((client, helo, sender))
        return succeed(self.found)

    def decide(self, instance: str = "i1", **others: str) -> Decision:
        return self.run_now(self.policy.decide(OutboundPPR(attributes(instance, **others))))


class Actions(SpfCase):
    def test_the_default_actions_for_each_result(self) -> None:
        for result, action, greylist in [
            ("pass", HEADER + "pass ", False),
            ("fail", "550 5.7.1 SPF check failed: example.com says fail for 192.0.2.1", False),
            ("softfail", HEADER + "softfail ", True),
            ("none", HEADER + "none ", True),
            ("neutral", HEADER + "neutral ", True),
            ("temperror", "451 4.4.3 SPF record(s) temporarily unavailable: example.com: no answer", False),
            ("permerror", "550 5.5.2 SPF record(s) are malformed: example.com: no answer", False),
        ]:
            self.found = SpfResult(result, "mailfrom", "example.com", problem="no answer" if "error" in result else "")
            decision = self.decide()
            self.assertTrue(decision.action.startswith(action), decision)
            self.assertEqual((decision.reason, decision.greylist), (f"spf_{result}", greylist))
            self.assertEqual(decision.client, "example.com" if result == "pass" else "")

    def test_a_helo_pass_does_not_identify_the_client(self) -> None:
        """Hosts of a pool have each its own; a bounce from another of them is the same bounce."""
        self.found = SpfResult("pass", "helo", "mail1.example.com")
        self.assertEqual((self.decide(sender="").reason, self.decide(sender="").client), (Reason.SPF_PASS, ""))

    def test_domains_without_the_flag_only_get_the_header(self) -> None:
        for result in ("pass", "fail", "softfail", "none", "temperror", "permerror"):
            self.found = SpfResult(result, "mailfrom", "example.com")
            for recipient in ("bob@none.example", "bob@elsewhere.example", "postmaster"):
                decision = self.decide(recipient=recipient)
                self.assertTrue(decision.action.startswith(f"{HEADER}{result} "), decision)
                self.assertFalse(decision.greylist or decision.stops)

    def test_dunno_and_okay_add_no_header(self) -> None:
        self.policy = self.make({"passing": "okay", "fail": "dunno"})
        self.assertEqual(self.decide().action, "DUNNO")
        self.found = SpfResult("fail", "mailfrom", "example.com")
        self.assertEqual(self.decide().action, "DUNNO")

    def test_only_the_reason_is_filled_in(self) -> None:
        self.policy = self.make({"fail": "REJECT {reason}"})
        self.found = SpfResult("fail", "mailfrom", "example.com", explanation="see {sender} {reason}")
        decision = self.decide()
        self.assertEqual(decision.action, "REJECT example.com explains: see {sender} {reason}")
        self.assertEqual(decision.wire.count(b"\n"), 2)

    def test_a_reply_always_has_a_text(self) -> None:
        self.policy = self.make({"temperror": "451 {reason}"})
        self.found = SpfResult("temperror")
        self.assertEqual(self.decide().action, "451 the sender")

    def test_the_header_names_the_checked_identity(self) -> None:
        self.assertEqual(
            self.decide().action,
            HEADER
            + "pass (mx.example.org: domain of alice@example.com designates 192.0.2.1 as permitted sender)"
            + ' client-ip=192.0.2.1; envelope-from="alice@example.com"; helo=mail.example.com; identity=mailfrom;'
            + ' receiver=mx.example.org; mechanism="ip4:192.0.2.1"',
        )
        self.assertEqual(self.checked, [("192.0.2.1", "mail.example.com", "alice@example.com")])

    def test_the_detail_has_no_empty_parts(self) -> None:
        self.assertEqual(self.decide().detail, "mailfrom example.com ip4:192.0.2.1")
        self.found = SpfResult("none", problem="the client address is unknown")
        self.assertEqual(self.decide().detail, "mailfrom the client address is unknown")

    def test_the_null_sender_is_checked_without_null_sender_ok(self) -> None:
        self.found = SpfResult("fail", "helo", "mail.example.com")
        self.assertTrue(self.decide(sender="").stops)
        self.policy = self.make(null_sender_ok=True)
        self.assertEqual(self.decide(sender="").reason, Reason.NULL_SENDER_ACCEPTED)
        self.assertEqual(len(self.checked), 1)


class Stages(SpfCase):
    def test_a_request_without_a_recipient_is_not_judged(self) -> None:
        for name in ("in-three-rcpt-04-DATA", "in-three-rcpt-05-END-OF-MESSAGE", "in-vrfy-01-VRFY", "in-etrn-01-ETRN"):
            recorded = OutboundPPR((RECORDED / f"{name}.req").read_bytes())
            self.assertEqual(self.run_now(self.policy.decide(recorded)).reason, Reason.STAGE_NOT_JUDGED, name)
        self.assertEqual(self.checked, [])

    def test_end_of_message_gets_no_header_but_can_refuse(self) -> None:
        self.assertEqual(self.decide(protocol_state="END-OF-MESSAGE").action, "DUNNO")
        self.assertTrue(self.decide(protocol_state="DATA").action.startswith(HEADER))
        self.found = SpfResult("fail", "mailfrom", "example.com")
        self.assertTrue(self.decide(protocol_state="END-OF-MESSAGE").stops)


class Flags(SpfCase):
    def test_the_flag_is_cached_for_cache_ttl(self) -> None:
        self.policy = self.make(cache_ttl=100.0)
        for _ in range(3):
            self.decide()
            self.decide(recipient="bob@none.example")
        self.assertEqual(self.book.asked, 2)
        self.clock.advance(101)
        self.book.flags["spf.example"] = (False, False)
        self.found = SpfResult("fail", "mailfrom", "example.com")
        self.assertFalse(self.decide().stops)

    def test_explain_caches_nothing_and_returns_the_same(self) -> None:
        self.found = SpfResult("fail", "mailfrom", "example.com")
        request = OutboundPPR(attributes())
        for _ in range(2):
            self.assertTrue(self.run_now(self.policy.explain(request)).stops)
        self.assertEqual(self.book.asked, 2)

    def test_an_unavailable_book_raises_before_the_check(self) -> None:
        self.book.away = True
        failed = Deferred.fromCoroutine(self.policy.decide(OutboundPPR(attributes())))
        self.clock.advance(0)
        self.failureResultOf(failed, BookUnavailable)
        self.assertEqual(self.checked, [])


class OneHeader(SpfCase):
    """The inbound listener: SPF, then greylisting."""

    def setUp(self) -> None:
        super().setUp()
        self.listener = self.inbound(self.policy)

    def inbound(self, policy: SPFEnforcementPolicy) -> Pipeline:
        return self.pipeline(PolicySlot(policy), PolicySlot(GreylistingPolicy(Settings(), self.state, self.book)))

    def pipeline(self, *slots: PolicySlot) -> Pipeline:
        settle = partial(one_header, self.state)
        return Pipeline("inbound", slots, lambda _: None, lambda *_: self.fail(), CancelledError, settle, self.state)

    def ask(self, instance: str = "i1", **others: str) -> Answer:
        return self.run_now(answer_of(self.listener, OutboundPPR(attributes(instance, **others))))

    def test_a_message_gets_one_header_for_all_recipients(self) -> None:
        answers = [self.ask(recipient=f"r{n}@spf.example").decision for n in range(3)]
        self.assertEqual([answer.verb for answer in answers], ["PREPEND", "DUNNO", "DUNNO"])
        self.assertEqual({answer.reason for answer in answers}, {Reason.SPF_PASS})
        self.assertEqual(self.ask("i2").decision.verb, "PREPEND")

    def test_headers_of_other_policies_are_added_once_as_well(self) -> None:
        settings = Settings(grl=dataclasses.replace(Settings().grl, acceptance_message="PREPEND X-Greylisting: passed"))
        self.listener = self.pipeline(PolicySlot(GreylistingPolicy(settings, self.state, self.book)))
        answers = [self.ask(recipient=f"r{n}@none.example").decision for n in range(3)]
        self.assertEqual([answer.verb for answer in answers], ["PREPEND", "DUNNO", "DUNNO"])

    def test_a_repeated_request_gets_no_second_header(self) -> None:
        self.assertEqual([self.ask().decision.verb for _ in range(2)], ["PREPEND", "DUNNO"])

    def test_a_deferred_recipient_does_not_use_up_the_header(self) -> None:
        verbs = [self.ask(recipient=f"r@{d}.example").decision.verb for d in ("both", "none", "spf", "grey")]
        self.assertEqual(verbs, ["DEFER_IF_PERMIT", "PREPEND", "DUNNO", "DEFER_IF_PERMIT"])

    def test_the_flags_of_each_recipients_domain_apply(self) -> None:
        self.found = SpfResult("fail", "mailfrom", "example.com")
        stops = {name: self.ask(recipient=f"r@{name}").decision.stops for name in self.book.flags}
        expected = {"spf.example": True, "grey.example": True, "both.example": True, "none.example": False}
        self.assertEqual(stops, expected)

    def test_explain_does_not_use_up_the_header(self) -> None:
        spf, _ = self.run_now(self.listener.explain(OutboundPPR(attributes()))).decisions
        self.assertEqual(spf.verb, "PREPEND")
        self.assertEqual(self.ask().decision.verb, "PREPEND")

    def test_without_an_instance_every_request_is_a_message(self) -> None:
        self.assertEqual([self.ask("").decision.verb for _ in range(2)], ["PREPEND", "PREPEND"])

    def test_softfail_is_greylisted_without_the_flag_and_gets_its_header_later(self) -> None:
        self.found = SpfResult("softfail", "mailfrom", "example.com")
        self.assertEqual(self.ask().decision.reason, Reason.GREYLIST_FIRST)
        self.clock.advance(60)
        self.assertTrue(self.ask("i2").decision.action.startswith(HEADER + "softfail"))

    def test_both_records_say_why_it_was_greylisted(self) -> None:
        self.found = SpfResult("none", "mailfrom", "none.net")
        explained = self.run_now(self.listener.explain(OutboundPPR(attributes())))
        self.assertIs(explained.decision, explained.decisions[1])
        request = OutboundPPR(attributes())
        shown = [record_of("inbound", "", request, each, 1.5).detail for each in explained.decisions]
        asked = "client 192.0.2.0/24; asked for by SPFEnforcementPolicy (spf_none: mailfrom none.net)"
        self.assertEqual(shown, ["mailfrom none.net; asks for greylisting", asked])
        self.assertEqual(self.ask().decision.detail, asked)

    def test_shadow_mode_logs_the_greylisting_request_without_making_it(self) -> None:
        self.found = SpfResult("none", "mailfrom", "none.net")
        greylisting = PolicySlot(GreylistingPolicy(Settings(), self.state, self.book))
        self.listener = self.pipeline(PolicySlot(self.policy, shadow=True), greylisting)
        spf, grl = self.ask(recipient="bob@both.example").decisions
        shown = [record_of("inbound", "", OutboundPPR(attributes()), each, 1.5) for each in (spf, grl)]
        self.assertTrue(shown[0].shadow.startswith(HEADER))
        wanted = ["mailfrom none.net; would ask for greylisting", "client 192.0.2.0/24"]
        self.assertEqual([record.detail for record in shown], wanted)

    def test_bounces_from_one_network_wait_once(self) -> None:
        bounce = {"sender": "", "recipient": "bob@both.example"}
        self.found = SpfResult("pass", "helo", "mail1.example.com")
        self.assertEqual(self.ask(**bounce).decision.reason, Reason.GREYLIST_FIRST)
        self.clock.advance(60)
        self.found = SpfResult("pass", "helo", "mail2.example.com")
        later = self.ask("i2", client_address="192.0.2.2", **bounce)
        self.assertEqual(later.decisions[1].reason, Reason.GREYLIST_PASSED)

    def test_a_pool_with_an_spf_pass_waits_once(self) -> None:
        self.assertEqual(self.ask(recipient="bob@both.example").decision.reason, Reason.GREYLIST_FIRST)
        self.clock.advance(60)
        later = self.ask("i2", recipient="bob@both.example", client_address="198.51.100.7")
        self.assertEqual(later.decision.verb, "PREPEND")
        self.assertEqual(later.decisions[1].reason, Reason.GREYLIST_PASSED)
