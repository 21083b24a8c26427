"""Processes that spend at once, and what they were told."""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import TestCase

from chapps_tw.interfaces.state import LiveState
from tests.support.charges import window_of
from tests.support.paths import ROOT
from tests.support.servers.common import Process, wait_until
from tests.support.state_spender import USERS, charges_of


class Spenders(TestCase):
    """A test with processes that spend."""

    def spender(self, store: str, name: str, limit: int, count: int, askers: int = 1) -> Process:
        directory = TemporaryDirectory(prefix="chapps-spender-")
        self.addCleanup(directory.cleanup)
        arguments = (store, name, str(limit), str(count), str(askers))
        command = [sys.executable, "-m", "tests.support.state_spender", *arguments]
        process = Process(command, Path(directory.name, "output"), env=os.environ | {"PYTHONPATH": str(ROOT)})
        self.addCleanup(process.stop)
        return process

    def told(self, process: Process) -> list[list[str]]:
        """Return the instance and the outcome of each answer."""
        # The last line may be cut off.
        return [line.split() for line in process.output().split("\n")[:-1]]

    def accepted(self, process: Process) -> list[str]:
        return [instance for instance, outcome in self.told(process) if outcome == "ACCEPTED"]

    async def assert_exactly_the_limit(self, store: str, state: LiveState, limit: int) -> None:
        """Have three processes offer 1.8 times what everybody may send; check what they were told, and each account."""
        count = limit * 18 // 10 // 3
        processes = [self.spender(store, name, limit, count, 4) for name in ("x", "y", "z")]
        for process in processes:
            wait_until(lambda process=process: process.popen.poll() is not None, "ending", 120.0)  # type: ignore[misc]
        last = [process.output()[-2000:] for process in processes]
        self.assertEqual([process.stop() for process in processes], [0, 0, 0], last)
        told = Counter(outcome for process in processes for _, outcome in self.told(process))
        accepted = Counter(each.partition(":")[2] for process in processes for each in self.accepted(process))
        # The second of three users asks twice.
        repeated = accepted[USERS[1]]
        self.assertEqual(told, {"ACCEPTED": limit, "REPEATED": repeated, "EXCEEDED": 4 * count - limit - repeated})
        await self.assert_accounts(state, accepted, limit)

    async def assert_accounts(self, state: LiveState, accepted: Counter[str], limit: int) -> None:
        """Check that each account contains what its users were told, and no more than it may."""
        for user in USERS:
            charges = charges_of(user, limit)
            used = [each.used for each in await state.usage([window_of(each) for each in charges])]
            domain = sum(n for other, n in accepted.items() if other.partition("@")[2] == user.partition("@")[2])
            self.assertEqual(used, [accepted[user], accepted[user], domain, accepted.total()])
            self.assertEqual([n for n, each in zip(used, charges, strict=True) if n > each.limit], [])
