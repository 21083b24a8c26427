"""Changes that affect more users than are listed."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, create_engine, insert, select

from chapps_tw.database.models import domain_user, domains, email_user, emails, quota_user, quotas, users
from chapps_tw.database.stale_keys import MAX_LISTED, MAX_PAIRS
from chapps_tw.interfaces.book import AddLinks, Delete, RemoveLinks, StaleKeys, Update
from tests.support.api_case import APITestCase
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite
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

    async def test_a_change_of_what_they_share_is_one_key(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
        quota = StaleKeys(quotas=frozenset({1}), quota_names=frozenset({"all"}))
        self.assertEqual((await self.changed(Update("quotas", 1, {"quota": 5})))[1], quota)
        domain = StaleKeys(sender_domains=frozenset({"example.com"}))
        self.assertEqual((await self.changed(RemoveLinks("domains", 1, "users", range(1, USERS))))[1], domain)
        self.assertEqual((await self.changed(AddLinks("domains", 1, "users", range(1, USERS))))[1], domain)
        name = frozenset({"example.com"})
        gone = domain._replace(flags=name, domains=name)
        self.assertEqual((await self.changed(Delete("domains", [1])))[1], gone)
        self.assertEqual((await self.changed(Delete("quotas", [1])))[1], quota)
        with self.engine.connect() as connection:
            self.assertEqual(list(connection.execute(select(quota_user))), [])

    async def test_addresses_of_many_users_are_one_key_too(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
            connection.execute(insert(emails), [{"id": 1, "name": "all@example.net"}])
            links = [{"user_id": number, "email_id": 1} for number in range(1, USERS + 1)]
            connection.execute(insert(email_user), links)
        _, stale = await self.changed(Update("emails", 1, {"name": "all@example.org"}))
        self.assertEqual(stale, StaleKeys(sender_domains=frozenset({"example.net", "example.org"})))

    async def test_as_many_pairs_as_can_be_listed_are(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
        _, stale = await self.changed(RemoveLinks("domains", 1, "users", range(1, MAX_PAIRS + 1)))
        self.assertEqual((len(stale.senders), stale.sender_domains), (MAX_PAIRS, frozenset()))
        _, stale = await self.changed(RemoveLinks("domains", 1, "users", range(MAX_PAIRS + 1, 2 * MAX_PAIRS + 2)))
        self.assertEqual((len(stale.senders), stale.sender_domains), (0, {"example.com"}))

    async def test_more_deleted_users_than_can_be_listed_cost_no_rows(self: Any) -> None:
        with self.engine.begin() as connection:
            fill(connection)
        _, stale = await self.changed(Delete("users", range(1, USERS + 1)))
        self.assertEqual((stale.unlisted, stale.users), ({"users"}, frozenset()))
        # Their domain is still listed.
        self.assertEqual((stale.senders, stale.sender_domains), (frozenset(), {"example.com"}))


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
        self.assertEqual(answer["remarks"], [])
        self.assertEqual(sent(3), "DUNNO")
        answer = self.expect(200, service, "DELETE", "/domains/", [1])
        self.assertIn(
            "Thousands of users may no longer send from there, unless another link allows it.", answer["remarks"]
        )
        self.assertIn("not allowed to send mail", sent(4))
