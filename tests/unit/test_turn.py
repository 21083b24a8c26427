"""The end of a turn of the reactor."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.sockets.turn import Turn

TURN = 0.001


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        # Unlike the reactor, a Clock does in the same turn what is asked for in it.
        self.turn = Turn(lambda seconds, call: self.clock.callLater(seconds or TURN, call))
        self.done: list[str] = []

    def add(self, name: str) -> None:
        self.turn.at_end(lambda: self.done.append(name))

    def test_functions_are_called_in_order_at_the_end_of_the_turn(self) -> None:
        self.add("a")
        self.add("b")
        self.assertEqual(self.done, [])
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_added_at_the_end_is_done_in_the_next_turn(self) -> None:
        self.turn.at_end(lambda: self.add("b"))
        self.add("a")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a"])
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b"])

    def test_what_the_last_work_of_a_turn_leads_to_is_done_at_once(self) -> None:
        self.turn.end_with(lambda: self.add("a"))
        self.assertEqual(self.done, ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_is_logged_and_the_others_are_done(self) -> None:
        self.turn.at_end(lambda: 1 // 0)
        self.add("a")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.add("b")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b"])
