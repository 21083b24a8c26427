"""Lookups of the book in batches."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.database.batches import MOST, Batches, Results


class BatchesTests(SynchronousTestCase):
    """Lookups of one turn are one query."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.batches: Batches[str, str] = Batches(self.clock, self.query)
        self.asked: list[tuple[Sequence[str], Deferred[Results[str, str]]]] = []

    def query(self, keys: Sequence[str]) -> Deferred[Results[str, str]]:
        self.asked.append((keys, Deferred()))
        return self.asked[-1][1]

    def test_a_query_is_for_all_keys_of_a_turn_each_once(self) -> None:
        found = [self.batches.look_up(key) for key in ("a", "b", "a")]
        self.clock.advance(0)
        [(keys, answer)] = self.asked
        self.assertEqual(keys, ["a", "b"])
        answer.callback({"a": "1", "b": "2"})
        self.assertEqual([self.successResultOf(each) for each in found], ["1", "2", "1"])

    def test_a_lookup_after_a_query_began_is_not_answered_by_it(self) -> None:
        first = self.batches.look_up("a")
        self.clock.advance(0)
        later = self.batches.look_up("a")
        self.asked[0][1].callback({"a": "before the change"})
        self.assertEqual(self.successResultOf(first), "before the change")
        self.assertNoResult(later)
        self.clock.advance(0)
        self.asked[1][1].callback({"a": "after the change"})
        self.assertEqual(self.successResultOf(later), "after the change")

    def test_the_error_of_a_query_is_that_of_all_its_keys(self) -> None:
        found = [self.batches.look_up(key) for key in "ab"]
        self.clock.advance(0)
        self.asked[0][1].errback(ValueError("no"))
        for each in found:
            self.failureResultOf(each, ValueError)

    def test_a_key_may_fail_alone(self) -> None:
        first, second = self.batches.look_up("a"), self.batches.look_up("b")
        self.clock.advance(0)
        self.asked[0][1].callback({"a": ValueError("no"), "b": "2"})
        self.failureResultOf(first, ValueError)
        self.assertEqual(self.successResultOf(second), "2")

    def test_a_query_is_not_for_those_who_no_longer_wait(self) -> None:
        first, second = self.batches.look_up("a"), self.batches.look_up("b")
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.clock.advance(0)
        [(keys, answer)] = self.asked
        self.assertEqual(keys, ["b"])
        answer.callback({"b": "2"})
        self.assertEqual(self.successResultOf(second), "2")

    def test_a_query_is_bounded(self) -> None:
        names = [str(number) for number in range(2 * MOST + 1)]
        found = [self.batches.look_up(name) for name in names]
        self.clock.advance(0)
        self.assertEqual([len(keys) for keys, _ in self.asked], [MOST, MOST, 1])
        for keys, answer in self.asked:
            answer.callback({name: name for name in keys})
        self.assertEqual([self.successResultOf(each) for each in found], names)
