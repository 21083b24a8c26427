"""Queries of a large book use an index, in any spelling, and also for names that do not exist."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event, insert, text

from chapps_tw.database.models import TABLES, domains, emails, users
from chapps_tw.interfaces.book import BookConflict, Create
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite

ROWS = 3000


class IndexTests:
    """The subclass names the database, its statement for a query plan, and what a full scan looks like in a plan."""

    analyze: str
    explain: str
    walked: str

    def fill(self: Any) -> None:
        with self.engine.begin() as connection:
            for table, name in ((users, "User{}@Example.com"), (domains, "D{}.Example"), (emails, "A{}@B.example")):
                connection.execute(insert(table), [{"name": name.format(number)} for number in range(ROWS)])
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for name in TABLES:
                connection.execute(text(self.analyze.format(name)))

    @contextmanager
    def plans(self: Any) -> Iterator[list[str]]:
        """Record the plans of all queries."""
        asked: list[tuple[str, Any]] = []
        plans: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            if statement.startswith("SELECT") and "name" in statement:
                asked.append((statement, parameters))

        event.listen(self.engine, "before_cursor_execute", note)
        yield plans
        event.remove(self.engine, "before_cursor_execute", note)
        with self.engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                # This tests whether an index can be used, not whether the planner finds it cheaper.
                connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
            for statement, parameters in asked:
                rows = connection.exec_driver_sql(f"{self.explain} {statement}", parameters)
                plans.append(f"{statement}\n" + "\n".join(str(tuple(row)) for row in rows))

    async def test_no_look_up_walks_through_a_table(self: Any) -> None:
        self.fill()
        with self.plans() as plans:
            await self.book.flags_of("nowhere.example")
            self.assertTrue((await self.book.flags_of("d7.example")).known)
            await self.book.senders_of("User7@Example.com", "nowhere.example", "nobody@b.example")
            await self.book.user_plan("nobody")
            await self.book.change(Create("domains", {"name": "new.example"}))
            with self.assertRaises(BookConflict):
                await self.book.change(Create("domains", {"name": "d8.example"}))
            await self.book.change(Create("emails", {"name": "new@b.example"}))
        self.assertGreater(len(plans), 8)
        for plan in plans:
            self.assertNotRegex(plan, self.walked)


class IndexesOnSqliteTests(IndexTests, OnSqlite, BookCase):
    explain, analyze, walked = "EXPLAIN QUERY PLAN", "ANALYZE {}", r"SCAN (domains|emails|users)"


class IndexesOnPostgreSQLTests(IndexTests, OnPostgreSQL, BookCase):
    explain, analyze, walked = "EXPLAIN", "ANALYZE {}", r"Seq Scan on (domains|emails|users)"


class IndexesOnMariaDBTests(IndexTests, OnMariaDB, BookCase):
    explain, analyze, walked = "EXPLAIN", "ANALYZE TABLE {}", r"'(domains|emails|users)', '(ALL|index)'"
