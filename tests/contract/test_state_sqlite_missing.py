"""Values that are missing in the embedded store are not read again, and are seen as soon as they are there."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.state import CachedValue, Fresh, ValueKey
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.sqlite_case import START, temporary

KEYS = (ValueKey("sda", "ann", "example.org"), ValueKey("sda", "ann", "ann@example.org"))


class MissingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(START)
        self.path = temporary(self)
        self.state, self.other = self.open(), self.open()

    def open(self) -> SqliteState:
        state = SqliteState(self.path, self.clock.seconds, self.clock)
        self.addCleanup(state._commits.close)
        return state

    def values(self, state: SqliteState | None = None) -> list[CachedValue]:
        return self.successResultOf((state or self.state).values(KEYS))

    def known(self) -> list[str | None]:
        return [each.value for each in self.values()]

    def keep(self, state: SqliteState, token: str, key: ValueKey, ttl: float = 1000.0) -> None:
        done = state.keep_values([Fresh(key, "1", token)], ttl)
        self.clock.advance(0)
        self.successResultOf(done)

    def test_the_file_is_not_asked_again(self) -> None:
        self.keep(self.state, "0", KEYS[0])
        self.assertEqual(self.known(), ["1", None])
        asked: list[str] = []
        assert self.state._commits._db
        self.state._commits._db.set_trace_callback(asked.append)
        self.assertEqual(self.known(), ["1", None])
        self.assertEqual([each for each in asked if "FROM value" in each], [])

    def test_what_this_or_another_process_keeps_is_seen_at_once(self) -> None:
        for state, key in ((self.state, KEYS[0]), (self.other, KEYS[1])):
            self.assertIn(None, self.known())
            token = self.values()[-1].token
            self.keep(state, token, key)
        self.assertEqual(self.known(), ["1", "1"])

    def test_a_token_given_again_does_not_bring_back_what_was_dropped(self) -> None:
        self.values()
        token = self.values()[0].token
        done = self.other.drop_values(KEYS)
        self.clock.advance(0)
        self.successResultOf(done)
        self.keep(self.state, token, KEYS[0])
        self.assertEqual(self.known(), [None, None])
        self.keep(self.state, self.values()[0].token, KEYS[0])
        self.assertEqual(self.known(), ["1", None])

    def test_one_that_ends_is_missing_then_and_holds_again_for_a_clock_that_is_set_back(self) -> None:
        self.keep(self.state, "0", KEYS[0], ttl=100.0)
        self.assertEqual(self.known(), ["1", None])
        self.clock.advance(100)
        self.assertEqual(self.known(), [None, None])
        self.clock.rightNow -= 50
        self.assertEqual(self.known(), ["1", None])

    def test_one_that_a_clock_kept_that_was_ahead_holds_from_then_on(self) -> None:
        self.clock.advance(100)
        self.keep(self.state, "0", KEYS[0])
        self.clock.rightNow -= 100
        self.assertEqual(self.known(), [None, None])
        self.clock.advance(100)
        self.assertEqual(self.known(), ["1", None])
