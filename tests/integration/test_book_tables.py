"""The book while the database answers, but is not as it was: without its tables, at another revision, another file."""

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
from chapps_tw.interfaces.book import BookUnavailable, QuotaGrant
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
        """Whether a question was answered."""
        try:
            await self.book.quota_of("alice")
        except BookUnavailable:
            return False
        return True

    async def test_without_its_tables_it_is_away_until_somebody_sets_it_up(self: Any) -> None:
        await self.book.ping()
        self.drop_tables()
        while not self.book.problem:
            self.assertFalse(await self.ask())
        probes = Statements(self.engine)
        await self.until(lambda: len(probes.seen) >= PROBES)
        self.assertFalse(await self.ask())
        self.assertRegex(self.book.problem, "^The database is away: .*: run 'chapps-cli admin db-setup'$")
        schema.upgrade(self.other)
        await self.until(lambda: not self.book.problem)
        self.assertTrue(await self.ask())
        self.assertEqual(len(self.log.lines), 2, self.log.lines)

    async def test_whoever_asks_whether_it_answers_learns_that_there_are_no_tables(self: Any) -> None:
        self.drop_tables()
        self.addCleanup(schema.upgrade, self.other)
        with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
            await self.book.ping()

    async def test_another_revision_is_told_once_and_keeps_nobody_waiting(self: Any) -> None:
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

    async def test_a_column_that_is_not_there_is_noticed(self: Any) -> None:
        with self.other.begin() as connection:
            connection.execute(text("ALTER TABLE domains DROP COLUMN check_spf"))
        self.addCleanup(self.restore)
        with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
            await self.book.ping()

    def restore(self: Any) -> None:
        self.drop_tables()
        schema.upgrade(self.other)


class SqliteTables(TablesTests, OnSqlite, BookCase):
    async def test_a_file_that_replaces_another_is_the_book_from_then_on(self) -> None:
        await self.user("alice")
        self.replace()
        self.assertEqual(await self.book.quota_of("alice"), QuotaGrant(False, None))
        await self.user("bob")

    def replace(self) -> None:
        path = self.adapter.db_name
        new = engine_for(replace(self.adapter, db_name=f"{path}.new.sqlite3"))
        schema.upgrade(new)
        new.dispose()
        for end in ("-wal", "-shm"):
            Path(path + end).unlink(missing_ok=True)
        os.replace(f"{path}.new.sqlite3", path)

    async def test_a_file_that_is_gone_is_no_empty_book(self) -> None:
        os.rename(self.adapter.db_name, f"{self.adapter.db_name}.away")
        with self.assertRaisesRegex(BookUnavailable, "book.sqlite3: No such file or directory"):
            await self.book.quota_of("alice")
        self.assertFalse(Path(self.adapter.db_name).exists())
        os.rename(f"{self.adapter.db_name}.away", self.adapter.db_name)
        self.assertTrue(await self.ask())


class PostgreSQLTables(TablesTests, OnPostgreSQL, BookCase):
    pass


class MariaDBTables(TablesTests, OnMariaDB, BookCase):
    pass
