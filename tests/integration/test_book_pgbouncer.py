"""The book behind PgBouncer, which reassigns server connections after each session or transaction."""

from __future__ import annotations

import atexit
from dataclasses import replace
from functools import cache, partial
from signal import SIGCONT, SIGSTOP

import psycopg
from sqlalchemy import event
from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.config.settings import PolicyConfigAdapter
from chapps_tw.database import schema
from chapps_tw.database.engine import STATEMENT_SECONDS
from chapps_tw.interfaces.book import BookUnavailable, UserPlan
from tests.support.book_case import BookCase, book_on, once_available, shared
from tests.support.servers.sql import PgBouncer, PostgreSQL


@cache
def bouncer(mode: str) -> PgBouncer:
    """Return the shared pooler for a mode, with a server connection for each connection of a book, or with fewer."""
    server = shared(PostgreSQL)
    assert isinstance(server, PostgreSQL)
    pooler = PgBouncer(server, mode, 8 if mode == "session" else 2)
    atexit.register(pooler.stop)
    return pooler


class PgBouncerTests(BookCase):
    """Behaviour that a pooler may break."""

    __test__ = False
    mode: str

    @classmethod
    def new_database(cls) -> PolicyConfigAdapter:
        server = shared(PostgreSQL)
        return replace(server.adapter(server.new_database()), db_port=bouncer(cls.mode).port)

    async def test_the_schema_is_set_up_and_checked(self) -> None:
        schema.check(self.engine)
        await self.book.ping()

    async def test_changes_and_lookups_by_many_at_once(self) -> None:
        quota = await self.quota("ten", 10)
        names = [f"user{number}" for number in range(40)]
        await gatherResults([Deferred.fromCoroutine(self.user(name, quotas=[quota])) for name in names])
        # Often enough for the driver to prepare the statement.
        for _ in range(4):
            found = await gatherResults([Deferred.fromCoroutine(self.book.user_plan(name)) for name in names])
            self.assertEqual(found, [UserPlan(True, quota)] * len(names))

    async def test_what_a_transaction_may_take_is_limited_and_nobody_elses_is(self) -> None:
        limits: list[str] = []
        event.listen(self.engine, "before_cursor_execute", lambda _connection, cursor, *_: limits.append(limit(cursor)))
        await self.book.ping()
        self.assertEqual(limits[-1], f"{STATEMENT_SECONDS}s")
        await self.book.stop()
        with psycopg.connect(self.engine.url.set(drivername="postgresql").render_as_string(False)) as other:
            self.assertEqual(other.execute("SHOW statement_timeout").fetchone(), ("0",))

    async def test_a_hanging_pooler_delays_no_lookup(self) -> None:
        await self.book.ping()
        process = bouncer(self.mode).process
        process.signal(SIGSTOP)
        self.addCleanup(process.signal, SIGCONT)
        book = book_on(self.engine, self.threads, 0.5, size=self.adapter.pool_size)
        self.addCleanup(book.stop)
        with self.assertRaisesRegex(BookUnavailable, "did not answer"):
            await book.user_plan("alice")
        process.signal(SIGCONT)
        found = await once_available(partial(book.user_plan, "alice"))
        self.assertEqual(found, UserPlan(False, None))


def limit(cursor: psycopg.Cursor[tuple[str]]) -> str:
    """Return the statement timeout in the transaction of a cursor."""
    found = cursor.connection.execute("SHOW statement_timeout").fetchone()
    assert found is not None
    return str(found[0])


class SessionTests(PgBouncerTests):
    __test__ = True
    mode = "session"


class TransactionTests(PgBouncerTests):
    __test__ = True
    mode = "transaction"
