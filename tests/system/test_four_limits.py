"""Four limits on each message: exactly what fits the tightest passes, and each limit has counted that to the unit.

After kill -9, they have counted what was answered, and all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.api_case import Database
from tests.support.four_limits import Amounts, FourLimitsTestCase
from tests.support.senders import ENDLESS, SIZES, Senders
from tests.support.servers.common import wait_until
from tests.support.servers.service import Options, Service
from tests.support.servers.sql import PostgreSQL

USERS, CONNECTIONS = 2, 30
OFFERED, FITS = 1800, 1000

# Each is the tightest in one case. Those of a user hold for each of two, who send the same.
CASES = {
    "hour": Amounts(hour=FITS // USERS, day=700, pool=1300, everybody=1500),
    "day": Amounts(hour=700, day=FITS // USERS, pool=1300, everybody=1500),
    "pool": Amounts(hour=700, day=800, pool=FITS, everybody=1500),
    "everybody": Amounts(hour=700, day=800, pool=1300, everybody=FITS),
}

# How often the service is killed, under how many connections, and after how many recipients.
KILLS, KILLED_CONNECTIONS, ENOUGH = 5, 8, 150
PLENTY = Amounts(hour=900_000, day=1_000_000, pool=2_000_000, everybody=2_000_000)


class ExactTests(FourLimitsTestCase):
    def test_of_two_nodes_with_one_redis_and_one_database(self) -> None:
        redis: Options = {"Redis": {"server": "127.0.0.1", "port": self.run_redis().port}}
        database = Database(PostgreSQL).options
        first = self.run_listening(CASES, redis, database, set_up=True)
        self.check([first, self.run_listening(CASES, redis, database)])

    def test_of_one_node_with_the_embedded_store(self) -> None:
        self.check([self.run_listening(CASES)])

    def check(self, nodes: Sequence[Service]) -> None:
        for tightest, amounts in CASES.items():
            with self.subTest(tightest=tightest):
                self.check_case(nodes, tightest, amounts)
        for node in nodes:
            self.assertNotIn("Traceback", node.log())

    def check_case(self, nodes: Sequence[Service], name: str, amounts: Amounts) -> None:
        customer = self.add(nodes[0], name, USERS, amounts)
        with Senders(nodes, customer.users, CONNECTIONS, len(SIZES)) as senders:
            pass
        self.assertEqual((senders.errors, senders.offered), ([], OFFERED))
        self.assertEqual(sum(senders.passed.values()), FITS)
        for node in nodes:
            used = self.used(node, customer)
            self.assertEqual(used.users, {user: (senders.passed[user],) * 2 for user in customer.users})
            self.assertEqual((used.pool, used.everybody), (FITS, FITS))


class KilledTests(FourLimitsTestCase):
    def test_what_was_answered_is_counted_by_all_limits_after_kill_9_under_load(self) -> None:
        # What was counted at RCPT stays, even if the service is killed before DATA.
        service = self.run_listening({"plenty": PLENTY}, quota={"reservation_ttl": 0})
        customer = self.add(service, "plenty", 2, PLENTY)
        before = self.used(service, customer)
        for _ in range(KILLS):
            with Senders([service], customer.users, KILLED_CONNECTIONS, ENDLESS, breaks=False) as senders:
                wait_until(lambda senders=senders: senders.passed.total() > ENOUGH, "answers")  # type: ignore[misc]
                service.kill()
            self.assertEqual(len(senders.errors), KILLED_CONNECTIONS, senders.errors)
            service.start().wait_ready()
            used = self.used(service, customer)
            for user, (hour, day) in used.users.items():
                new = hour - before.users[user][0]
                self.assertGreaterEqual(new, senders.passed[user])
                self.assertLessEqual(new, senders.passed[user] + senders.unanswered[user])
                self.assertEqual(day, hour)
            everything = sum(hour for hour, _ in used.users.values())
            self.assertEqual((used.pool, used.everybody), (everything, everything))
            before = used
