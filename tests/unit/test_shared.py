"""Answers that visitors of the page share."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.ui.shared import Shared


class SharedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.shared: Shared[str] = Shared(5.0, self.clock)
        self.made: list[Deferred[str]] = []

    def ask(self, key: str = "a") -> Deferred[str]:
        return Deferred.fromCoroutine(self.shared.get(key, self.make))

    async def make(self) -> str:
        self.made.append(Deferred())
        return await self.made[-1]

    def test_whoever_asks_while_an_answer_is_made_gets_the_same(self) -> None:
        first, second, other = self.ask(), self.ask(), self.ask("b")
        self.assertEqual(len(self.made), 2)
        self.made[0].callback("answer")
        self.assertEqual([self.successResultOf(each) for each in (first, second)], ["answer", "answer"])
        self.assertNoResult(other)
        self.made[1].callback("")
        self.assertEqual(self.successResultOf(other), "")

    def test_an_answer_is_kept_for_some_seconds_after_it_was_made(self) -> None:
        first = self.ask()
        self.clock.advance(9)
        self.made[0].callback("old")
        self.clock.advance(4.9)
        self.assertEqual([self.successResultOf(each) for each in (first, self.ask())], ["old", "old"])
        self.clock.advance(0.1)
        later = self.ask()
        self.made[1].callback("new")
        self.assertEqual(self.successResultOf(later), "new")

    def test_one_who_leaves_leaves_the_answer_to_the_others(self) -> None:
        first, second = self.ask(), self.ask()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.made[0].callback("answer")
        self.assertEqual(self.successResultOf(second), "answer")

    def test_a_failure_reaches_all_who_wait_and_is_not_kept(self) -> None:
        first, second = self.ask(), self.ask()
        self.made[0].errback(OSError("away"))
        for each in (first, second):
            self.failureResultOf(each, OSError)
        later = self.ask()
        self.made[1].callback("answer")
        self.assertEqual(self.successResultOf(later), "answer")
