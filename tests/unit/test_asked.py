"""What is known of each listener, and the warning about policies that are never asked where they apply."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.application.asked import LOOK_SECONDS, ListenerStates
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.interfaces.state import Unit
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.policies.registry import BUILT_IN
from chapps_tw.policies.stages import OBSERVATION_SECONDS, of_units

NOW = 1_790_000_000.0


class ListenerStatesTests(SynchronousTestCase):
    """One listener with greylisting, which needs RCPT."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.requests = ListenerRequests()
        self.said: list[str] = []
        listener = Listener("in", "tcp:10226", ("GreylistingPolicy",))
        self.slots: list[Any] = []
        pipeline = SimpleNamespace(slots=self.slots)
        factories: Any = {"in": SimpleNamespace(peers={"192.0.2.25": 2.0}, pipeline=pipeline)}
        self.states = ListenerStates(
            Settings(own_listeners=(listener,)), BUILT_IN, self.requests, factories, self.clock, self.now
        )
        observer = cast(ILogObserver, self.note)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.states.start()
        self.addCleanup(self.states.stop)

    def now(self) -> float:
        return NOW + self.clock.seconds()

    def note(self, event: LogEvent) -> None:
        self.said.append(formatEvent(event))

    def ask(self, stage: str) -> None:
        self.requests.add("in", PolicyRequest({"protocol_state": stage}), self.now())

    def ask_for_long(self, *stages: str) -> None:
        for stage in stages:
            self.ask(stage)
        self.clock.advance(OBSERVATION_SECONDS)
        for stage in stages:
            self.ask(stage)
        self.clock.pump([LOOK_SECONDS] * 3)

    def test_clients_are_shown_with_the_time_at_which_they_asked(self) -> None:
        (state,) = self.states.states()
        self.assertEqual((state.asked, state.peers, state.warnings), (None, {"192.0.2.25": NOW + 2}, []))

    def test_a_policy_that_is_never_asked_where_it_applies_is_logged_once(self) -> None:
        self.ask_for_long("DATA", "END-OF-MESSAGE")
        (sentence,) = self.said
        self.assertIn("listener in: never applied: GreylistingPolicy", sentence)
        (state,) = self.states.states()
        self.assertEqual(sentence, f"listener in: {state.warnings[0]}")

    def test_a_policy_that_is_asked_where_it_applies_is_not(self) -> None:
        self.ask_for_long("RCPT", "DATA")
        self.assertEqual(self.said, [])

    def test_a_policy_may_learn_what_it_needs_from_the_policy_book(self) -> None:
        needs = list(of_units("limits of quotas", [Unit.BYTES]))
        self.slots.append(SimpleNamespace(policy=SimpleNamespace(name="OutboundQuotaPolicy", needs=needs)))
        self.ask_for_long("RCPT", "DATA")
        (sentence,) = self.said
        self.assertIn("never applied: limits of quotas, since bytes are known only at END-OF-MESSAGE", sentence)

    def test_nothing_is_said_before_there_was_traffic_for_some_minutes(self) -> None:
        self.ask("DATA")
        self.clock.pump([LOOK_SECONDS] * 10)
        self.assertEqual(self.said, [])
