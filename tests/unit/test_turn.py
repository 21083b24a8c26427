"""The end of a turn of the reactor."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.sockets.turn import Stage, Turn

TURN = 0.001


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        # Unlike the reactor, a Clock does in the same turn what is asked for in it.
        self.turn = Turn(lambda seconds, call: self.clock.callLater(seconds or TURN, call))
        self.done: list[str] = []

    def add(self, name: str, stage: Stage = Stage.WRITE) -> None:
        self.turn.at_end(stage, lambda: self.done.append(name))

    def test_functions_are_called_in_order_at_the_end_of_the_turn(self) -> None:
        self.add("a")
        self.add("b")
        self.assertEqual(self.done, [])
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_added_at_the_end_is_done_in_the_next_turn(self) -> None:
        self.turn.at_end(Stage.WRITE, lambda: self.add("b"))
        self.turn.at_end(Stage.WRITE, lambda: self.add("c", Stage.DECIDE))
        self.add("a")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a"])
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "c", "b"])

    def test_a_later_stage_is_reached_in_the_same_turn(self) -> None:
        self.add("c", Stage.ANSWER)
        self.turn.at_end(Stage.DECIDE, lambda: self.add("b"))
        self.add("a", Stage.DECIDE)
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b", "c"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_is_logged_and_the_others_are_done(self) -> None:
        self.turn.at_end(Stage.DECIDE, lambda: 1 // 0)
        self.add("a")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.add("b")
        self.clock.advance(TURN)
        self.assertEqual(self.done, ["a", "b"])
