"""Four limits on each message: exactly what fits the tightest passes, and each limit has counted that to the unit."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.api_case import Database
from tests.support.four_limits import Amounts, FourLimitsTestCase
from tests.support.senders import SIZES, Senders
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
