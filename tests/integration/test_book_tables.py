"""The book while the database answers, but was changed: tables are missing, another revision, another file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import text
from twisted.internet.task import deferLater

from chapps_tw.database import schema
from chapps_tw.database.models import metadata
from chapps_tw.interfaces.book import BookUnavailable, UserPlan
from tests.support.book_case import CLOCK, BookCase, Log, OnMariaDB, OnPostgreSQL, OnSqlite, Statements, engine_for

PROBES = 3


class TablesTests:
    """Behaviour on each kind of database."""

    def setUp(self: Any) -> None:
        super().setUp()  # type: ignore[misc]
        self.log = Log()
        self.addCleanup(self.log.stop)
        self.other = engine_for(self.adapter)
        self.addCleanup(self.other.dispose)

    def drop_tables(self: Any) -> None:
        with self.other.begin() as connection:
            metadata.drop_all(connection)
            connection.execute(text("DROP TABLE alembic_version"))

    async def until(self: Any, true: Callable[[], object]) -> None:
        for _ in range(1000):
            if true():
                return
            await deferLater(CLOCK, 0.02)
        self.fail("That did not happen.")

    async def ask(self: Any) -> bool:
        """Return whether a lookup was answered."""
        try:
            await self.book.user_plan("alice")
        except BookUnavailable:
            return False
        return True

    async def test_a_database_without_tables_is_unavailable_until_it_is_set_up(self: Any) -> None:
        await self.book.ping()
        self.drop_tables()
        while not self.book.problem:
            self.assertFalse(await self.ask())
        probes = Statements(self.engine)
        await self.until(lambda: len(probes.seen) >= PROBES)
        self.assertFalse(await self.ask())
        self.assertRegex(self.book.problem, "^The database is unavailable: .*: run 'chapps-cli admin db-setup'$")
        schema.upgrade(self.other)
        await self.until(lambda: not self.book.problem)
        self.assertTrue(await self.ask())
        self.assertEqual(len(self.log.lines), 2, self.log.lines)

    async def test_a_ping_reports_missing_tables(self: Any) -> None:
        self.drop_tables()
        self.addCleanup(schema.upgrade, self.other)
        with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
            await self.book.ping()

    async def test_another_revision_is_logged_once_and_delays_no_lookup(self: Any) -> None:
        await self.book.ping()
        for revision, remedy in ((schema.FLAGS_REVISION, "run 'chapps-cli admin db-setup'"), ("newer", "Install that")):
            self.revise(revision)
            await self.book.ping()
            await self.book.ping()
            self.assertRegex(self.log.lines.pop(), f"at revision {revision}, .*{remedy}")
            self.assertEqual(self.log.lines, [])
            self.assertTrue(await self.ask())
        self.revise(schema.HEAD)
        await self.book.ping()
        self.assertEqual(self.log.lines, [])

    def revise(self: Any, revision: str) -> None:
        with self.other.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})

    async def test_a_missing_column_is_noticed(self: Any) -> None:
        with self.other.begin() as connection:
            connection.execute(text("ALTER TABLE domains DROP COLUMN check_spf"))
        self.addCleanup(self.restore)
        with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
            await self.book.ping()

    def restore(self: Any) -> None:
        self.drop_tables()
        schema.upgrade(self.other)


class SqliteTables(TablesTests, OnSqlite, BookCase):
    async def test_a_replaced_file_is_used_from_then_on(self) -> None:
        await self.user("alice")
        self.replace()
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(False, None))
        await self.user("bob")

    async def test_what_was_changed_in_a_replaced_file_is_not_applied_to_the_other_one(self) -> None:
        await self.user("alice")
        self.replace(with_log=False)
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(False, None))
        await self.user("bob")
        with self.other.begin() as connection:
            self.assertEqual(connection.execute(text("PRAGMA integrity_check")).all(), [("ok",)])

    def replace(self, with_log: bool = True) -> None:
        path = self.adapter.db_name
        new = engine_for(replace(self.adapter, db_name=f"{path}.new.sqlite3"))
        schema.upgrade(new)
        new.dispose()
        for end in ("-wal", "-shm") if with_log else ():
            Path(path + end).unlink(missing_ok=True)
        os.replace(f"{path}.new.sqlite3", path)

    async def test_a_missing_file_is_not_an_empty_book(self) -> None:
        os.rename(self.adapter.db_name, f"{self.adapter.db_name}.away")
        with self.assertRaisesRegex(BookUnavailable, "book.sqlite3: No such file or directory"):
            await self.book.user_plan("alice")
        self.assertFalse(Path(self.adapter.db_name).exists())
        os.rename(f"{self.adapter.db_name}.away", self.adapter.db_name)
        self.assertTrue(await self.ask())


class PostgreSQLTables(TablesTests, OnPostgreSQL, BookCase):
    pass


class MariaDBTables(TablesTests, OnMariaDB, BookCase):
    pass
