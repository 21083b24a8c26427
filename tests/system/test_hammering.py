"""Clients that go on asking while they are refused: it costs nothing, and room that is made is used at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.support.api_case import Database
from tests.support.four_limits import LISTENER, Amounts, Customer, FourLimitsTestCase
from tests.support.load import Asked, Load
from tests.support.policy_client import outbound
from tests.support.servers.service import Options, Service
from tests.support.servers.sql import PostgreSQL

ROOM, MORE, PLENTY = 20, 5, 1000
CASES = {
    "user": Amounts(hour=ROOM, day=PLENTY, pool=PLENTY, everybody=PLENTY),
    "pool": Amounts(hour=PLENTY, day=PLENTY, pool=ROOM, everybody=PLENTY),
    "everybody": Amounts(hour=PLENTY, day=PLENTY, pool=PLENTY, everybody=ROOM),
}
REFUSED = "REJECT "

# A request that makes room, and for how many.
Change = tuple[str, str, object, int]

CHANGES: dict[str, Callable[[Customer], Sequence[Change]]] = {
    "user": lambda customer: [
        ("DELETE", f"/live/limits/{customer.users[0]}", None, ROOM),
        ("PUT", f"/limits/{customer.hour}/", {"amount": ROOM + MORE}, MORE),
    ],
    "pool": lambda customer: [
        ("DELETE", f"/live/pools/{customer.domain}", None, ROOM),
        ("PUT", "/quotas/", {"id": customer.pool, "quota": ROOM + MORE}, MORE),
    ],
    "everybody": lambda customer: [("DELETE", f"/live/rate-limits/{customer.limit}/everybody", None, ROOM)],
}


class HammeringTests(FourLimitsTestCase):
    """The users hammer one node; what makes room is asked of the other."""

    here: Service
    there: Service

    def setUp(self) -> None:
        redis: Options = {"Redis": {"server": "127.0.0.1", "port": self.run_redis().port}}
        database = Database(PostgreSQL).options
        self.here = self.run_listening(CASES, redis, database, set_up=True)
        self.there = self.run_listening(CASES, redis, database)

    def test_a_reset_or_an_edit_lets_the_next_question_pass_on_another_node(self) -> None:
        for name, changes_of in CHANGES.items():
            with self.subTest(tightest=name):
                customer = self.add(self.here, name, 1, CASES[name])
                passed = self.hammer(customer, changes_of(customer))
                # The first change resets the tightest. What was refused has cost the others nothing.
                counted = {"user": passed, "pool": passed, "everybody": passed, name: passed - ROOM}
                used = self.used(self.here, customer)
                self.assertEqual(used.users, {customer.users[0]: (counted["user"],) * 2})
                self.assertEqual((used.pool, used.everybody), (counted["pool"], counted["everybody"]))

    def hammer(self, customer: Customer, changes: Sequence[Change]) -> int:
        """Change one thing after the other under load; return how many passed."""
        [user] = customer.users
        passed = ROOM
        with self.load(user) as load:
            load.wait_for(REFUSED)
            self.assertEqual(load.passed, passed)
            for method, path, body, room in changes:
                self.expect(200, self.here, method, path, body)
                changed = time.monotonic()
                passed += room
                self.wait_for("as many to pass as fit", lambda passed=passed: load.passed >= passed)  # type: ignore[misc]
                self.assertEqual(self.too_late(load, changed, room), [])
                load.wait_for(REFUSED)
                self.assertEqual(load.passed, passed)
        self.assertEqual(load.broken, [])
        return passed

    def load(self, user: str) -> Load:
        mail = {"sasl_username": user, "sender": user}
        return Load([self.there], 8, pause=0.0, listener=LISTENER, question=lambda: outbound(**mail))

    def too_late(self, load: Load, changed: float, room: int) -> list[Asked]:
        """Return what was asked after the change, and refused although there was room."""
        asked = list(load.asked)
        filled = max(each.begin for each in [each for each in asked if each.answer == "DUNNO"][-room:])
        return [each for each in asked if each.begin > changed and each.end < filled and each.answer != "DUNNO"]
