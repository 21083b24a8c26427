"""A ten-line model of greylisting, and a comparison of the policy with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from chapps_tw.config.settings import GreylistingPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.greylisting import GreylistingPolicy
from tests.support.examples import examples
from tests.support.policy_case import DictBook
from tests.support.replies import decision_of

DEFERRAL, LIFETIME, THRESHOLD = 60.0, 3600.1, 2


def request(instance: str = "i1", **attributes: str) -> OutboundPPR:
    return OutboundPPR(
        {
            "protocol_state": "RCPT",
            "client_address": "192.0.2.1",
            "sender": "alice@example.com",
            "recipient": "bob@grey.example",
            "instance": instance,
        }
        | attributes
    )


class Model:
    """Whether an attempt passes. The model never removes anything."""

    def __init__(self) -> None:
        self.met: dict[tuple[str, str], tuple[float, float]] = {}
        self.passed: dict[str, tuple[tuple[str, ...], float]] = {}

    def passes(self, now: float, client: str, sender: str, instance: str) -> bool:
        first, last = self.met.get((client, sender), (now, now))
        first = first if now - last <= LIFETIME else now
        tally, until = self.passed.get(client, ((), now))
        tally = tally if now < until else ()
        known = len(tally) >= THRESHOLD
        if not known:
            self.met[client, sender] = (first, now)
        passes = known or now - first >= DEFERRAL
        if passes and instance not in tally:
            self.passed[client] = ((*tally, instance)[-THRESHOLD:], now + LIFETIME)
        return passes


class Attempt(NamedTuple):
    """A delivery attempt.

    :ivar pause: seconds since the previous attempt. Never 0, and no sum equals the lifetime.
    """

    pause: float
    address: str
    sender: str
    instance: str


attempts = st.builds(
    Attempt,
    pause=st.sampled_from([0.25, 1.0, 20.0, 59.0, 60.0, 61.0, 3599.0, 3601.0]),
    address=st.sampled_from(["192.0.2.1", "192.0.2.9", "198.51.100.1"]),
    sender=st.sampled_from(["a@example.com", "B@example.com", "b@example.com", ""]),
    instance=st.sampled_from(["i1", "i2", "i3", "i4", "i5", "i6"]),
)


class Subject(NamedTuple):
    """A new state.

    :ivar run: runs a coroutine to its decision.
    :ivar advance: advances its clock.
    """

    state: LiveState
    run: Callable[[Coroutine[Any, Any, Decision]], Decision]
    advance: Callable[[float], None]


def compare_with_model(new_subject: Callable[[], Subject]) -> None:
    """Compare random sequences of attempts, each on a new state."""
    section = dataclasses.replace(
        Section(),
        minimum_deferral=DEFERRAL,
        retry_window=LIFETIME,
        pass_ttl=LIFETIME,
        tally_ttl=LIFETIME,
        whitelist_threshold=THRESHOLD,
    )
    book = DictBook()
    book.flags = {"grey.example": (True, False)}

    @profile(max_examples=examples(200), deadline=None)
    @given(st.lists(attempts, min_size=10, max_size=50))
    def compare(attempts: list[Attempt]) -> None:
        subject, model, now = new_subject(), Model(), 0.0
        policy = GreylistingPolicy(Settings(grl=section), subject.state, book)
        for pause, address, sender, instance in attempts:
            subject.advance(pause)
            now += pause
            decision = subject.run(decision_of(policy.decide(request(instance, client_address=address, sender=sender))))
            network = address.rpartition(".")[0]
            assert decision.stops != model.passes(now, network, sender.lower(), instance), decision

    compare()
