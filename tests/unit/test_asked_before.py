"""Policies that are not asked again about requests that are alike: the answers are those of policies that are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.config.limits import RateLimit, parse_match, parse_window
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Exemption, Limit, Override, Plan, UserPlan
from chapps_tw.interfaces.state import CacheVersion, LiveState, Unit, ValueKey
from chapps_tw.interfaces.value_keys import EXEMPTIONS, sender, senders_of_domain, user_plan
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events
from chapps_tw.policies.exemptions import Exemptions
from chapps_tw.policies.rate_limit import RateLimitPolicy
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from chapps_tw.policies.slots import Policy, PolicySlot
from chapps_tw.postfix.pipeline import Pipeline
from tests.support.policy_case import PolicyCase, quota_policy
from tests.support.replies import answer_of

USERS = ("ann@example.com", "bob@example.com", "eve@example.org", "")
SENDERS = ("ann@example.com", "sales@example.com", "ANN@example.com", "x@example.net", "", "x")


class Node:
    """A listener with sender authorization, quota and a limit, and what it was told.

    :param remembers: whether what the policies said is used again.
    """

    def __init__(self, remembers: bool) -> None:
        self.case = PolicyCase()
        self.case.setUp()
        self.case.book.senders = {
            "ann@example.com": {"example.com", "x@example.net"},
            "bob@example.com": {"example.com"},
        }
        self.case.book.users = {
            "ann@example.com": UserPlan(True, 1),
            "bob@example.com": UserPlan(True, 2),
            "eve@example.org": UserPlan(True, 3),
        }
        hour, size = (
            Limit("hour", Unit.RECIPIENTS, 30, 3600, "refuse"),
            Limit("size", Unit.BYTES, 500, 60, "refuse"),
        )
        held = Limit("held", Unit.MESSAGES, 3, 60, "hold")
        self.case.book.plans = {1: Plan(1, "a", 12, (hour,)), 2: Plan(2, "b", 8, (size,)), 3: Plan(3, "c", 5, (held,))}
        limit = RateLimit(
            name="clients",
            per="client",
            unit=Unit.MESSAGES,
            amount=20,
            window=parse_window("10m"),
            match=parse_match(""),
        )
        settings, clock, state = Settings(limits=(limit,)), self.case.clock.seconds, self.case.state
        exempt = Exemptions(state, self.case.book, clock).of
        self.settings = settings
        policies: list[Policy] = [
            SenderDomainAuthPolicy(settings, state, self.case.book, exempt=exempt),
            quota_policy(self.case, settings),
            RateLimitPolicy(
                settings,
                Events(state, clock, clock, Deferred.fromCoroutine, lambda _: None),
                Reservations(settings.rlp.reservation_ttl, clock),
                exempt,
            ),
        ]
        self.pipeline = _pipeline(policies, state)
        if not remembers:
            self.pipeline.asked_before._attributes = ()

    def send(self, request: OutboundPPR) -> Sequence[Decision]:
        return self.case.run_now(answer_of(self.pipeline, request)).decisions

    def stop(self) -> None:
        self.case.doCleanups()


def _pipeline(policies: Sequence[Policy], state: LiveState) -> Pipeline:
    async def settled(request: OutboundPPR, decision: Decision) -> Decision:
        return decision

    def failed(_policy: str, error: Exception) -> None:
        raise AssertionError from error

    slots = [PolicySlot(policy) for policy in policies]
    return Pipeline("test", slots, lambda _: None, failed, CancelledError, settled, state)


requests = st.fixed_dictionaries(
    {
        "protocol_state": st.sampled_from(("RCPT", "RCPT", "DATA", "END-OF-MESSAGE", "MAIL")),
        "sasl_username": st.sampled_from(USERS),
        "sender": st.sampled_from(SENDERS),
        "recipient": st.sampled_from(("a@example.edu", "b@example.edu", "")),
        "recipient_count": st.sampled_from(("0", "1", "3")),
        "size": st.sampled_from(("0", "100", "400")),
        "client_address": st.sampled_from(("192.0.2.1", "192.0.2.2")),
        "instance": st.sampled_from([f"i{number}" for number in range(12)]),
        "server_port": st.sampled_from(("25", "587")),
    }
)
changes = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from((1.0, 4.0, 30.0, 700.0))),
    st.tuples(st.just("quota"), st.integers(1, 3)),
    st.tuples(st.just("link"), st.booleans()),
    st.tuples(st.just("override"), st.sampled_from(("suspended", "extra", "unlimited"))),
    st.tuples(st.just("exempt"), st.sampled_from(("sender_authorization", "limit:clients"))),
)


def _apply(node: Node, kind: str, value: object) -> None:
    case, now = node.case, node.case.clock.seconds()
    keys: list[ValueKey] = []
    if kind == "wait":
        case.clock.advance(cast(float, value))
    elif kind == "quota":
        case.book.users["ann@example.com"] = UserPlan(True, cast(int, value))
        keys = [user_plan("ann@example.com")]
    elif kind == "link":
        case.book.senders["bob@example.com"] = {"example.com"} if value else set()
        keys = [senders_of_domain("example.com"), sender("bob@example.com", "example.com")]
    elif kind == "override":
        made = Override(1, str(value), 5, "", now + 2.0, now + 6.0, "because", "refuse")
        case.book.users["ann@example.com"] = UserPlan(True, 1, (made,))
        keys = [user_plan("ann@example.com")]
    else:
        case.book.exempt = [Exemption(1, "client", "192.0.2.1", str(value), now + 3.0, "partner", "me")]
        keys = [EXEMPTIONS]
    if keys:
        case.run_now(case.state.drop_values(keys))


class AnswerTests(SynchronousTestCase):
    @given(st.lists(st.one_of(requests, requests, requests, changes), min_size=10, max_size=60))
    def test_the_answers_are_the_same_as_if_the_policies_were_always_asked(self, steps: list[object]) -> None:
        nodes = [Node(True), Node(False)]
        try:
            for step in steps:
                if isinstance(step, dict):
                    said = [node.send(OutboundPPR(step, cfg=node.settings)) for node in nodes]
                    self.assertEqual(*[[each._replace(source="") for each in decisions] for decisions in said])
                else:
                    for node in nodes:
                        _apply(node, *cast(tuple[str, object], step))
        finally:
            for node in nodes:
                node.stop()


class Counted:
    """A policy that counts how often it is asked."""

    name = "Counted"

    def __init__(self, policy: Policy, depends_on: tuple[str, ...]) -> None:
        self._policy = policy
        self.depends_on = depends_on
        self.asked = 0

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision]) -> object:
        self.asked += 1
        return self._policy.decide(request, earlier)

    explain = decide


class AskingTests(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.book.quotas = {"ann@example.com": 1000}
        self.settings = Settings()

    def listener(self, depends_on: tuple[str, ...] | None = None) -> Pipeline:
        quota = quota_policy(self, self.settings)
        self.counted = Counted(quota, quota.depends_on if depends_on is None else depends_on)
        return _pipeline([cast(Policy, self.counted)], self.state)

    def send(self, listener: Pipeline, instance: str, **attributes: str) -> Decision:
        base = {"protocol_state": "RCPT", "sasl_username": "ann@example.com", "sender": "ann@example.com"}
        request = {**base, "recipient": "b@example.edu", "instance": instance, **attributes}
        return self.run_now(answer_of(listener, OutboundPPR(request, cfg=self.settings))).decision

    def test_a_policy_is_asked_once_about_requests_that_are_alike(self) -> None:
        listener = self.listener()
        used = [
            self.send(listener, f"i{number}", recipient=f"{number}@example.edu").figures["used"] for number in range(9)
        ]
        self.assertEqual(used, list(range(1, 10)))
        # The first time, the book was read; the second time, the live state; what is said then comes from memory.
        self.assertEqual(self.counted.asked, 3)
        self.assertEqual((listener.asked_before.looks, listener.asked_before.misses), (9, 3))

    def test_a_policy_that_does_not_say_what_it_depends_on_is_always_asked(self) -> None:
        listener = self.listener(depends_on=())
        for number in range(5):
            self.send(listener, f"i{number}")
        self.assertEqual(self.counted.asked, 5)

    def test_a_policy_is_asked_again_when_a_value_was_dropped(self) -> None:
        listener = self.listener()
        for number in range(3):
            self.send(listener, f"i{number}")
        self.book.quotas["ann@example.com"] = 3
        self.run_now(self.state.drop_values([user_plan("ann@example.com")]))
        self.assertEqual(self.send(listener, "i9").reason, Reason.QUOTA_EXCEEDED)

    def test_a_policy_is_asked_again_after_a_while(self) -> None:
        listener = self.listener()
        for number in range(3):
            self.send(listener, f"i{number}")
        asked = self.counted.asked
        self.clock.advance(6.0)
        self.send(listener, "i9")
        self.assertEqual(self.counted.asked, asked + 1)

    def test_the_user_is_known_to_the_report_of_each_request(self) -> None:
        listener = self.listener()
        for number in range(3):
            self.send(listener, f"i{number}")
        attributes = {"protocol_state": "RCPT", "sasl_username": "Ann@Example.com", "sender": "ann@example.com"}
        for name in ("Ann@Example.com", "Ann@Example.com", "Ann@Example.com"):
            request = OutboundPPR({**attributes, "sasl_username": name, "recipient": "b@c"}, cfg=self.settings)
            self.run_now(answer_of(listener, request))
            self.assertEqual(request.known_user, "ann@example.com")

    def test_no_policy_is_remembered_of_another_version(self) -> None:
        listener = self.listener()
        for number in range(3):
            self.send(listener, f"i{number}")
        self.patch(self.state, "version", lambda: CacheVersion(b"other"))
        asked = self.counted.asked
        self.send(listener, "i9")
        self.assertGreater(self.counted.asked, asked)
