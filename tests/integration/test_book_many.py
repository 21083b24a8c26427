"""Changes that affect more users than are listed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, create_engine, insert, select, text

from chapps_tw.database.models import domain_user, domains, quota_user, quotas, users
from chapps_tw.database.stale_keys import MAX_LISTED
from chapps_tw.interfaces.book import AddLinks, Delete, RemoveLinks, Update
from chapps_tw.rest.routers.changes import AWAITS_REFRESH
from tests.support.api_case import APITestCase
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements
from tests.support.policy_client import outbound
from tests.support.servers.service import PATIENT

USERS = MAX_LISTED + 1000


def fill(connection: Connection) -> None:
    """A book whose users all have one quota and one domain."""
    connection.execute(insert(users), [{"id": number, "name": f"user{number}"} for number in range(1, USERS + 1)])
    connection.execute(insert(quotas), [{"id": 1, "name": "all", "quota": 1}])
    connection.execute(insert(domains), [{"id": 1, "name": "example.com"}])
    connection.execute(insert(quota_user), [{"user_id": number, "quota_id": 1} for number in range(1, USERS + 1)])
    connection.execute(insert(domain_user), [{"user_id": number, "domain_id": 1} for number in range(1, USERS + 1)])


class ManyTests:
    """The subclass names the database."""

    async def test_they_are_not_listed_and_cost_no_rows(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
        written = Statements(self.engine, "INSERT INTO invalidation_outbox")
        _, changed = await self.changed(Update("quotas", 1, {"quota": 5}))
        self.assertEqual((changed.unlisted, changed.limits), ({"limits"}, frozenset()))
        self.assertEqual(written.seen, [])
        _, unlinked = await self.changed(RemoveLinks("domains", 1, "users", range(1, USERS)))
        self.assertEqual((unlinked.unlisted, unlinked.senders), ({"senders"}, frozenset()))
        _, linked = await self.changed(AddLinks("domains", 1, "users", range(1, USERS)))
        self.assertEqual(linked.unlisted, {"senders"})
        _, gone = await self.changed(Delete("domains", [1]))
        # Kinds with few keys are still listed.
        self.assertEqual((gone.unlisted, gone.senders, gone.flags), ({"senders"}, frozenset(), {"example.com"}))
        _, deleted = await self.changed(Delete("users", range(1, USERS + 1)))
        self.assertEqual((deleted.unlisted, deleted.limits), ({"limits"}, frozenset()))
        with self.engine.connect() as connection:
            self.assertEqual(list(connection.execute(select(quota_user))), [])

    async def test_as_many_as_can_be_listed_are(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
            connection.execute(text(f"DELETE FROM quota_user WHERE user_id > {MAX_LISTED}"))
        _, changed = await self.changed(Update("quotas", 1, {"quota": 5}))
        self.assertEqual((changed.unlisted, len(changed.limits)), (frozenset(), MAX_LISTED))


class ManyOnSqliteTests(ManyTests, OnSqlite, BookCase):
    pass


class ManyOnPostgreSQLTests(ManyTests, OnPostgreSQL, BookCase):
    pass


class ManyOnMariaDBTests(ManyTests, OnMariaDB, BookCase):
    pass


class InForceTests(APITestCase):
    def test_such_a_change_is_in_force_for_the_next_question(self) -> None:
        # Cached values would be used for long.
        service = self.run_service(PATIENT, {"PolicyConfigAdapter": {"refresh": 86400}})
        engine = create_engine(service.database)
        with engine.begin() as connection:
            for table in (quota_user, domain_user, users, domains, quotas):
                connection.execute(table.delete())
            fill(connection)
        engine.dispose()
        client = service.client("outbound")
        self.addCleanup(client.close)

        def sent(number: int) -> str:
            return client.ask(outbound(sasl_username="user7", sender="user7@example.com", instance=f"i{number}"))

        self.assertEqual(sent(1), "DUNNO")
        self.assertIn("outbound quota", sent(2))
        answer = self.expect(200, service, "PUT", "/quotas/", {"id": 1, "quota": 100})
        self.assertIn(AWAITS_REFRESH, answer["remarks"])
        self.assertEqual(sent(3), "DUNNO")
        answer = self.expect(200, service, "DELETE", "/domains/", [1])
        self.assertIn(
            "Thousands of users may no longer send from there, unless another link allows it.", answer["remarks"]
        )
        self.assertIn("not allowed to send mail", sent(4))
