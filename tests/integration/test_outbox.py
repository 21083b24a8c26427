"""Changes add their stale keys to the outbox, on each kind of database."""

from __future__ import annotations

from functools import partial

from sqlalchemy import event, func, insert, select
from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.database import stale_keys
from chapps_tw.database.changes import apply
from chapps_tw.database.examples import add_examples
from chapps_tw.database.models import invalidation_outbox, users
from chapps_tw.database.outbox import PAGE, OutboxRow, append
from chapps_tw.database.stale_keys import union
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import (
    AddLinks,
    BookConflict,
    BookUnavailable,
    Create,
    Delete,
    RemoveLinks,
    StaleKeys,
    Update,
)
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements, engine_for

# The size of TEXT on MariaDB.
TEXT_BYTES = 65_535

# Users: enough for several pages.
MANY = 20_000


class OutboxTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def all(self) -> list[OutboxRow]:
        found: list[OutboxRow] = []
        while page := await self.book.read_outbox(found[-1].id if found else ""):
            self.assertLessEqual(len(page), PAGE)
            found += page
        return found

    def rows(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(invalidation_outbox)) or 0

    async def test_each_change_adds_its_stale_keys(self) -> None:
        domain, user = await self.domain("bücher.example"), await self.user("alice")
        for edit in (
            Update("domains", domain, {"greylist": True}),
            AddLinks("domains", domain, "users", [user]),
            Update("users", user, {"name": "bob"}),
            RemoveLinks("users", user, "domains", [domain]),
            Create("users", {"name": "carol"}, {"domains": [domain]}),
            Delete("users", [user]),
        ):
            before = await self.all()
            _, stale = await self.changed(edit)
            [added] = [row for row in await self.all() if row not in before]
            self.assertEqual(added.stale, stale)

    async def test_rows_are_read_by_id_and_deleted_once_or_twice(self) -> None:
        for name in ("alice", "bob", "carol"):
            await self.user(name)
        rows = await self.all()
        self.assertEqual([row.id for row in rows], sorted(row.id for row in rows))
        self.assertEqual({name for row in rows for name in row.stale.users}, {"alice", "bob", "carol"})
        for _ in range(2):
            await self.book.remove_from_outbox([rows[0].id])
            self.assertEqual(await self.all(), rows[1:])
        await self.book.remove_from_outbox([row.id for row in rows])
        await self.book.remove_from_outbox([])
        self.assertEqual(self.rows(), 0)

    async def test_a_change_that_makes_nothing_stale_adds_nothing(self) -> None:
        email = await self.email("x@example.com")
        _, stale = await self.changed(Update("emails", email, {"name": "y@example.com"}))
        self.assertEqual((stale, self.rows()), (StaleKeys(), 0))

    async def test_every_kind_of_key_is_returned_unchanged(self) -> None:
        stale = StaleKeys(
            users=frozenset({"alice"}),
            senders=frozenset({("alice", "example.com")}),
            flags=frozenset({"a.example"}),
            quotas=frozenset({1, 2**31 - 1}),
            quota_names=frozenset({"basic", "7"}),
            domains=frozenset({"b.example"}),
            sender_domains=frozenset({"c.example"}),
            exemptions=True,
        )
        with self.engine.begin() as connection:
            append(connection, stale)
            append(connection, StaleKeys(exemptions=True))
        found = [row.stale for row in await self.all()]
        self.assertCountEqual(found, [stale, StaleKeys(exemptions=True)])

    async def test_an_ordinary_change_costs_one_statement_more(self) -> None:
        seen = Statements(self.engine, "")
        await self.user("alice")
        ours = [statement for statement in seen.seen if invalidation_outbox.name in statement]
        self.assertEqual([statement.split()[0] for statement in ours], ["INSERT"])

    async def test_a_change_that_fails_leaves_nothing_behind(self) -> None:
        await self.user("alice")
        before = self.rows()
        with self.assertRaises(BookConflict):
            await self.changed(Create("users", {"name": "alice"}))
        with self.assertRaises(KeyError):
            await self.changed(Create("users", {"name": "bob"}, {"domains": [999]}))
        self.assertEqual(self.rows(), before)

    async def test_a_change_that_is_rolled_back_leaves_no_rows(self) -> None:
        permit = Permit()
        self.assertTrue(permit.give_up())
        seen = Statements(self.engine, "INSERT INTO invalidation_outbox")
        work = partial(apply, edit=Create("users", {"name": "late"}), author="", now=0.0)
        with self.assertRaisesRegex(BookUnavailable, "was rolled back"):
            transact(self.engine, work, permit, "taken")
        self.assertEqual(len(seen.seen), 1)
        self.assertEqual(self.rows(), 0)

    async def test_a_process_that_ends_after_the_commit_leaves_the_rows(self) -> None:
        work = partial(apply, edit=Create("users", {"name": "alice"}), author="", now=0.0)
        stored = transact(self.engine, work, Permit(), "taken")
        self.engine.dispose()
        self.assertEqual(await self.all(), [OutboxRow(id, stored.stale) for id in stored.rows])

    async def test_unusual_names_are_returned_unchanged(self) -> None:
        for name in ("a\x01\x1f\x7f", 'it\'s "quoted", [\\]', "\U0001f4e7" * 128, "名前 %s :name", "null"):
            await self.changed(Create("users", {"name": name}))
            [row] = await self.all()
            self.assertEqual(row.stale.users, {name})
            await self.book.remove_from_outbox([row.id])

    async def test_a_change_that_makes_many_keys_stale_adds_rows_of_bounded_size(self) -> None:
        # Raised, to list more than usual.
        self.patch(stale_keys, "MAX_LISTED", MANY)
        self.add_users()
        seen = Statements(self.engine, "INSERT INTO invalidation_outbox")
        _, stale = await self.changed(Delete("users", range(1, MANY + 1)))
        self.assertEqual(len(stale.users), MANY)
        self.assertLess(len(seen.seen), 10)
        with self.engine.connect() as connection:
            sizes = [len(row.encode()) for row in connection.scalars(select(invalidation_outbox.c.stale_keys))]
        self.assertGreater(len(sizes), PAGE)
        self.assertLess(max(sizes), TEXT_BYTES)
        found = await self.all()
        self.assertEqual(len(found), len(sizes))
        self.assertEqual(union(*(row.stale for row in found)).users, stale.users)
        await self.book.remove_from_outbox([row.id for row in found])
        self.assertEqual(self.rows(), 0)

    def add_users(self) -> None:
        domain = "\U0001f4e7" * 10
        names = [f"{number}@{domain}.example" for number in range(1, MANY + 1)]
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": name} for id, name in enumerate(names, 1)])

    async def test_nodes_that_change_and_delete_rows_at_the_same_time_do_not_disturb_each_other(self) -> None:
        async def go(number: int) -> None:
            for step in range(5):
                await self.book.change(Create("users", {"name": f"user{number}.{step}"}))
                await self.book.remove_from_outbox([row.id for row in await self.all()])

        await gatherResults([Deferred.fromCoroutine(go(number)) for number in range(8)])
        self.assertEqual(self.rows(), 0)
        self.assertEqual(len(await self.book.entries("users")), 40)

    async def test_examples_reach_nodes_that_run_already(self) -> None:
        add_examples(self.engine, 0.0)
        stale = union(*(row.stale for row in await self.all()))
        self.assertIn("alice@example.com", stale.users)
        self.assertIn(("bob@example.org", "example.org"), stale.senders)
        self.assertEqual(stale.flags, {"example.com", "example.org"})


class OutboxOnSqlite(OnSqlite, OutboxTests):
    __test__ = True

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        await self.user("alice")
        ids = [row.id for row in await self.all()]
        self.engine.dispose()
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 20"))
        with engine_for(self.adapter).connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            for _ in range(5):
                with self.assertRaisesRegex(BookUnavailable, "Another client is changing the database"):
                    await self.book.remove_from_outbox(ids)
        self.assertEqual(self.book.problem, "")
        await self.book.remove_from_outbox(ids)


class SchemaBehindTests(OutboxTests):
    """Servers that were unavailable at the start, and turn out to have an older schema."""

    async def test_a_missing_table_is_reported_and_lookups_work(self) -> None:
        with self.engine.begin() as connection:
            invalidation_outbox.drop(connection)
        self.addCleanup(invalidation_outbox.create, self.engine)
        for _ in range(5):
            with self.assertRaisesRegex(
                BookUnavailable, "invalidation_outbox cannot be used: .*: run 'chapps-cli admin db-setup'"
            ):
                await self.book.read_outbox()
            with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
                await self.changed(Create("users", {"name": "alice"}))
        self.assertEqual(self.book.problem, "")
        self.assertFalse((await self.book.user_plan("alice")).known)


class OutboxOnPostgreSQL(OnPostgreSQL, SchemaBehindTests):
    __test__ = True


class OutboxOnMariaDB(OnMariaDB, SchemaBehindTests):
    __test__ = True
