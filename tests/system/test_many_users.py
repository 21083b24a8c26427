"""Changes that concern thousands of users are in force for the next question that another node is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import create_engine, insert, select

from chapps_tw.database.models import domain_user, quota_user, users
from tests.support.api_case import APITestCase, Database
from tests.support.policy_client import PolicyClient, encode, outbound
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import PostgreSQL

USERS = 6000
# How many are deleted, and by one request.
DELETED, AT_ONCE = 5000, 1000
# Who is asked about.
SAMPLE = range(0, USERS, 500)

OPTIONS: Options = {
    **PATIENT,
    "OutboundQuotaPolicy": {
        "margin": 0,
        "rejection_message": "REJECT full {level} {limit_name} {limit}",
        "no_quota_message": "REJECT no quota",
        "unknown_user_message": "REJECT unknown",
    },
    "SenderDomainAuthPolicy": {"rejection_message": "REJECT not allowed"},
    # Nothing but the invalidation brings a change to the other node.
    "PolicyConfigAdapter": {"refresh": 86400},
}


class ManyUsersTests(APITestCase):
    """What is changed is changed on the first node; what is asked is asked on the second."""

    here: Service
    there: Service
    client: PolicyClient

    def setUp(self) -> None:
        database = Database(PostgreSQL)
        adapter = {**database.options["PolicyConfigAdapter"], **OPTIONS["PolicyConfigAdapter"]}
        redis = {"server": "127.0.0.1", "port": self.run_redis().port}
        options: Options = {**OPTIONS, "PolicyConfigAdapter": adapter, "Redis": redis}
        self.here, self.there = self.run_service(options, set_up=True), self.run_service(options)
        self.domain = self.create(self.here, "domains", name="many.example")
        self.plan = self.create(self.here, "quotas", name="plan", quota=1)
        self.fill(database.url)
        self.client = self.there.client()
        self.addCleanup(self.client.close)

    def fill(self, url: str) -> None:
        """Add users of the domain with the quota."""
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(insert(users), [{"name": name_of(number)} for number in range(USERS)])
            self.ids = list(connection.scalars(select(users.c.id).order_by(users.c.id)))
            for table, link in ((domain_user, {"domain_id": self.domain}), (quota_user, {"quota_id": self.plan})):
                connection.execute(insert(table), [{"user_id": id, **link} for id in self.ids])
        engine.dispose()

    def answers(self, numbers: Sequence[int] = SAMPLE) -> set[str]:
        """Return the answers to a new message of each user who is asked about."""
        found = set()
        for number in numbers:
            name = name_of(number)
            self.client.send(encode(outbound(sasl_username=name, sender=name)))
            found.add(self.client.answer())
        return found

    def change(self, method: str, path: str, body: Any = None) -> None:
        remarks = self.expect(200, self.here, method, path, body)["remarks"]
        self.assertEqual([each for each in remarks if "takes effect" in each], [])

    def test_the_quota_that_they_have(self) -> None:
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full user plan 1"}])
        self.change("PUT", "/quotas/", {"id": self.plan, "quota": 2})
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full user plan 2"}])
        hour = {"name": "hour", "amount": 3, "window": "1h"}
        self.expect(201, self.here, "POST", f"/quotas/{self.plan}/limits/", hour)
        self.change("PUT", "/quotas/", {"id": self.plan, "quota": 100})
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full user hour 3"}])
        self.change("DELETE", "/quotas/", [self.plan])
        self.assertEqual(self.answers(), {"REJECT no quota"})

    def test_the_quotas_of_their_domain(self) -> None:
        self.change("PUT", "/quotas/", {"id": self.plan, "quota": 100})
        self.assertEqual(self.answers(), {"DUNNO"})
        pool = self.create(self.here, "quotas", name="pool", quota=len(SAMPLE))
        self.change("PUT", "/domains/", {"id": self.domain, "pool_quota": pool})
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full domain pool pool 12"}])
        self.change("PUT", "/domains/", {"id": self.domain, "pool_quota": 0})
        self.assertEqual(self.answers(), {"DUNNO"})
        each = self.create(self.here, "quotas", name="each", quota=4)
        self.change("PUT", "/domains/", {"id": self.domain, "each_quota": each})
        self.change("DELETE", "/quotas/", [self.plan])
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full domain each 4"}])

    def test_the_domain_that_is_deleted(self) -> None:
        self.assertEqual([self.answers(), self.answers()], [{"DUNNO"}, {"REJECT full user plan 1"}])
        self.change("DELETE", "/domains/", [self.domain])
        self.assertEqual(self.answers(), {"REJECT not allowed"})

    def test_the_users_who_are_deleted(self) -> None:
        self.change("PUT", "/quotas/", {"id": self.plan, "quota": 100})
        self.assertEqual(self.answers(), {"DUNNO"})
        for start in range(0, DELETED, AT_ONCE):
            self.change("DELETE", "/users/", self.ids[start : start + AT_ONCE])
        self.assertEqual(self.answers(range(0, DELETED, 500)), {"REJECT not allowed"})
        self.assertEqual(self.answers(range(DELETED, USERS, 500)), {"DUNNO"})


def name_of(number: int) -> str:
    return f"user{number}@many.example"
