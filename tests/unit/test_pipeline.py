"""Running policies in order."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.reply import Reply
from chapps_tw.interfaces.state import (
    Account,
    CacheVersion,
    Charge,
    LiveState,
    Message,
    Outdated,
    Spent,
    StateUnavailable,
    Unit,
)
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.pending import PendingDecision
from chapps_tw.policies.slots import Answer, PolicySlot
from chapps_tw.postfix.pipeline import DEFER, Pipeline
from tests.support.replies import answer_of, replied

REQUEST = OutboundPPR("protocol_state=RCPT\nsender=a@b")


class Says:
    """A policy that says what it is told to, and remembers what it saw."""

    def __init__(self, name: str, say: str | Exception) -> None:
        self.name = name
        self.say = say
        self.earlier: list[str] | None = None

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        self.earlier = [decision.action for decision in earlier]
        if isinstance(self.say, Exception):
            raise self.say
        return Decision(self.say, Reason.WITHIN_QUOTA, self.name)

    explain = decide


class Relies(Says):
    """A policy that relies on a version of the values in memory, as long as it is there."""

    def __init__(self, name: str, say: str, memory: list[CacheVersion]) -> None:
        super().__init__(name, say)
        self.memory = memory
        self.asked = 0

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        self.asked += 1
        for version in self.memory:
            request.rely_on(version)
        return await super().decide(request, earlier)


class Counts(Says):
    """A policy that confirms what the others rely on, or finds it outdated."""

    def __init__(self, name: str, say: str, memory: list[CacheVersion], wrong: bool = False) -> None:
        super().__init__(name, say)
        self.memory = memory
        self.wrong = wrong
        self.seen: list[CacheVersion | None] = []

    async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
        self.seen.append(request.version)
        if self.wrong and request.version:
            self.memory.clear()
            raise Outdated
        request.rely_on_nothing()
        return await super().decide(request, earlier)


class Charges(Says):
    """A policy that charges an account, and refuses if that does not fit."""

    def __init__(self, name: str, limit: int, refusal: str = "REJECT full", extra: int | None = None) -> None:
        super().__init__(name, refusal)
        self.charges = [_charge(name, limit)] + ([_charge(f"{name} 2", extra)] if extra is not None else [])

    async def decide(  # type: ignore[override]
        self, request: OutboundPPR, earlier: Sequence[Decision]
    ) -> PendingDecision:
        await super().decide(request, earlier)
        return PendingDecision(self.charges, self.conclude)

    explain = decide  # type: ignore[assignment]

    def conclude(self, request: OutboundPPR, charges: Sequence[Charge], spent: Spent) -> Decision:
        figures = dict(zip([charge.account.name for charge in charges], spent.used, strict=True))
        if spent.decisive < 0:
            return Decision("DUNNO", Reason.WITHIN_QUOTA, self.name, figures)
        detail = charges[spent.decisive].account.name
        return Decision(str(self.say), Reason.QUOTA_EXCEEDED, self.name, figures, detail)


def _charge(name: str, limit: int) -> Charge:
    return Charge(Account("test", name), Unit.MESSAGES, 1, limit, 100.0)


FIRST = CacheVersion(b"1000")


class PipelineTests(SynchronousTestCase):
    wrong: list[CacheVersion]
    unavailable: bool

    def setUp(self) -> None:
        self.wrong, self.unavailable = [], False
        self.confirmed: list[CacheVersion] = []
        self.used: defaultdict[Account, int] = defaultdict(int)
        self.operations = 0

    async def settle(self, request: OutboundPPR, decision: Decision) -> Decision:
        """What runs on accepting answers."""
        self.settled.append(decision.action)
        return decision

    async def confirm(self, version: CacheVersion) -> bool:
        """Find a version outdated that is in ``wrong``, once."""
        self.confirmed.append(version)
        wrong, self.wrong = self.wrong, []
        if self.unavailable:
            raise StateUnavailable("The store does not answer.")
        return version not in wrong

    async def peek(self, message: Message, charges: Sequence[Charge]) -> Spent:
        """Charge one for each, all or nothing, and change nothing. The first that does not fit is decisive."""
        self.operations += 1
        if self.unavailable:
            raise StateUnavailable("The store does not answer.")
        full = [place for place, each in enumerate(charges) if self.used[each.account] >= each.limit]
        used = tuple(self.used[each.account] + (not full) for each in charges)
        return Spent(Outcome.EXCEEDED, full[0], used, 9.0) if full else Spent(Outcome.ACCEPTED, -1, used, 0.0)

    def spend(self, message: Message, charges: Sequence[Charge], version: CacheVersion | None = None) -> Reply[Spent]:
        return replied(self._spend(message, charges, version))

    async def _spend(self, message: Message, charges: Sequence[Charge], version: CacheVersion | None) -> Spent:
        """Charge one for each, all or nothing, if the version is not outdated."""
        if version and not await self.confirm(version):
            return Spent(Outcome.OUTDATED, -1, (), 0.0)
        spent = await self.peek(message, charges)
        if spent.decisive < 0:
            self.used.update({each.account: used for each, used in zip(charges, spent.used, strict=True)})
        return spent

    def ask(
        self, *slots: PolicySlot | Says, exempted: Callable[[OutboundPPR], Decision | None] = lambda _: None
    ) -> Answer:
        self.failures: list[tuple[str, Exception]] = []
        self.settled: list[str] = []
        pipeline = Pipeline(
            "test",
            [slot if isinstance(slot, PolicySlot) else PolicySlot(slot) for slot in slots],
            exempted,
            lambda name, error: self.failures.append((name, error)),
            CancelledError,
            self.settle,
            cast(LiveState, self),
        )
        self.pipeline = pipeline
        return self.successResultOf(answer_of(pipeline, OutboundPPR(REQUEST.attributes)))

    def test_the_first_stopping_decision_is_the_answer_and_ends_the_pipeline(self) -> None:
        never = Says("C", "REJECT c")
        answer = self.ask(Says("A", "PREPEND X: 1"), Says("B", "DEFER b"), never)
        self.assertEqual(answer.decision.action, "DEFER b")
        self.assertEqual([decision.policy for decision in answer.decisions], ["A", "B"])
        self.assertIsNone(never.earlier)

    def test_otherwise_the_last_decision_other_than_dunno_is_the_answer(self) -> None:
        answer = self.ask(Says("A", "OK"), Says("B", "PREPEND X: 1"), Says("C", "DUNNO"))
        self.assertEqual(answer.decision.action, "PREPEND X: 1")

    def test_if_all_decide_dunno_the_last_one_is_the_answer(self) -> None:
        self.assertEqual(self.ask(Says("A", "DUNNO"), Says("B", "DUNNO")).decision.policy, "B")

    def test_a_policy_gets_the_earlier_decisions(self) -> None:
        second = Says("B", "DUNNO")
        self.ask(Says("A", "PREPEND X: 1"), second)
        self.assertEqual(second.earlier, ["PREPEND X: 1"])

    def test_a_policy_may_decide_without_a_coroutine(self) -> None:
        class AtOnce(Says):
            def decide(  # type: ignore[override]
                self, request: OutboundPPR, earlier: Sequence[Decision]
            ) -> Decision:
                return Decision(str(self.say), Reason.WITHIN_QUOTA, self.name)

            explain = decide  # type: ignore[assignment]

        answer = self.ask(AtOnce("A", "PREPEND X: 1"), AtOnce("B", "REJECT b"), Says("C", "DUNNO"))
        self.assertEqual([each.action for each in answer.decisions], ["PREPEND X: 1", "REJECT b"])
        self.assertEqual(self.explained().decision, answer.decision)

    def test_shadow_mode_lets_mail_through(self) -> None:
        answer = self.ask(PolicySlot(Says("A", "REJECT a"), shadow=True), Says("B", "DUNNO"))
        self.assertEqual(answer.decision.action, "DUNNO")
        self.assertEqual((answer.decisions[0].action, answer.decisions[0].shadow), ("DUNNO", "REJECT a"))

    def test_shadow_mode_hides_the_result_from_later_policies(self) -> None:
        class Demands(Says):
            async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
                return Decision("DUNNO", Reason.SPF_SOFTFAIL, self.name, greylist=True, client="example.org")

        (found, _) = self.ask(PolicySlot(Demands("A", ""), shadow=True), Says("B", "DUNNO")).decisions
        self.assertEqual((found.greylist, found.client, found.reason), (False, "", Reason.SPF_SOFTFAIL))

    def test_settle_runs_on_accepting_answers_other_than_dunno(self) -> None:
        header = Says("A", "PREPEND X: 1")
        self.ask(header, Says("B", "DUNNO"))
        self.assertEqual(self.settled, ["PREPEND X: 1"])
        for other in ("DEFER b", "PREPEND X: 2"):
            self.ask(header, Says("B", other))
        self.assertEqual(self.settled, ["PREPEND X: 2"])
        self.ask(Says("A", "DUNNO"))
        self.assertEqual(self.settled, [])

    def test_on_failure_applies_if_settle_fails(self) -> None:
        async def away(request: OutboundPPR, decision: Decision) -> Decision:
            raise StateUnavailable("x")

        self.patch(self, "settle", away)
        answer = self.ask(PolicySlot(Says("A", "PREPEND X: 1"), accept_on_failure=True), Says("B", "DUNNO"))
        self.assertEqual((answer.decision.action, answer.decision.reason), ("DUNNO", Reason.STATE_UNAVAILABLE))
        self.assertEqual(self.ask(Says("A", "PREPEND X: 1")).decision.action, DEFER)

    def test_a_policy_without_its_stores_defers_or_accepts(self) -> None:
        for error, reason in (
            (StateUnavailable("x"), Reason.STATE_UNAVAILABLE),
            (BookUnavailable("x"), Reason.BOOK_UNAVAILABLE),
            (CancelledError("x"), Reason.TIMED_OUT),
        ):
            deferred = self.ask(PolicySlot(Says("A", error)), Says("B", "DUNNO")).decision
            self.assertEqual((deferred.action, deferred.reason), (DEFER, reason))
            accepted = self.ask(PolicySlot(Says("A", error), accept_on_failure=True), Says("B", "DUNNO"))
            self.assertEqual([each.action for each in accepted.decisions], ["DUNNO", "DUNNO"])
            self.assertEqual(self.failures, [])

    def test_the_user_is_known_although_an_outbound_policy_had_no_store_to_look_into(self) -> None:
        for more, known in ({}, "ann"), ({"inbound": True}, ""), ({"both": True}, ""):
            request = OutboundPPR({**REQUEST.attributes, "sasl_username": "Ann"})
            self.ask(PolicySlot(Says("A", StateUnavailable("x")), **more))
            self.successResultOf(answer_of(self.pipeline, request))
            self.assertEqual(request.known_user, known)

    def test_a_failure_without_a_user_is_answered(self) -> None:
        request = OutboundPPR(REQUEST.attributes)
        self.ask(Says("A", StateUnavailable("x")))
        answer = self.successResultOf(answer_of(self.pipeline, request))
        self.assertEqual((answer.decision.reason, request.known_user), (Reason.STATE_UNAVAILABLE, ""))

    def test_an_unexpected_exception_is_a_failure_and_is_reported(self) -> None:
        answer = self.ask(Says("A", ZeroDivisionError("oops")), Says("B", "DUNNO"))
        self.assertEqual((answer.decision.action, answer.decision.reason), (DEFER, Reason.POLICY_FAILED))
        self.assertEqual([(name, str(error)) for name, error in self.failures], [("A", "oops")])

    def test_returning_something_other_than_a_decision_is_a_failure(self) -> None:
        class Forgets(Says):
            answer: Any

            async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
                return cast(Decision, self.answer)

            explain = decide

        policy = Forgets("A", "")
        for policy.answer in (None, "DUNNO", ("DUNNO", Reason.NO_USER)):
            answer = self.ask(PolicySlot(policy, accept_on_failure=True), Says("B", "REJECT b"))
            self.assertEqual([each.reason for each in answer.decisions], [Reason.POLICY_FAILED, Reason.WITHIN_QUOTA])
            self.assertEqual([name for name, _ in self.failures], ["A"])
            self.ask(PolicySlot(policy, shadow=True))
            explained = self.successResultOf(Deferred.fromCoroutine(self.pipeline.explain(REQUEST))).decision
            self.assertEqual((explained.action, explained.shadow), ("DUNNO", DEFER))

    def test_an_exempt_client_skips_only_the_inbound_policies(self) -> None:
        exempt = Decision("DUNNO", Reason.LOGGED_IN, "Exemption")
        inbound, other = Says("A", "DEFER x"), Says("B", "PREPEND X: 1")
        answer = self.ask(PolicySlot(inbound, inbound=True), other, exempted=lambda _: exempt)
        self.assertEqual(answer.decision.action, "PREPEND X: 1")
        self.assertIsNone(inbound.earlier)
        self.assertFalse(self.pipeline.inbound)
        answer = self.ask(PolicySlot(inbound, inbound=True), exempted=lambda _: exempt)
        self.assertEqual(answer.decision, exempt)
        self.assertTrue(self.pipeline.inbound)

    def test_a_policy_for_both_directions_is_not_skipped_for_an_exempt_client(self) -> None:
        exempt = Decision("DUNNO", Reason.LOGGED_IN, "Exemption")
        inbound, both = Says("A", "DEFER x"), Says("B", "REJECT b")
        answer = self.ask(PolicySlot(inbound, inbound=True), PolicySlot(both, both=True), exempted=lambda _: exempt)
        self.assertEqual(answer.decision.action, "REJECT b")
        self.assertIsNone(inbound.earlier)

    def test_a_listener_is_inbound_if_it_has_inbound_policies_and_no_outbound_ones(self) -> None:
        inbound, outbound, both = (
            PolicySlot(Says("A", "DUNNO"), inbound=True),
            PolicySlot(Says("B", "DUNNO")),
            PolicySlot(Says("C", "DUNNO"), both=True),
        )
        for slots, expected in (
            ([inbound], True),
            ([both, inbound], True),
            ([both], False),
            ([outbound, both], False),
            ([inbound, outbound], False),
        ):
            self.ask(*slots)
            self.assertIs(self.pipeline.inbound, expected)

    def test_a_decision_that_is_partly_in_shadow_mode_keeps_that_in_shadow_mode(self) -> None:
        class Shadows(Says):
            async def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> Decision:
                return Decision("DUNNO", Reason.RATE_LIMITED, self.name, shadow="REJECT no")

        answer = self.ask(PolicySlot(Shadows("A", ""), shadow=True))
        self.assertEqual(answer.decision.shadow, "REJECT no")

    def test_explain_runs_every_policy(self) -> None:
        self.ask(Says("A", "REJECT a"), Says("B", "DUNNO"))
        explained = self.successResultOf(Deferred.fromCoroutine(self.pipeline.explain(REQUEST)))
        self.assertEqual([each.action for each in explained.decisions], ["REJECT a", "DUNNO"])

    def test_explain_returns_the_answer_that_would_be_sent(self) -> None:
        for actions in itertools.product(("DUNNO", "PREPEND X: 1", "OK", "REJECT no"), repeat=3):
            answered = self.ask(*(Says(f"P{place}", action) for place, action in enumerate(actions)))
            explained = self.successResultOf(Deferred.fromCoroutine(self.pipeline.explain(REQUEST)))
            self.assertEqual(explained.decision, answered.decision, actions)
            self.assertEqual(len(explained.decisions), 3)

    def test_on_failure_applies_to_invalid_requests(self) -> None:
        self.ask(Says("A", "DUNNO"))
        self.assertEqual(self.pipeline.unreadable("why").action, DEFER)
        self.ask(PolicySlot(Says("A", "DUNNO"), accept_on_failure=True))
        self.assertEqual(self.pipeline.unreadable("why").action, "DUNNO")

    def test_a_version_that_a_policy_has_confirmed_is_not_confirmed_again(self) -> None:
        memory = [FIRST]
        relies, counts = Relies("A", "DUNNO", memory), Counts("B", "DUNNO", memory)
        answer = self.ask(relies, counts)
        self.assertEqual((answer.decision.policy, relies.asked, counts.seen), ("B", 1, [FIRST]))
        self.assertEqual(self.confirmed, [])

    def test_all_policies_decide_again_when_a_version_is_outdated(self) -> None:
        memory = [FIRST]
        relies, counts = Relies("A", "DUNNO", memory), Counts("B", "DUNNO", memory, wrong=True)
        answer = self.ask(relies, counts)
        self.assertEqual([decision.policy for decision in answer.decisions], ["A", "B"])
        self.assertEqual((relies.asked, counts.seen), (2, [FIRST, None]))

    def test_a_version_is_confirmed_before_any_answer(self) -> None:
        for say in ("DUNNO", "PREPEND X: 1", "REJECT no"):
            with self.subTest(say):
                self.setUp()
                answer = self.ask(Relies("A", "DUNNO", [FIRST]), Says("B", say))
                self.assertEqual((answer.decision.action, self.confirmed), (say, [FIRST]))

    def test_all_policies_decide_again_when_the_state_finds_a_version_outdated(self) -> None:
        self.wrong = [FIRST]
        relies, then = Relies("A", "DUNNO", [FIRST]), Says("B", "PREPEND X: 1")
        answer = self.ask(relies, then)
        self.assertEqual((answer.decision.action, relies.asked), ("PREPEND X: 1", 2))
        self.assertEqual((self.confirmed, self.settled), ([FIRST, FIRST], ["PREPEND X: 1"]))

    def test_the_mail_is_deferred_or_accepted_when_a_version_cannot_be_confirmed(self) -> None:
        self.unavailable = True
        for accept, action in ((False, DEFER), (True, "DUNNO")):
            answer = self.ask(PolicySlot(Relies("A", "DUNNO", [FIRST]), accept_on_failure=accept))
            self.assertEqual((answer.decision.action, answer.decision.reason), (action, Reason.STATE_UNAVAILABLE))

    def explained(self) -> Answer:
        return self.successResultOf(Deferred.fromCoroutine(self.pipeline.explain(REQUEST)))

    def charged(self) -> dict[str, int]:
        return {account.name: used for account, used in self.used.items() if used}

    def test_mail_is_deferred_if_any_policy_that_defers_may_rely_on_what_cannot_be_confirmed(self) -> None:
        self.unavailable = True
        answer = self.ask(Relies("A", "DUNNO", [FIRST]), PolicySlot(Says("B", "DUNNO"), accept_on_failure=True))
        self.assertEqual((answer.decision.action, answer.decision.policy), (DEFER, "A"))

    def test_all_policies_are_charged_in_one_operation(self) -> None:
        answer = self.ask(Charges("A", 5, extra=5), Says("B", "OK"), Charges("C", 5))
        self.assertEqual([(each.policy, each.figures) for each in answer.decisions if each.figures], [
            ("A", {"A": 1, "A 2": 1}), ("C", {"C": 1})
        ])  # fmt: skip
        self.assertEqual([each.policy for each in answer.decisions], ["A", "B", "C"])
        self.assertEqual((answer.decision.action, self.operations), ("OK", 1))

    def test_nothing_is_charged_if_one_charge_does_not_fit(self) -> None:
        answer = self.ask(Charges("A", 5), Charges("B", 5, extra=0), Charges("C", 5))
        self.assertEqual((answer.decision.policy, answer.decision.detail), ("B", "B 2"))
        self.assertEqual([each.policy for each in answer.decisions], ["B"])
        self.assertEqual(self.charged(), {})

    def test_nothing_is_charged_if_a_later_policy_stops_the_mail(self) -> None:
        answer = self.ask(Charges("A", 5), Says("B", "REJECT b"))
        self.assertEqual([each.policy for each in answer.decisions], ["B"])
        self.assertEqual((self.charged(), self.operations), ({}, 0))

    def test_a_charge_that_does_not_fit_and_does_not_stop_the_mail_is_left_out(self) -> None:
        answer = self.ask(Charges("A", 0, "HOLD full", extra=5), Charges("B", 5))
        self.assertEqual((answer.decision.action, self.charged()), ("HOLD full", {"A 2": 1, "B": 1}))
        self.assertEqual([each.policy for each in answer.decisions], ["A", "B"])

    def test_after_a_charge_that_is_left_out_another_may_stop_the_mail(self) -> None:
        answer = self.ask(Charges("A", 0, "HOLD full"), Charges("B", 0))
        self.assertEqual((answer.decision.policy, answer.decision.action), ("B", "REJECT full"))
        self.assertEqual(self.charged(), {})

    def test_a_policy_in_shadow_mode_cannot_keep_the_others_from_being_charged(self) -> None:
        answer = self.ask(PolicySlot(Charges("A", 0), shadow=True), Charges("B", 5))
        self.assertEqual(
            [(each.action, each.shadow) for each in answer.decisions], [("DUNNO", "REJECT full"), ("DUNNO", "")]
        )
        self.assertEqual(self.charged(), {"B": 1})

    def test_what_cannot_stop_the_mail_is_left_out_before_anything_is_charged(self) -> None:
        class Advises(Charges):
            async def decide(  # type: ignore[override]
                self, request: OutboundPPR, earlier: Sequence[Decision]
            ) -> PendingDecision:
                return PendingDecision(self.charges[:1], self.conclude, advisory=self.charges[1:])

            explain = decide

        for last, action, counted in ((0, "HOLD full", {"A": 1}), (5, "DUNNO", {"A": 1, "A 2": 1})):
            self.used.clear()
            self.operations = 0
            answer = self.ask(Advises("A", 5, "HOLD full", extra=last))
            self.assertEqual((answer.decision.action, self.charged(), self.operations), (action, counted, 2))
            self.used.clear()
            self.assertEqual(self.explained().decision, answer.decision)

    def test_the_version_is_confirmed_with_the_charges(self) -> None:
        self.ask(Relies("A", "DUNNO", [FIRST]), Charges("B", 5))
        self.assertEqual((self.confirmed, self.operations), ([FIRST], 1))

    def test_all_policies_decide_again_when_a_version_is_outdated_and_nothing_was_charged(self) -> None:
        self.wrong = [FIRST]
        relies = Relies("A", "DUNNO", [FIRST])
        self.ask(relies, Charges("B", 5))
        self.assertEqual((relies.asked, self.charged()), (2, {"B": 1}))

    def test_if_nothing_can_be_charged_on_failure_of_the_policies_applies(self) -> None:
        self.unavailable = True
        for accept, action in ((False, DEFER), (True, "DUNNO")):
            answer = self.ask(PolicySlot(Charges("A", 5), accept_on_failure=accept))
            self.assertEqual((answer.decision.action, answer.decision.reason), (action, Reason.STATE_UNAVAILABLE))
            self.assertEqual(self.explained().decision, answer.decision)

    def test_explain_tells_the_decisions_of_all_policies_and_charges_nothing(self) -> None:
        for policies in (
            [Charges("A", 5), Charges("B", 0), Charges("C", 0)],
            [Charges("A", 0, "HOLD full"), Charges("B", 5, extra=5)],
            [Charges("A", 5), Says("B", "REJECT b")],
            [Says("A", "OK"), Charges("B", 5)],
        ):
            answered = self.ask(*policies)
            self.used.clear()
            explained = self.explained()
            self.assertEqual(explained.decision, answered.decision)
            self.assertEqual([each.policy for each in explained.decisions], [each.name for each in policies])
            self.assertEqual(self.charged(), {})
