"""Normalizing the names of an older book, on each kind of database."""

from __future__ import annotations

import dataclasses
import unittest
from typing import Any

from sqlalchemy import Connection, Engine, text

from chapps_tw.application.admin import set_up
from chapps_tw.config.settings import Chapps, PolicyConfigAdapter, Settings
from chapps_tw.config.values import Secret
from chapps_tw.database import lookups, outbox, plans, schema
from chapps_tw.database.engine import make_engine
from chapps_tw.interfaces.book import DomainFlags, SenderGrant
from tests.integration.test_migrations import CHAPPS_TABLES, revise
from tests.support.book_case import OnMariaDB, OnPostgreSQL, OnSqlite, Statements, engine_for

BEFORE = "b3d90c4e71a8"

SPELLED = {
    "users": "(id, name) VALUES (1, 'Alice@Example.org'), (2, 'bob'), (3, 'CAROL'), (4, 'Jürgen@BÜCHER.example')",
    "domains": "(id, name) VALUES (1, 'Example.org'), (2, 'bücher.example'), (3, 'junk ..')",
    "emails": "(id, name) VALUES (1, 'Friend@Elsewhere.Example'), (2, 'x@y@Elsewhere.example')",
    "quotas": "(id, name, quota) VALUES (1, 'Basic', 100)",
    "domain_user": "(user_id, domain_id) VALUES (1, 1), (4, 2)",
    "email_user": "(user_id, email_id) VALUES (1, 1), (3, 2)",
    "quota_user": "(user_id, quota_id) VALUES (1, 1)",
}
NORMAL = {
    "users": ["alice@example.org", "bob", "carol", "jürgen@xn--bcher-kva.example"],
    "domains": ["example.org", "xn--bcher-kva.example", "junk .."],
    "emails": ["friend@elsewhere.example", "x@y@elsewhere.example"],
    "quotas": ["Basic"],
}
TOLD = [
    "Names of users normalized: 3.",
    "Names of domains normalized: 2.",
    "Names of emails normalized: 2.",
]

# Several rows with the same normal name. Only for the first user, none of them is in normal form.
SEVERAL = {
    "quotas": "(id, name, quota) VALUES (1, 'ten', 10), (2, 'twenty', 20)",
    "users": "(id, name) VALUES (1, 'ALICE'), (2, 'Alice'), (3, 'Bob@example.org'), (4, 'bob@example.org'), (5, 'Eve')",
    "domains": "(id, name, greylist, check_spf) VALUES"
    " (1, 'EXAMPLE.org', true, false), (2, 'example.org', false, true)",
    "emails": "(id, name) VALUES (1, 'Friend@example.net'), (2, 'friend@Example.net')",
    "quota_user": "(user_id, quota_id) VALUES (1, 1), (2, 2), (3, 1), (4, 2)",
    "domain_user": "(user_id, domain_id) VALUES (1, 1), (4, 2)",
    "email_user": "(user_id, email_id) VALUES (1, 1), (4, 2)",
}
SAME = "have the same name in different spellings"
SEVERAL_TOLD = [
    f"2 users {SAME}: 'ALICE' (id 1), 'Alice' (id 2). A login by any of these names is id 1; the others are kept, but"
    " not used until they or id 1 are renamed.",
    f"2 users {SAME}: 'bob@example.org' (id 4), 'Bob@example.org' (id 3). A login by any of these names is id 4; the"
    " others are kept, but not used until they or id 4 are renamed.",
    f"2 domains {SAME}: 'example.org' (id 2), 'EXAMPLE.org' (id 1). The flags of id 2 apply, and the links of all;"
    " move the links to id 2 and delete the others.",
    f"2 emails {SAME}: 'Friend@example.net' (id 1), 'friend@Example.net' (id 2). The links of all apply; move the"
    " links to id 1 and delete the others.",
]
EVE_TOLD = "Names of users normalized: 1."


def write(engine: Engine, rows: dict[str, str]) -> None:
    with engine.begin() as connection:
        for table, values in rows.items():
            connection.execute(text(f"INSERT INTO {table} {values}"))


def names(engine: Engine) -> dict[str, list[str]]:
    with engine.connect() as connection:
        return {table: list(connection.scalars(text(f"SELECT name FROM {table} ORDER BY id"))) for table in NORMAL}


def grant_of(connection: Connection, *wanted: str) -> SenderGrant:
    sender = lookups.Sender(*wanted)
    return lookups.grants(connection, [sender])[sender]


def number_of(connection: Connection, user: str) -> int | None:
    """Return the number of the quota of a user."""
    quota = plans.user_plans(connection, [user], 0.0)[user].quota
    plan = plans.plan(connection, quota) if quota else None
    return plan.quota if plan else None


def known_as(connection: Connection, user: str) -> bool:
    return plans.user_plans(connection, [user], 0.0)[user].known


class NameMigrationTests:
    """Normalized names on one kind of database."""

    new_database: Any
    adapter: PolicyConfigAdapter
    engine: Engine

    def setUp(self: Any) -> None:
        self.adapter = self.new_database()
        self.engine = engine_for(self.adapter)
        self.addCleanup(self.engine.dispose)

    def settings(self: Any, fold_case: bool = True) -> Settings:
        chapps = dataclasses.replace(Chapps(), fold_case=fold_case)
        return Settings(chapps=chapps, adapter=self.adapter, db_password=Secret("secret"))

    def set_up(self: Any, fold_case: bool = True) -> list[str]:
        """Return what ``admin db-setup`` reports about names."""
        return set_up(self.settings(fold_case)).split("\n")[1:]

    def ask(self: Any, look: Any, *names: str) -> Any:
        with self.engine.connect() as connection:
            return look(connection, *names)

    def test_names_are_normalized_and_that_is_reported(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SPELLED)
        self.assertEqual(self.set_up(), TOLD)
        self.assertEqual(names(self.engine), NORMAL)
        self.assertEqual(self.set_up(), [])
        self.assertEqual(self.ask(number_of, "alice@example.org"), 100)
        wanted = ("alice@example.org", "example.org", "friend@elsewhere.example")
        self.assertEqual(self.ask(grant_of, *wanted), SenderGrant(True, True, True))

    def test_a_dry_run_reports_the_same_and_changes_nothing(self: Any) -> None:
        self.assertIn("at revision none", set_up(self.settings(), dry_run=True))
        revise(self.engine, schema.FLAGS_REVISION)
        write(self.engine, SPELLED)
        self.check_dry_run(TOLD)
        revise(self.engine, BEFORE)
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO users (id, name) VALUES (5, 'BOB')"))
        several = (
            f"2 users {SAME}: 'bob' (id 2), 'BOB' (id 5). A login by any of these names is id 2; the others are"
            " kept, but not used until they or id 2 are renamed."
        )
        self.check_dry_run([*TOLD, several])
        self.assertEqual(self.set_up(), [*TOLD, several])
        self.check_dry_run([several])

    def check_dry_run(self: Any, wanted: list[str]) -> None:
        before = names(self.engine), self.ask(schema._revision)
        first, *told = set_up(self.settings(), dry_run=True).split("\n")
        self.assertIn(f"nothing was changed; it is at revision {before[1]}", first)
        self.assertEqual(told, wanted)
        self.assertEqual((names(self.engine), self.ask(schema._revision)), before)

    def test_tables_that_chapps_made_itself_are_treated_the_same(self: Any) -> None:
        revise(self.engine, schema.FLAGS_REVISION)
        with self.engine.begin() as connection:
            connection.execute(text("DROP TABLE alembic_version"))
        write(self.engine, SPELLED)
        self.assertEqual(self.set_up(), TOLD)
        self.assertEqual(names(self.engine), NORMAL)

    def test_what_is_cached_about_renamed_entries_is_invalidated(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SPELLED)
        self.set_up()
        left = [row.stale for row in self.ask(outbox.read, "")]
        self.assertIn("alice@example.org", frozenset().union(*(each.users for each in left)))
        senders = frozenset().union(*(each.senders for each in left))
        self.assertIn(("alice@example.org", "friend@elsewhere.example"), senders)
        self.assertIn(("carol", "x@y@elsewhere.example"), senders)
        self.assertNotIn("bob", frozenset().union(*(each.users for each in left)))

    def test_rows_with_the_same_name_are_left_and_reported_each_time(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SEVERAL)
        before = names(self.engine)
        self.assertEqual(sorted(self.set_up()), sorted([*SEVERAL_TOLD, EVE_TOLD]))
        self.assertEqual(names(self.engine), {**before, "users": [*before["users"][:4], "eve"]})
        self.assertEqual(self.set_up(), SEVERAL_TOLD)

    def test_the_report_about_duplicate_rows_is_what_policies_do(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SEVERAL)
        self.set_up()
        self.assertEqual(self.ask(number_of, "alice"), 10)
        self.assertEqual(self.ask(number_of, "bob@example.org"), 20)
        self.assertEqual(self.ask(lookups.flags_of, "example.org"), DomainFlags(True, False, True))
        for user in ("alice", "bob@example.org"):
            grant = self.ask(grant_of, user, "example.org", "friend@example.net")
            self.assertEqual(grant, SenderGrant(True, True, True), user)

    def test_after_one_is_deleted_the_other_gets_the_name(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SEVERAL)
        self.set_up()
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM users WHERE id IN (1, 4)"))
        self.assertEqual(self.ask(number_of, "alice"), 20)
        self.assertEqual(self.ask(number_of, "bob@example.org"), 10)
        told = self.set_up()
        self.assertEqual(told[:1], ["Names of users normalized: 2."])
        self.assertEqual(names(self.engine)["users"], ["alice", "bob@example.org", "eve"])

    def test_case_is_kept_until_it_no_longer_matters(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SPELLED)
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO users (id, name) VALUES (5, 'Bob')"))
        self.set_up(fold_case=False)
        found = names(self.engine)
        users = ["Alice@example.org", "bob", "CAROL", "Jürgen@xn--bcher-kva.example", "Bob"]
        self.assertEqual(found["users"], users)
        self.assertEqual(found["emails"], ["Friend@elsewhere.example", "x@y@elsewhere.example"])
        self.assertEqual(self.set_up(fold_case=False), [])
        engine = make_engine(self.adapter, "secret", "/nowhere", fold_case=False)
        self.addCleanup(engine.dispose)
        with engine.connect() as connection:
            known = [
                plans.user_plans(connection, [name], 0.0)[name].known
                for name in ("Alice@example.org", "CAROL", "Bob", "bob")
            ]
            self.assertEqual(known, [True] * 4)
            known = [known_as(connection, name) for name in ("alice@example.org", "carol", "BOB")]
            self.assertEqual(known, [False] * 3)
        self.assertEqual(len([line for line in self.set_up() if "'bob' (id 2), 'Bob' (id 5)" in line]), 1)
        self.assertEqual(names(self.engine)["users"][:3], ["alice@example.org", "bob", "carol"])

    def test_names_in_normal_form_are_not_written(self: Any) -> None:
        schema.upgrade(self.engine)
        with self.engine.begin() as connection:
            rows = [{"id": id, "name": f"user{id}@example.org"} for id in range(1, 2001)]
            connection.execute(text("INSERT INTO users (id, name) VALUES (:id, :name)"), rows)
        written = Statements(self.engine, "UPDATE")
        schema.normalise_names(self.engine, self.fail)
        self.assertEqual(written.seen, [])

    def test_a_revision_that_was_interrupted_after_names_were_written_is_run_again(self: Any) -> None:
        revise(self.engine, BEFORE)
        write(self.engine, SPELLED)
        schema.upgrade(self.engine)
        with self.engine.begin() as connection:
            connection.execute(text(f"UPDATE alembic_version SET version_num = '{BEFORE}'"))
        self.assertEqual(self.set_up(), [])
        self.assertEqual(names(self.engine), NORMAL)


class NameMigrationOnSqlite(NameMigrationTests, OnSqlite, unittest.TestCase):
    pass


class NameMigrationOnPostgreSQL(NameMigrationTests, OnPostgreSQL, unittest.TestCase):
    pass


class NameMigrationOnMariaDB(NameMigrationTests, OnMariaDB, unittest.TestCase):
    def test_names_that_were_equal_in_the_collation_of_chapps_are_still_found(self) -> None:
        with self.engine.begin() as connection:
            for statement in CHAPPS_TABLES:
                connection.execute(text(statement))
        write(self.engine, SPELLED)
        with self.engine.connect() as connection:
            found = connection.scalar(text("SELECT id FROM users WHERE name = 'alice@EXAMPLE.org'"))
        self.assertEqual(found, 1)
        self.assertEqual(self.set_up(), TOLD)
        self.assertEqual(names(self.engine), NORMAL)
        self.assertEqual(self.ask(number_of, "alice@example.org"), 100)
