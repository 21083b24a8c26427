"""The file of the live state in SQLite."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Fresh, StateUnavailable, Unit
from chapps_tw.interfaces.value_keys import check_spf, sender
from chapps_tw.state.sqlite.file import StateTooNew
from chapps_tw.state.sqlite.keys import account_key
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.charges import WINDOW, charge, rcpt, spend_one, usage_of, whole
from tests.support.paths import ROOT
from tests.support.sqlite_case import START, HandReactor, temporary

DATA = ROOT / "tests" / "data"
# A message in the file of version 3.
TWO_RECIPIENTS = "1a2b.6553f100.9abc.0"
# What a file of version 3 lacks in the versions before.
SECOND = (
    "ALTER TABLE account DROP COLUMN kept",
    "ALTER TABLE verdict DROP COLUMN kept",
    "PRAGMA user_version = 2",
)
FIRST = (
    "ALTER TABLE meta DROP COLUMN pings",
    "ALTER TABLE account DROP COLUMN oldest",
    "DROP TABLE meeting",
    "CREATE TABLE meeting (tuple BLOB PRIMARY KEY, first REAL, last REAL, until REAL) WITHOUT ROWID",
    "INSERT INTO meeting VALUES (x'00112233445566778899aabbccddeeff', 1.0, 1.0, 1e12)",
    "PRAGMA user_version = 1",
)


class Files(TestCase):
    """The file itself."""

    instances = count()

    def open(self, path: str, reactor: Any = reactor) -> SqliteState:
        state = SqliteState(path, lambda: START, reactor)
        state.start()
        return state

    def assertRefused(self, path: str, why: str) -> StateUnavailable:
        error: StateUnavailable = self.assertRaises(StateUnavailable, self.open, path)
        self.assertIn(why, str(error))
        self.assertIn(path, str(error))
        return error

    async def test_nobody_else_can_read_it(self) -> None:
        directory = Path(temporary(self), "a", "b")
        state = self.open(str(directory / "state"))
        await state.ping()
        self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
        self.assertEqual(modes, {"state": 0o600, "state-wal": 0o600, "state-shm": 0o600})
        await state.stop()

    async def test_what_was_counted_is_there_after_a_restart_and_the_log_is_gone(self) -> None:
        path = temporary(self)
        state = self.open(path)
        await spend_one(state, "bob", "i")
        await state.stop()
        self.assertFalse(os.path.exists(path + "-wal"))
        state = self.open(path)
        self.assertEqual((await spend_one(state, "bob", "i")).outcome, Outcome.REPEATED)
        await state.stop()

    async def test_stopping_in_the_middle_of_a_turn_loses_nothing(self) -> None:
        state = self.open(temporary(self))
        waiting = spend_one(state, "bob", "i")
        await state.stop()
        self.assertEqual((await waiting).used, (1,))

    async def test_stopping_what_never_was_asked_does_nothing(self) -> None:
        path = temporary(self)
        await SqliteState(path, lambda: START, reactor).stop()
        self.assertFalse(os.path.exists(path))

    async def test_a_file_that_another_process_writes_to_can_be_opened(self) -> None:
        path = temporary(self)
        await self.open(path).stop()
        other = sqlite3.connect(path, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN IMMEDIATE")
        state = self.open(path)
        self.assertEqual((await usage_of(state)).used, 0)
        other.execute("COMMIT")
        await state.stop()

    async def test_a_copy_that_replaces_it_is_used_and_stays_intact(self) -> None:
        path = temporary(self)
        clock = HandReactor()
        state = self.open(path, clock)
        await self.count(state, clock, 3)
        with closing(sqlite3.connect(path)) as other:
            other.execute("VACUUM INTO ?", (f"{path}.copy",))
        await self.count(state, clock, 200)
        os.rename(f"{path}.copy", path)
        clock.advance(1.0)
        self.assertEqual((await usage_of(state)).used, 3)
        await self.count(state, clock, 2)
        await state.stop()
        with closing(sqlite3.connect(path)) as other:
            self.assertEqual(other.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        state = self.open(path)
        self.assertEqual((await usage_of(state)).used, 5)
        await state.stop()

    async def test_another_one_is_made_if_it_is_removed(self) -> None:
        path = temporary(self)
        clock = HandReactor()
        state = self.open(path, clock)
        await self.count(state, clock, 3)
        os.remove(path)
        clock.advance(1.0)
        await self.count(state, clock, 1)
        await state.stop()
        state = self.open(path)
        self.assertEqual((await usage_of(state)).used, 1)
        await state.stop()

    async def test_a_copy_that_replaces_it_at_the_last_moment_stays_intact(self) -> None:
        path = temporary(self)
        clock = HandReactor()
        state = self.open(path, clock)
        with closing(sqlite3.connect(path)) as other:
            other.execute("VACUUM INTO ?", (f"{path}.copy",))
        await self.count(state, clock, 200)
        os.rename(f"{path}.copy", path)
        await state.stop()
        state = self.open(path)
        self.assertEqual((await usage_of(state)).used, 0)
        await state.stop()

    async def count(self, state: SqliteState, clock: HandReactor, messages: int) -> None:
        for _ in range(messages):
            counted = spend_one(state, "bob", f"i{next(self.instances)}")
            clock.advance(0)
            await counted

    async def test_a_file_of_a_later_version_is_left_alone(self) -> None:
        path = temporary(self)
        await self.open(path).stop()
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        self.assertIsInstance(self.assertRefused(path, "version 99"), StateTooNew)

    def test_a_database_of_something_else_is_left_alone(self) -> None:
        path = temporary(self)
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE users (name TEXT)")
        before = Path(path).read_bytes()
        self.assertRefused(path, "another program")
        self.assertEqual(Path(path).read_bytes(), before)

    def test_a_file_that_is_no_database_is_refused(self) -> None:
        path = temporary(self)
        Path(path).write_text("not a database, but long enough to be looked at as if it were one" * 20)
        self.assertRefused(path, "not a database")

    def test_a_place_where_no_file_can_be_is_refused(self) -> None:
        path = temporary(self)
        os.mkdir(path)
        self.assertRefused(path, "directory")
        self.assertRefused("/proc/none/state", "/proc/none/state")


class Earlier(TestCase):
    """Files of earlier versions go on in place."""

    def write(self, *changes: str, version: int = 3) -> str:
        """Write a file of version 3 or 4; changes may make one of an earlier version of it."""
        path = temporary(self)
        db = sqlite3.connect(path)
        db.execute("PRAGMA page_size = 2048")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.executescript((DATA / f"state-version-{version}.sql").read_text())
        for change in changes:
            db.execute(change)
        db.commit()
        db.close()
        return path

    def open(self, path: str) -> SqliteState:
        self.now = START + 500
        state = SqliteState(path, lambda: self.now, reactor)
        state.start()
        self.addCleanup(state.stop)
        return state

    async def assert_counts(self, state: SqliteState) -> None:
        """Check what was counted, count on, and see it leave the window."""
        users = [await usage_of(state, user) for user in ("bob", "alice", "carol", "nobody")]
        self.assertEqual(users, [(5, START + 400, START), (3, START, START), (1, START, START), (0, 0.0, 0.0)])
        for message, outcome, used in (
            (rcpt(TWO_RECIPIENTS, "a@example.net"), Outcome.REPEATED, 5),
            (rcpt(TWO_RECIPIENTS, "c@example.net"), Outcome.ACCEPTED, 6),
            (whole(TWO_RECIPIENTS), Outcome.REPEATED, 6),
            (whole("new"), Outcome.ACCEPTED, 7),
        ):
            spent = await state.spend(message, [charge(amount=int(message.instance == "new"), limit=9)])
            self.assertEqual((spent.outcome, spent.used), (outcome, (used,)))
        refused = await state.spend(whole("more"), [charge(amount=3, limit=9), charge(amount=3, limit=9, window=450.0)])
        self.assertEqual(refused, (Outcome.EXCEEDED, 0, (7, 2), 500.0))
        self.now += 500
        self.assertEqual((await usage_of(state)).used, 2)
        self.assertEqual((await state.spend(whole("more"), [charge(amount=3, limit=9)])).used, (5,))

    async def test_what_was_counted_goes_on_counting(self) -> None:
        path = self.write()
        state = self.open(path)
        await self.assert_counts(state)
        await state.stop()
        state = self.open(path)
        self.now = START + 1000
        self.assertEqual((await usage_of(state)).used, 5)

    async def test_what_was_cached_and_greylisted_stays(self) -> None:
        state = self.open(self.write())
        keys = [sender("bob", name) for name in ("example.org", "other.example", "dropped.example")]
        found = await state.values([*keys, check_spf("our.example")])
        self.assertEqual([each.value for each in found], ["1", "0", None, "1"])
        # Tokens of before the drop are still worth nothing.
        await state.keep_values([Fresh(keys[2], "1", "2"), Fresh(keys[1], "1", found[1].token)], 100.0)
        self.assertEqual([each.value for each in await state.values(keys)], ["1", "1", None])
        attempt = GreylistAttempt("192.0.2.0/24", "s@example.net", "r@our.example", "our.example", "i", False)
        met = await state.check_greylist(attempt, GreylistRules(60.0, 86400.0, 86400.0, 86400.0, 3))
        self.assertEqual((met.outcome, met.tally), (Outcome.PASSED, 2))
        self.assertFalse(await state.first_time("prepend", "1a2b.6553f100.5678.0", 86400.0))

    async def test_a_file_of_the_first_version_keeps_what_was_counted(self) -> None:
        await self.assert_counts(self.open(self.write(*SECOND, *FIRST)))

    async def test_a_file_of_the_second_version_keeps_what_was_counted(self) -> None:
        await self.assert_counts(self.open(self.write(*SECOND)))

    async def test_a_file_of_the_fourth_version_keeps_what_was_counted(self) -> None:
        await self.assert_counts(self.open(self.write(version=4)))

    async def test_a_file_of_the_fourth_version_keeps_what_identifies_messages(self) -> None:
        state = self.open(self.write(version=4))
        for message in (whole("x" * 600), rcpt("1a2b.6553f100.7777.0", "a@example.net", 700.0)):
            spent = await state.spend(message, [charge("dave", limit=9)])
            self.assertEqual((spent.outcome, spent.used), (Outcome.REPEATED, (3,)))
        # A message without an instance is none of those that were counted; the reservation ends.
        self.assertEqual((await state.spend(whole(""), [charge("dave", limit=9)])).used, (4,))
        self.now = START + 700
        self.assertEqual((await usage_of(state, "dave")).used, 3)

    async def test_a_file_of_the_fourth_version_keeps_windows_and_distinct_recipients(self) -> None:
        state = self.open(self.write(version=4))
        message = whole("new", "a@example.net")
        spent = await state.spend(message, [charge("erin", unit=Unit.DISTINCT_RECIPIENTS, limit=9)])
        self.assertEqual((spent.outcome, spent.used), (Outcome.REPEATED, (1,)))
        self.now = START + 20_000
        self.assertEqual([(await usage_of(state, "erin", window)).used for window in (WINDOW, 86400.0)], [0, 2])

    async def test_a_large_file_of_the_fourth_version_keeps_every_message(self) -> None:
        path = self.write(version=4)
        account = account_key(b"oqp", b"large")
        # Some numbers are missing: what had expired was removed row by row.
        numbers = [number for number in range(100, 3000) if number % 700]
        with sqlite3.connect(path) as db:
            rows = [(account, n, b"i%d" % n, START + n / 10, 1000.0, 1, b"", 0.0) for n in numbers]
            db.executemany("INSERT INTO message VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.close()
        state = self.open(path)
        self.assertEqual((await usage_of(state, "large")).used, len(numbers))
        for number in (numbers[0], numbers[-1]):
            spent = await state.spend(whole(f"i{number}"), [charge("large", limit=10**6)])
            self.assertEqual((spent.outcome, spent.used), (Outcome.REPEATED, (len(numbers),)))
