"""Lookups of the policies, on each kind of database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, text
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.config.settings import ConfigError, PolicyConfigAdapter
from chapps_tw.config.values import Secret
from chapps_tw.database.coalescing import Coalescer
from chapps_tw.database.engine import database_url
from chapps_tw.database.models import domain_user, domains, email_user, emails, users
from chapps_tw.interfaces.book import BookUnavailable, DomainFlags, SenderGrant, UserPlan
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements

UNKNOWN = UserPlan(False, None)


class BookTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def test_a_users_quota(self) -> None:
        quota = await self.quota("basic", 100)
        await self.user("alice", quotas=[quota])
        await self.user("bob")
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, quota))
        self.assertEqual(await self.book.user_plan("bob"), UserPlan(True, None))
        self.assertEqual(await self.book.user_plan("carol"), UNKNOWN)

    async def test_user_names_are_compared_exactly_except_for_case(self) -> None:
        await self.user("Alice", domains=[await self.domain("example.com")])
        await self.user("müller")
        for name in ("alice ", " alice", "álice", "alice\u200b", "muller", "mueller"):
            self.assertEqual(await self.book.user_plan(name), UNKNOWN, name)
            self.assertFalse((await self.book.senders_of(name, "example.com", "")).known, name)
        self.assertTrue((await self.book.user_plan("alice")).known)

    async def test_names_that_cannot_be_stored_cost_no_query(self) -> None:
        seen = Statements(self.engine)
        for name in ("", "\udcff\udcfe", "a\0b", "x" * 129, "x" * 100_000):
            self.assertEqual(await self.book.user_plan(name), UNKNOWN)
            self.assertEqual(await self.book.senders_of(name, "example.com", ""), SenderGrant(False, False, False))
        for domain in ("", "\udcff", "a\0.example", "x" * 254):
            self.assertEqual(await self.book.flags_of(domain), DomainFlags(False, False, False))
        self.assertEqual(seen.seen, [])

    async def test_senders_that_cannot_be_stored_are_not_linked(self) -> None:
        await self.user("alice")
        for odd in ("\udcff", "a\0.example", "x" * 400):
            self.assertEqual(await self.book.senders_of("alice", odd, odd), SenderGrant(True, False, False))

    async def test_what_a_user_may_send_as(self) -> None:
        com, org = await self.domain("example.com"), await self.domain("example.org")
        sales = await self.email("sales@example.net")
        await self.user("alice", domains=[com], emails=[sales])
        await self.user("bob", domains=[org])
        for user, domain, email, answer in (
            ("alice", "example.com", "x@example.com", SenderGrant(True, True, False)),
            ("alice", "example.net", "sales@example.net", SenderGrant(True, False, True)),
            ("alice", "example.org", "x@example.org", SenderGrant(True, False, False)),
            ("alice", "sub.example.com", "x@sub.example.com", SenderGrant(True, False, False)),
            ("bob", "example.com", "sales@example.net", SenderGrant(True, False, False)),
            ("carol", "example.com", "x@example.com", SenderGrant(False, False, False)),
        ):
            self.assertEqual(await self.book.senders_of(user, domain, email), answer, (user, domain, email))

    async def test_addresses_are_compared_exactly_except_for_case(self) -> None:
        await self.user("alice", emails=[await self.email("Sales@example.com")])
        self.assertTrue((await self.book.senders_of("alice", "", "sales@example.com")).email)
        for other in ("säles@example.com", "sales @example.com", "sales+x@example.com"):
            self.assertFalse((await self.book.senders_of("alice", "", other)).email, other)

    async def test_domains_are_found_in_any_stored_form(self) -> None:
        asked = {
            "Example.COM": "example.com",
            "Bücher.example": "xn--bcher-kva.example",
            "xn--Strae-oqa.Example": "xn--strae-oqa.example",
            "ÜBER.example": "xn--ber-goa.example",
            "dot.example.": "dot.example",
            "Ärzte.Example.": "xn--rzte-koa.example",
        }
        stored = (*asked, "junk ..")
        self.foreign_rows(stored, [f"Info@{domain}" for domain in stored])
        for domain in asked.values():
            self.assertEqual(await self.book.flags_of(domain), DomainFlags(True, True, False), domain)
            grant = await self.book.senders_of("alice", domain, f"info@{domain}")
            self.assertEqual(grant, SenderGrant(True, True, True), domain)
            grant = await self.book.senders_of("alice", "", f"infos@{domain}", f"info@{domain}")
            self.assertEqual(grant, SenderGrant(True, False, False, True), domain)

    def foreign_rows(self, names: tuple[str, ...], addresses: list[str]) -> None:
        """Insert rows as another program writes them, all linked to alice."""
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": 1, "name": "alice"}])
            for id, (name, address) in enumerate(zip(names, addresses, strict=True), 1):
                connection.execute(insert(domains), {"id": id, "name": name, "greylist": True, "check_spf": False})
                connection.execute(insert(emails), {"id": id, "name": address})
                connection.execute(insert(domain_user), {"user_id": 1, "domain_id": id})
                connection.execute(insert(email_user), {"user_id": 1, "email_id": id})

    async def test_the_normal_spelling_of_a_domain_wins(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(domains), {"name": "Example.com", "greylist": True, "check_spf": False})
            connection.execute(insert(domains), {"name": "example.com", "greylist": False, "check_spf": True})
        self.assertEqual(await self.book.flags_of("example.com"), DomainFlags(True, False, True))

    async def test_an_unknown_domain_has_no_flags(self) -> None:
        self.assertEqual(await self.book.flags_of("example.net"), DomainFlags(False, False, False))

    async def test_identical_concurrent_lookups_are_one_query(self) -> None:
        seen = Statements(self.engine)
        await self.user("somebody")
        seen.seen.clear()
        answers = await gatherResults([Deferred.fromCoroutine(self.book.user_plan("somebody")) for _ in range(100)])
        self.assertEqual(answers, [UserPlan(True, None)] * 100)
        self.assertEqual(len(seen.seen), 1)

    async def test_lookups_at_the_same_time_are_one_query(self) -> None:
        quotas = [await self.quota(f"q{number}", number + 1) for number in range(20)]
        for number, quota in enumerate(quotas):
            await self.user(f"user{number}", quotas=[quota])
        seen = Statements(self.engine)
        asked = [Deferred.fromCoroutine(self.book.user_plan(f"user{number}")) for number in range(20)]
        self.assertEqual([answer.quota for answer in await gatherResults(asked)], quotas)
        self.assertEqual(len(seen.seen), 1)

    async def test_lookups_at_the_same_time_are_about_their_own_user(self) -> None:
        com, org = await self.domain("example.com"), await self.domain("example.org")
        sales = await self.email("sales@example.net")
        await self.user("alice", domains=[com], emails=[sales])
        await self.user("bob", domains=[org])
        wanted = {
            ("alice", "example.com", "sales@example.net"): SenderGrant(True, True, True),
            ("alice", "example.org", ""): SenderGrant(True, False, False),
            ("bob", "example.com", "sales@example.net"): SenderGrant(True, False, False),
            ("bob", "example.org", ""): SenderGrant(True, True, False),
            ("carol", "example.com", ""): SenderGrant(False, False, False),
        }
        asked = [Deferred.fromCoroutine(self.book.senders_of(*each)) for each in wanted]
        self.assertEqual(await gatherResults(asked), list(wanted.values()))

    async def test_a_cancelled_caller_does_not_affect_others(self) -> None:
        await self.user("alice")
        first, second = (Deferred.fromCoroutine(self.book.user_plan("alice")) for _ in range(2))
        first.cancel()
        self.assertEqual(await second, UserPlan(True, None))
        with self.assertRaises(CancelledError):
            await first

    async def test_ping(self) -> None:
        seen = Statements(self.engine)
        await self.book.ping()
        self.assertEqual(len(seen.seen), 1)
        self.assertEqual(self.book.problem, "")


class BookOnSqlite(OnSqlite, BookTests):
    __test__ = True

    async def test_known_names_are_found_by_an_index_among_many(self) -> None:
        seen = Statements(self.engine)
        await self.user("alice", domains=[await self.domain("example.com")])
        seen.seen.clear()
        await self.book.user_plan("alice")
        await self.book.domain_plan("example.com")
        await self.book.plan(1)
        await self.book.plan_named("basic")
        await self.book.exemptions()
        await self.book.flags_of("example.com")
        await self.book.senders_of("alice", "example.com", "x@example.com")
        with self.engine.connect() as connection:
            for statement in seen.seen:
                bound = statement.count("?") * ("x",)
                plan = [str(row) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, bound)]
                self.assertFalse([step for step in plan if "SCAN" in step], statement)


class BookOnPostgreSQL(OnPostgreSQL, BookTests):
    __test__ = True


class BookOnMariaDB(OnMariaDB, BookTests):
    __test__ = True

    async def test_a_collation_that_takes_names_for_the_same_does_not_matter(self) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("ALTER TABLE users CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"))
        try:
            await self.test_user_names_are_compared_exactly_except_for_case()
            self.assertIsNone(await self.book.by_name("users", "álice"))
        finally:
            with self.engine.begin() as connection:
                connection.execute(text("ALTER TABLE users CONVERT TO CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"))

    async def test_a_name_that_cannot_be_compared_does_not_affect_others(self) -> None:
        await self.user("alice", domains=[await self.domain("example.com")])
        with self.engine.begin() as connection:
            connection.execute(text("ALTER TABLE domains MODIFY name VARCHAR(64) CHARACTER SET latin1"))
        try:
            names = ("example.com", "xn--fiq228c.example")
            asked = [Deferred.fromCoroutine(self.book.senders_of("alice", name, "")) for name in names]
            self.assertEqual(await asked[0], SenderGrant(True, True, False))
            with self.assertRaisesRegex(BookUnavailable, "collations"):
                await asked[1]
        finally:
            with self.engine.begin() as connection:
                connection.execute(text("ALTER TABLE domains MODIFY name VARCHAR(255) COLLATE utf8mb4_bin NOT NULL"))


class CoalescerTests(SynchronousTestCase):
    """Identical concurrent lookups run once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.coalescer = Coalescer(self.clock)
        self.asked: list[Deferred[str]] = []

    def ask(self) -> Deferred[str]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def test_a_lookup_during_an_identical_query_runs_after_it(self) -> None:
        first = self.coalescer.join("key", self.ask)
        self.clock.advance(0)
        later = [self.coalescer.join("key", self.ask) for _ in range(3)]
        self.clock.advance(1)
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback("before the change")
        self.assertEqual(self.successResultOf(first), "before the change")
        self.assertEqual(len(self.asked), 2)
        self.asked[1].callback("after the change")
        self.assertEqual([self.successResultOf(each) for each in later], ["after the change"] * 3)

    def test_a_failure_reaches_all_callers_and_the_next_lookup_runs_again(self) -> None:
        both = [self.coalescer.join("key", self.ask) for _ in range(2)]
        self.clock.advance(0)
        self.asked[0].errback(ValueError("no"))
        for each in both:
            self.failureResultOf(each, ValueError)
        again = self.coalescer.join("key", self.ask)
        self.clock.advance(0)
        self.asked[1].callback("yes")
        self.assertEqual(self.successResultOf(again), "yes")

    def test_a_query_without_waiting_callers_does_not_run(self) -> None:
        waiter = self.coalescer.join("key", self.ask)
        waiter.cancel()
        self.failureResultOf(waiter, CancelledError)
        self.clock.advance(0)
        self.assertEqual(self.asked, [])


class UrlTests(SynchronousTestCase):
    """The URL of the database from the options."""

    def url(self, **options: Any) -> str:
        return database_url(PolicyConfigAdapter(**options), "s/e:c@r%t", "/data").render_as_string(False)

    def test_each_kind_with_its_usual_port(self) -> None:
        for options, url in (
            ({}, "sqlite+pysqlite:////data/chapps.sqlite3"),
            ({"db_name": "/srv/book.db"}, "sqlite+pysqlite:////srv/book.db"),
            ({"adapter": "postgresql"}, "postgresql+psycopg://chapps:s%2Fe%3Ac%40r%25t@localhost:5432/chapps"),
            ({"adapter": "mysql"}, "mysql+pymysql://chapps:s%2Fe%3Ac%40r%25t@localhost:3306/chapps"),
            ({"adapter": "mariadb", "db_port": 33}, "mysql+pymysql://chapps:s%2Fe%3Ac%40r%25t@localhost:33/chapps"),
        ):
            self.assertEqual(self.url(**options), url)

    def test_a_host_that_is_a_path_is_a_unix_socket(self) -> None:
        run = {"adapter": "postgresql", "db_host": "/run/postgresql"}
        self.assertTrue(self.url(**run).endswith("@/chapps?host=%2Frun%2Fpostgresql&port=5432"))
        self.assertTrue(self.url(**{**run, "db_host": "/run/postgresql/.s.PGSQL.99"}).endswith("postgresql&port=99"))
        self.assertIn("unix_socket=%2Frun%2Fdb.sock", self.url(adapter="mariadb", db_host="/run/db.sock"))

    def test_a_url_takes_precedence_and_gets_our_driver(self) -> None:
        for given, url in (
            ("sqlite:////a/b.db", "sqlite+pysqlite:////a/b.db"),
            ("postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
            ("mysql+mysqldb://u:p@h/d?charset=utf8mb4", "mysql+pymysql://u:p@h/d?charset=utf8mb4"),
            ("mariadb://u:p@h/d", "mysql+pymysql://u:p@h/d"),
        ):
            self.assertEqual(self.url(adapter="postgresql", db_url=Secret(given)), url)

    def test_an_invalid_url_is_rejected_without_showing_it(self) -> None:
        for given in ("opensesame", "oracle://u:opensesame@h/d", "postgresql://u:opensesame@h:port/d", "sqlite://"):
            error = self.assertRaises(ConfigError, self.url, db_url=Secret(given))
            self.assertIn("[PolicyConfigAdapter] db_url must", str(error))
            self.assertNotIn("opensesame", str(error))

    def test_no_text_shows_the_password(self) -> None:
        url = database_url(PolicyConfigAdapter(adapter="mariadb"), "opensesame", "/data")
        self.assertNotIn("opensesame", f"{url} {url!r}")
