"""The number of connections to the database, also after failures."""

from __future__ import annotations

import gc
import re
from typing import ClassVar

from sqlalchemy import text
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.database.threads import Threads
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.book import BookUnavailable, UserPlan
from tests.support.book_case import CLOCK, BookCase, OnSqlite, book_on, engine_for, shared
from tests.support.servers.sql import MariaDB, PostgreSQL

SIZE = 4
DEADLINE = 30.0
COUNT = {
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE user = 'chapps' AND db = '{}'",
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE usename = 'chapps' AND datname = '{}'",
}
ALLOW = {
    "mariadb": "ALTER USER chapps@'%', chapps@localhost WITH MAX_USER_CONNECTIONS {}",
    "postgresql": "ALTER ROLE chapps CONNECTION LIMIT {}",
}
WITHOUT_LIMIT = {"mariadb": 0, "postgresql": -1}


class ConnectionsTests(TestCase):
    """A private server; ``kind`` of the subclass says which."""

    __test__ = False
    kind: ClassVar[type[PostgreSQL] | type[MariaDB]]
    server: ClassVar[PostgreSQL | MariaDB]
    adapter: ClassVar[PolicyConfigAdapter]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.kind()
        cls.server.start()
        cls.adapter = cls.server.adapter(cls.server.new_database(), pool_size=SIZE)
        engine = engine_for(cls.adapter)
        schema.upgrade(engine)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO users (name) VALUES ('alice')"))
        engine.dispose()

    @classmethod
    def tearDownClass(cls) -> None:
        cls.server.stop()

    def setUp(self) -> None:
        # In the service, it runs rarely, and most objects are frozen.
        gc.disable()
        self.addCleanup(gc.enable)
        self.threads = Threads(CLOCK, SIZE)
        self.threads.start()
        self.engine = engine_for(self.adapter)
        self.book = self.new_book(0.5)
        self.addCleanup(self.threads.stop)
        self.addCleanup(self.server.resume)

    def new_book(self, deadline: float) -> WritableSqlBook:
        book = book_on(self.engine, self.threads, deadline, DEADLINE, size=SIZE)
        self.addCleanup(book.stop)
        return book

    def allow(self, count: int) -> None:
        """Set the number of connections that the server allows."""
        self.server.execute(ALLOW[self.kind.kind].format(count))
        self.addCleanup(self.server.execute, ALLOW[self.kind.kind].format(WITHOUT_LIMIT[self.kind.kind]))

    def count(self) -> int:
        [(count,)] = self.server.execute(COUNT[self.kind.kind].format(self.adapter.db_name))
        return int(str(count))

    async def ask(self, name: str) -> UserPlan | None:
        try:
            return await self.book.user_plan(name)
        except BookUnavailable:
            return None

    async def rush(self) -> list[UserPlan | None]:
        """Look up forty unknown users at the same time, each in a query of its own."""
        asked = []
        for number in range(40):
            asked.append(Deferred.fromCoroutine(self.ask(f"user{number}")))
            # Lookups of one turn share a query.
            await deferLater(CLOCK, 0)
        return await gatherResults(asked)

    async def until_back(self) -> None:
        for _ in range(int(DEADLINE / 0.1)):
            if await self.ask("alice"):
                return
            await deferLater(CLOCK, 0.1)
        self.fail(f"The database did not come back: {self.book.problem}")

    async def test_a_server_that_hangs_again_and_again_has_no_more_than_there_may_be(self) -> None:
        for _ in range(3):
            await self.rush()
            self.server.pause()
            while not self.book.problem:
                await self.rush()
            # Probes continue meanwhile.
            await deferLater(CLOCK, 1.5)
            self.server.resume()
            await self.until_back()
        await self.rush()
        for _ in range(int(DEADLINE / 0.1)):
            if self.count() <= SIZE:
                return
            await deferLater(CLOCK, 0.1)
        self.assertLessEqual(self.count(), SIZE)

    async def test_if_the_server_allows_fewer_connections_all_lookups_share_them(self) -> None:
        self.book = self.new_book(DEADLINE)
        self.allow(2)
        for _ in range(3):
            self.assertEqual(await self.rush(), [UserPlan(False, None)] * 40)
        self.assertEqual(self.book.problem, "")
        self.assertEqual(self.count(), 2)

    async def test_a_server_that_allows_fewer_connections_recovers_after_a_hang(self) -> None:
        await self.rush()
        self.allow(2)
        self.server.pause()
        while not self.book.problem:
            await self.rush()
        self.server.resume()
        await self.until_back()
        self.book = self.new_book(DEADLINE)
        self.assertEqual(await self.rush(), [UserPlan(False, None)] * 40)

    async def test_a_server_that_allows_no_connections_is_reported_and_recovers(self) -> None:
        self.book = self.new_book(DEADLINE)
        self.allow(1)
        other = engine_for(self.adapter)
        self.addCleanup(other.dispose)
        with other.connect():
            # On a busy machine, the first problem may be that the server did not answer in time.
            while not re.search("max_user_connections|too many connections", self.book.problem):
                self.assertNotIn(UserPlan(False, None), await self.rush())
        other.dispose()
        await self.until_back()


class MariaDBConnectionsTests(ConnectionsTests):
    __test__ = True
    kind = MariaDB


class PostgreSQLConnectionsTests(ConnectionsTests):
    __test__ = True
    kind = PostgreSQL


class AbandonedConnectionTests(OnSqlite, BookCase):
    """Connections that are in use when the pool is disposed of."""

    def test_it_is_closed_when_it_comes_back(self) -> None:
        gc.disable()
        self.addCleanup(gc.enable)
        with self.engine.connect() as connection:
            driver = connection.connection.driver_connection
            self.engine.dispose()
        assert driver is not None
        with self.assertRaisesRegex(Exception, "closed database"):
            driver.execute("SELECT 1")


class AbandonedOnPostgreSQLTests(TestCase):
    def test_it_is_closed_when_it_comes_back(self) -> None:
        server = shared(PostgreSQL)
        engine = engine_for(server.adapter(server.new_database()))
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            engine.dispose()
        assert driver is not None
        self.assertTrue(driver.closed)
        engine.dispose()


class AbandonedOnMariaDBTests(TestCase):
    def test_it_is_closed_when_it_comes_back(self) -> None:
        server = shared(MariaDB)
        engine = engine_for(server.adapter(server.new_database()))
        with engine.connect() as connection:
            driver = connection.connection.driver_connection
            engine.dispose()
        assert driver is not None
        self.assertFalse(driver.open)
        engine.dispose()
