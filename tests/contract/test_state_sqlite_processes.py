"""Real processes with a real reactor on one SQLite file."""

from __future__ import annotations

import signal
import sqlite3
import time

from twisted.internet import reactor

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.charges import whole
from tests.support.servers.common import wait_until
from tests.support.spenders import Spenders
from tests.support.sqlite_case import temporary
from tests.support.state_spender import USERS, charges_of

LIMIT, PLENTY = 2000, 10**6


class ProcessTests(Spenders):
    def open(self, path: str) -> SqliteState:
        state = SqliteState(path, time.time, reactor)
        self.addCleanup(state.stop)
        return state

    async def test_a_process_killed_at_any_moment_loses_nothing_that_it_has_answered(self) -> None:
        path = temporary(self)
        answered: list[str] = []
        for name, enough in (("first", 300), ("second", 500), ("third", 100)):
            process = self.spender(path, name, PLENTY, PLENTY)
            wait_until(lambda process=process, enough=enough: len(self.told(process)) > enough, "spending")  # type: ignore[misc]
            process.signal(signal.SIGKILL)
            process.stop()
            answered += self.accepted(process)
        state = self.open(path)
        lost = 0
        for name in ("first", "second", "third"):
            # At most one of each process was counted and not answered.
            next_one = sum(each.startswith(name) for each in answered)
            user = USERS[next_one % 3]
            spent = await state.peek(whole(f"{name}{next_one}:{user}"), charges_of(user, PLENTY))
            lost += spent.outcome is Outcome.REPEATED
        for instance in answered:
            spent = await state.spend(whole(instance), charges_of(instance.partition(":")[2], PLENTY))
            self.assertEqual(spent.outcome, Outcome.REPEATED)
        self.assertEqual(spent.used[3], len(answered) + lost)

    async def test_processes_on_one_file_let_exactly_the_limit_through(self) -> None:
        path = temporary(self)
        state = self.open(path)
        await self.assert_exactly_the_limit(path, state, LIMIT)
        await state.stop()
        with sqlite3.connect(path) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
