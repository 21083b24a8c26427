"""The book on a database that answers but rejects changes: a replica, a former primary, or a locked one."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event

from chapps_tw.database import engine
from chapps_tw.database.breaker import FAILURES
from chapps_tw.database.transaction import lock
from chapps_tw.interfaces.book import BookUnavailable, UserPlan
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, engine_for, shared
from tests.support.servers.sql import MariaDB, PostgreSQL


class RefusingTests(BookCase):
    """Behaviour on one kind of server."""

    __test__ = False
    session: str

    def set_read_only(self, on: bool) -> None:
        raise NotImplementedError

    async def test_changes_fail_with_a_sentence_and_lookups_work(self) -> None:
        await self.user("alice")
        self.set_read_only(True)
        self.addCleanup(self.set_read_only, False)
        for _ in range(2 * FAILURES):
            with self.assertRaisesRegex(BookUnavailable, "^The database is read-only: .*read-only"):
                await self.user("bob")
            with self.assertRaisesRegex(BookUnavailable, "^The database rejected the change: .*read-only"):
                await self.book.remove_from_outbox(["x"])
        self.assertEqual(self.book.problem, "")
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, None))
        self.set_read_only(False)
        await self.user("bob")

    async def test_connections_to_a_former_primary_are_not_kept(self) -> None:
        event.listen(self.engine, "connect", self.make_read_only, once=True)
        await self.book.ping()
        await self.user("alice")

    async def test_a_node_that_stands_still_in_a_change_does_not_keep_others_from_theirs(self) -> None:
        self.patch(engine, "IDLE_SECONDS", 1)
        other = engine_for(self.adapter)
        self.addCleanup(other.dispose)
        connection = other.connect()
        self.addCleanup(connection.invalidate)
        lock(connection)
        await self.user("alice")

    def make_read_only(self, connection: Any, _record: object) -> None:
        with connection.cursor() as cursor:
            cursor.execute(self.session)
        connection.commit()


class RefusingPostgreSQL(OnPostgreSQL, RefusingTests):
    __test__ = True
    session = "SET default_transaction_read_only = on"

    def set_read_only(self, on: bool) -> None:
        value = "on" if on else "off"
        shared(PostgreSQL).execute(f"ALTER DATABASE {self.adapter.db_name} SET default_transaction_read_only = {value}")
        self.engine.dispose()


class RefusingMariaDB(OnMariaDB, RefusingTests):
    __test__ = True
    session = "SET SESSION TRANSACTION READ ONLY"

    def set_read_only(self, on: bool) -> None:
        shared(MariaDB).execute(f"SET GLOBAL read_only = {int(on)}")
