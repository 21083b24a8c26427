"""The schema: created, upgraded, adopted from CHAPPS, and rejected."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import unittest
import warnings
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, inspect, text
from sqlalchemy.schema import DropIndex

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import outbox, revisions, schema
from chapps_tw.database.engine import make_engine
from chapps_tw.database.examples import add_examples
from chapps_tw.database.models import metadata
from chapps_tw.history.table import HISTORY
from chapps_tw.interfaces.book import StaleKeys
from tests.support.book_case import OnMariaDB, OnPostgreSQL, OnSqlite, engine_for

ROWS = {
    "users": "(id, name) VALUES (1, 'alice'), (2, 'bob')",
    "domains": "(id, name) VALUES (1, 'example.com')",
    "emails": "(id, name) VALUES (1, 'sales@example.com')",
    "quotas": "(id, name, quota) VALUES (1, 'basic', 100)",
    "domain_user": "(user_id, domain_id) VALUES (1, 1), (2, 1)",
    "email_user": "(user_id, email_id) VALUES (2, 1)",
    "quota_user": "(user_id, quota_id) VALUES (1, 1)",
}

_OLD = "ENGINE=InnoDB ROW_FORMAT=COMPACT DEFAULT CHARSET=latin1"


def _chapps_entries(table: str, length: int, more: str = "") -> str:
    return (
        f"CREATE TABLE {table} (id INTEGER NOT NULL AUTO_INCREMENT, name VARCHAR({length}) NOT NULL{more},"
        f" CONSTRAINT pk_{table} PRIMARY KEY (id), UNIQUE INDEX ix_{table}_name (name)) {_OLD}"
    )


def _chapps_link(kind: str, key: str) -> str:
    return (
        f"CREATE TABLE {kind}_user (user_id INTEGER NOT NULL, {kind}_id INTEGER NOT NULL, PRIMARY KEY ({key}),"
        f" CONSTRAINT fk_{kind}_user_user_id_users FOREIGN KEY(user_id) REFERENCES users (id)"
        " ON DELETE CASCADE ON UPDATE RESTRICT,"
        f" CONSTRAINT fk_{kind}_user_{kind}_id_{kind}s FOREIGN KEY({kind}_id) REFERENCES {kind}s (id)"
        f" ON DELETE CASCADE ON UPDATE CASCADE) {_OLD}"
    )


CHAPPS_TABLES = [
    _chapps_entries("users", 128),
    _chapps_entries("domains", 64),
    _chapps_entries("emails", 128),
    _chapps_entries("quotas", 32, ", quota INTEGER NOT NULL, UNIQUE INDEX ix_quotas_quota (quota)"),
    _chapps_link("domain", "user_id, domain_id"),
    _chapps_link("email", "user_id, email_id"),
    _chapps_link("quota", "user_id"),
]


def contents(engine: Engine) -> dict[str, list[tuple[Any, ...]]]:
    with engine.connect() as connection:
        return {
            table: sorted(tuple(row) for row in connection.execute(text(f"SELECT {columns} FROM {table}")))
            for table, values in ROWS.items()
            for columns in [values.partition(")")[0][1:]]
        }


def revise(engine: Engine, revision: str) -> None:
    """Migrate a database to a revision, and nothing else."""
    config = revisions.config()
    with schema._exclusive(engine) as connection:
        config.attributes["connection"] = connection
        down = schema._versions(connection) == (schema.HEAD,)
        (command.downgrade if down else command.upgrade)(config, revision)


def fill(engine: Engine) -> None:
    with engine.begin() as connection:
        for table, values in ROWS.items():
            connection.execute(text(f"INSERT INTO {table} {values}"))


def test_the_newest_revision_is_that_of_the_scripts() -> None:
    assert revisions.known()[0] == schema.HEAD


class SchemaTests:
    """Behaviour of the schema on one kind of database."""

    new_database: Any
    engine: Engine
    options = ""
    # An SQLite file has no history.
    models: tuple[MetaData, ...] = (metadata, HISTORY.metadata)

    def setUp(self: Any) -> None:
        self.engine = engine_for(self.new_database())
        self.addCleanup(self.engine.dispose)

    def test_a_new_database_has_every_table_and_nothing_is_left_to_do(self: Any) -> None:
        self.assertEqual(schema.upgrade(self.engine), "")
        self.assertEqual(schema.current(self.engine), schema.HEAD)
        self.assert_same_as_models()
        schema.check(self.engine)

    def assert_same_as_models(self: Any) -> None:
        with self.engine.connect() as connection:
            context = MigrationContext.configure(
                connection, opts={"compare_type": True, "compare_server_default": True, "target_metadata": self.models}
            )
            with warnings.catch_warnings():
                # Databases format the expression of a computed column differently, and Alembic cannot compare them.
                warnings.filterwarnings("ignore", "Computed default on .*folded")
                self.assertEqual(compare_metadata(context, self.models), [])

    def test_setting_up_twice_changes_nothing(self: Any) -> None:
        schema.upgrade(self.engine)
        fill(self.engine)
        before = contents(self.engine)
        self.assertEqual(schema.upgrade(self.engine), schema.HEAD)
        self.assertEqual(contents(self.engine), before)

    def test_a_database_at_an_older_revision_is_continued_with_its_data(self: Any) -> None:
        for revision in (schema.TABLES_REVISION, schema.FLAGS_REVISION, "d1f4b86a2c95"):
            with self.subTest(revision):
                self.engine = engine_for(self.new_database())
                self.addCleanup(self.engine.dispose)
                revise(self.engine, revision)
                fill(self.engine)
                before = contents(self.engine)
                self.assertEqual(schema.current(self.engine), revision)
                self.assertEqual(schema.upgrade(self.engine), revision)
                self.assertEqual(contents(self.engine), before)
                self.assert_same_as_models()

    def test_tables_without_a_revision_are_recognised(self: Any) -> None:
        for revision in (schema.TABLES_REVISION, schema.FLAGS_REVISION):
            with self.subTest(revision):
                self.engine = engine_for(self.new_database())
                self.addCleanup(self.engine.dispose)
                revise(self.engine, revision)
                fill(self.engine)
                with self.engine.begin() as connection:
                    connection.execute(text("DROP TABLE alembic_version"))
                before = contents(self.engine)
                self.assertEqual(schema.upgrade(self.engine), revision)
                self.assertEqual(contents(self.engine), before)
                self.assert_same_as_models()

    def test_flags_of_existing_domains_are_off(self: Any) -> None:
        revise(self.engine, schema.TABLES_REVISION)
        fill(self.engine)
        schema.upgrade(self.engine)
        with self.engine.connect() as connection:
            flags = connection.execute(text("SELECT greylist, check_spf FROM domains")).all()
        self.assertEqual([tuple(map(bool, row)) for row in flags], [(False, False)])

    def test_links_are_still_deleted_with_their_entries(self: Any) -> None:
        revise(self.engine, schema.TABLES_REVISION)
        fill(self.engine)
        schema.upgrade(self.engine)
        with self.engine.begin() as connection:
            connection.execute(text("DELETE FROM domains"))
        self.assertEqual(contents(self.engine)["domain_user"], [])
        self.assertEqual(len(contents(self.engine)["users"]), 2)

    def test_tables_of_another_program_are_rejected_and_left_alone(self: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE users (login VARCHAR(10))"))
        for step in (schema.upgrade, schema.check):
            with self.assertRaisesRegex(schema.SchemaForeign, r"tables named users, but lacks .*domains\.id"):
                step(self.engine)
        self.assertEqual(inspect(self.engine).get_table_names(), ["users"])

    def test_a_newer_database_is_rejected(self: Any) -> None:
        schema.upgrade(self.engine)
        with self.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = 'f00000000000'"))
        for step in (schema.upgrade, schema.check, schema.prepare):
            with self.assertRaisesRegex(schema.SchemaForeign, "f00000000000.*newer version"):
                step(self.engine)

    def test_a_database_that_is_behind_says_what_to_run(self: Any) -> None:
        with self.assertRaisesRegex(schema.SchemaBehind, "no tables yet: run 'chapps-cli admin db-setup'"):
            schema.check(self.engine)
        revise(self.engine, schema.FLAGS_REVISION)
        with self.assertRaisesRegex(schema.SchemaBehind, "0b5ef72836bd.*run 'chapps-cli admin db-setup'"):
            schema.check(self.engine)

    def test_our_own_revision_can_be_downgraded(self: Any) -> None:
        schema.upgrade(self.engine)
        fill(self.engine)
        before = contents(self.engine)
        revise(self.engine, schema.TABLES_REVISION)
        self.assertEqual(contents(self.engine), before)
        schema.upgrade(self.engine)
        self.assertEqual(contents(self.engine), before)
        self.assert_same_as_models()

    def test_a_revision_that_was_interrupted_is_run_again(self: Any) -> None:
        for revision, interrupted in (
            (
                "7c1d5b0e94fa",
                "CREATE TABLE pending_drops (id VARCHAR(32) NOT NULL, copies TEXT NOT NULL,"
                f" CONSTRAINT pk_pending_drops PRIMARY KEY (id)){self.options}",
            ),
            ("a93c5d1e7f02", "ALTER TABLE pending_drops RENAME TO invalidation_outbox"),
            ("d1f4b86a2c95", "ALTER TABLE domains ADD COLUMN each_quota_id INTEGER"),
        ):
            with self.subTest(revision):
                self.engine = engine_for(self.new_database())
                self.addCleanup(self.engine.dispose)
                revise(self.engine, revision)
                with self.engine.begin() as connection:
                    connection.execute(text(interrupted))
                self.assertEqual(schema.upgrade(self.engine), revision)
                self.assert_same_as_models()

    def test_an_interrupted_revision_of_the_history_is_run_again(self: Any) -> None:
        schema.upgrade(self.engine)
        if len(self.models) == 1:
            return
        drop = DropIndex(next(each for each in HISTORY.indexes if each.name == "ix_history_user"))
        with self.engine.begin() as connection:
            connection.execute(drop)
            connection.execute(text("UPDATE alembic_version SET version_num = '5e0f92c7d1b4'"))
        self.assertEqual(schema.upgrade(self.engine), "5e0f92c7d1b4")
        self.assert_same_as_models()

    def test_pending_invalidations_survive_the_new_name_of_their_table(self: Any) -> None:
        revise(self.engine, "a93c5d1e7f02")
        stored = """INSERT INTO pending_drops VALUES ('a', '[["limits","alice"],["senders","bob","example.com"]]')"""
        with self.engine.begin() as connection:
            connection.execute(text(stored))
        schema.upgrade(self.engine)
        with self.engine.begin() as connection:
            [row] = outbox.read(connection, "")
        stale = StaleKeys(frozenset({"alice"}), frozenset({("bob", "example.com")}))
        self.assertEqual(row, outbox.OutboxRow("a", stale))
        revise(self.engine, "a93c5d1e7f02")
        with self.engine.begin() as connection:
            self.assertEqual(connection.execute(text("SELECT id FROM pending_drops")).all(), [("a",)])

    def test_examples_are_added_once_and_to_an_empty_book_only(self: Any) -> None:
        schema.upgrade(self.engine)
        self.assertTrue(add_examples(self.engine, 0.0))
        self.assertFalse(add_examples(self.engine, 0.0))
        found = contents(self.engine)
        self.assertEqual([name for _, name in found["users"]], ["alice@example.com", "bob@example.org"])
        self.assertEqual([len(found[table]) for table in ("domain_user", "email_user", "quota_user")], [2, 1, 2])


class SchemaOnSqlite(SchemaTests, OnSqlite, unittest.TestCase):
    models = (metadata,)

    def test_the_start_sets_it_up(self) -> None:
        schema.prepare(self.engine)
        schema.check(self.engine)

    def test_processes_that_start_together_do_not_disturb_each_other(self) -> None:
        path = Path(self.enterContext(tempfile.TemporaryDirectory()), "book.sqlite3")
        code = (
            "import sys; from chapps_tw.config.settings import PolicyConfigAdapter as A;"
            "from chapps_tw.database import schema; from chapps_tw.database.engine import make_engine;"
            "schema.prepare(make_engine(A(db_name=sys.argv[1]), '', ''))"
        )
        command = [sys.executable, "-W", "error", "-c", code, str(path)]
        both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
        self.assertEqual([process.communicate()[1] for process in both], [""] * 4)
        engine = engine_for(PolicyConfigAdapter(db_name=str(path)))
        self.addCleanup(engine.dispose)
        schema.check(engine)

    def test_a_file_is_private_to_its_owner(self) -> None:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()), "new")
        engine = make_engine(PolicyConfigAdapter(), "", str(directory))
        self.addCleanup(engine.dispose)
        schema.prepare(engine)
        self.assertEqual(directory.stat().st_mode & 0o777, 0o700)
        modes = {file.name: file.stat().st_mode & 0o777 for file in directory.iterdir()}
        self.assertEqual(set(modes.values()), {0o600})
        self.assertIn("chapps.sqlite3", modes)

    def test_nothing_is_printed_or_logged(self) -> None:
        code = (
            "import logging, sys; logging.basicConfig(level='WARNING');"
            "from chapps_tw.config.settings import PolicyConfigAdapter as A; from chapps_tw.database import schema;"
            "from chapps_tw.database.engine import make_engine;"
            "schema.prepare(make_engine(A(), '', sys.argv[1]));"
            "assert logging.getLogger().level == logging.WARNING and len(logging.getLogger().handlers) == 1"
        )
        directory = self.enterContext(tempfile.TemporaryDirectory())
        done = subprocess.run([sys.executable, "-c", code, directory], capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_a_percent_sign_in_the_path_of_the_program_or_the_database_is_literal(self) -> None:
        directory = Path(self.enterContext(tempfile.TemporaryDirectory()), "100%20 %(here)s")
        engine = make_engine(PolicyConfigAdapter(), "", str(directory))
        self.addCleanup(engine.dispose)
        schema.prepare(engine)
        self.assertEqual(os.listdir(directory)[0].partition(".")[0], "chapps")


class SchemaOnPostgreSQL(SchemaTests, OnPostgreSQL, unittest.TestCase):
    def test_the_start_does_not_set_it_up(self) -> None:
        with self.assertRaises(schema.SchemaBehind):
            schema.prepare(self.engine)
        self.assertEqual(inspect(self.engine).get_table_names(), [])


class SchemaOnMariaDB(SchemaTests, OnMariaDB, unittest.TestCase):
    options = " DEFAULT CHARSET=utf8mb4 COLLATE utf8mb4_bin"

    def test_the_start_does_not_set_it_up(self) -> None:
        with self.assertRaises(schema.SchemaBehind):
            schema.prepare(self.engine)
        self.assertEqual(inspect(self.engine).get_table_names(), [])

    def test_tables_as_chapps_makes_them_on_an_old_server_are_converted(self) -> None:
        with self.engine.begin() as connection:
            for statement in CHAPPS_TABLES:
                connection.execute(text(statement))
        fill(self.engine)
        with self.engine.begin() as connection:
            connection.execute(text("INSERT INTO domains (name) VALUES ('xn--bcher-kva.example')"))
        before = contents(self.engine)
        self.assertEqual(schema.upgrade(self.engine), schema.TABLES_REVISION)
        self.assertEqual(contents(self.engine), before)
        with self.engine.connect() as connection:
            collations = connection.scalars(
                text(
                    "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = DATABASE()"
                    " AND column_name = 'name'"
                )
            ).all()
        self.assertEqual(collations, ["utf8mb4_bin"])
        self.assert_same_as_models()
