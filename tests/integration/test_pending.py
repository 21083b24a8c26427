"""What changes have made wrong is written down with them, on each kind of database."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import event, func, insert, select
from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.database import changes
from chapps_tw.database import touched as touched_copies
from chapps_tw.database.examples import add_examples
from chapps_tw.database.models import pending_drops, quota_user, users
from chapps_tw.database.pending import PAGE
from chapps_tw.database.touched import union
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import BookConflict, BookUnavailable, Touched
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements, engine_for

# What TEXT holds on MariaDB.
TEXT_BYTES = 65_535

# Users of one quota: many enough for several pages.
MANY = 20_000


class PendingTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def all(self) -> list[Touched]:
        found: list[Touched] = []
        while page := await self.book.pending(found[-1].pending[-1] if found else ""):
            self.assertLessEqual(len(page), PAGE)
            found += page
        return found

    def rows(self) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(pending_drops)) or 0

    async def test_each_change_writes_down_what_it_touched(self) -> None:
        made = [await self.book.create("domains", {"name": "bücher.example", "greylist": True}, {})]
        domain = made[0][0].id
        made.append(await self.book.create("users", {"name": "alice"}, {"domains": [domain]}))
        user = made[1][0].id
        made.append(await self.book.update("users", user, {"name": "bob"}, {}))
        others: list[tuple[Any, Touched]] = [
            await self.book.unlink("users", user, "domains", [domain]),
            await self.book.link("domains", domain, "users", [user]),
            await self.book.delete("users", [user]),
        ]
        touched = [each for _, each in (*made, *others)]
        self.assertEqual([len(each.pending) for each in touched], [1] * 6)
        self.assertEqual(await self.all(), sorted(touched, key=lambda each: each.pending))

    async def test_what_was_dropped_is_forgotten_once_or_twice(self) -> None:
        _, alice = await self.book.create("users", {"name": "alice"}, {})
        _, bob = await self.book.create("users", {"name": "bob"}, {})
        for _ in range(2):
            await self.book.dropped(alice.pending)
            self.assertEqual(await self.all(), [bob])
        await self.book.dropped([*alice.pending, *bob.pending])
        await self.book.dropped([])
        self.assertEqual(self.rows(), 0)

    async def test_a_change_that_touches_nothing_writes_nothing(self) -> None:
        quota = await self.quota("basic", 100)
        _, touched = await self.book.update("quotas", quota, {"name": "other", "quota": 200}, {})
        self.assertEqual((touched, self.rows()), (Touched(), 0))

    async def test_an_ordinary_change_costs_one_statement_more(self) -> None:
        seen = Statements(self.engine, "")
        await self.user("alice")
        ours = [statement for statement in seen.seen if pending_drops.name in statement]
        self.assertEqual([statement.split()[0] for statement in ours], ["INSERT"])

    async def test_a_change_that_fails_leaves_nothing_behind(self) -> None:
        await self.user("alice")
        before = self.rows()
        with self.assertRaises(BookConflict):
            await self.book.create("users", {"name": "alice"}, {})
        with self.assertRaises(KeyError):
            await self.book.create("users", {"name": "bob"}, {"domains": [999]})
        self.assertEqual(self.rows(), before)

    async def test_a_change_that_is_taken_back_takes_its_rows_with_it(self) -> None:
        permit = Permit()
        self.assertTrue(permit.give_up())
        seen = Statements(self.engine, "INSERT INTO pending_drops")
        work = partial(changes.create, kind="users", fields={"name": "late"}, links={})
        with self.assertRaisesRegex(BookUnavailable, "was taken back"):
            transact(self.engine, work, permit, str)
        self.assertEqual(len(seen.seen), 1)
        self.assertEqual(self.rows(), 0)

    async def test_a_process_that_ends_after_the_commit_leaves_the_rows(self) -> None:
        work = partial(changes.create, kind="users", fields={"name": "alice"}, links={})
        _, touched = transact(self.engine, work, Permit(), str)
        self.engine.dispose()
        self.assertEqual(await self.all(), [touched])

    async def test_odd_names_come_back_as_they_are(self) -> None:
        for name in ("a\x01\x1f\x7f", 'it\'s "quoted", [\\]', "\U0001f4e7" * 128, "名前 %s :name", "null"):
            await self.book.create("users", {"name": name}, {})
            [touched] = await self.all()
            self.assertEqual(touched.limits, {name})
            await self.book.dropped(touched.pending)

    async def test_a_change_that_touches_many_is_written_in_pieces(self) -> None:
        # More than are named otherwise.
        self.patch(touched_copies, "MOST", MANY)
        quota = await self.quota("basic", 100)
        self.add_users(quota)
        seen = Statements(self.engine, "INSERT INTO pending_drops")
        _, touched = await self.book.update("quotas", quota, {"quota": 200}, {})
        self.assertEqual(len(touched.limits), MANY)
        self.assertLess(len(seen.seen), 10)
        with self.engine.connect() as connection:
            sizes = [len(row.encode()) for row in connection.scalars(select(pending_drops.c.copies))]
        self.assertEqual(len(sizes), len(touched.pending))
        self.assertGreater(len(sizes), PAGE)
        self.assertLess(max(sizes), TEXT_BYTES)
        found = await self.all()
        self.assertEqual(union(*found).limits, touched.limits)
        self.assertCountEqual([key for each in found for key in each.pending], touched.pending)
        await self.book.dropped(touched.pending)
        self.assertEqual(self.rows(), 0)

    def add_users(self, quota: int) -> None:
        domain = "\U0001f4e7" * 10
        names = [f"{number}@{domain}.example" for number in range(1, MANY + 1)]
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": name} for id, name in enumerate(names, 1)])
            connection.execute(insert(quota_user), [{"user_id": id, "quota_id": quota} for id in range(1, MANY + 1)])

    async def test_many_who_change_and_forget_at_the_same_time_do_not_disturb_each_other(self) -> None:
        async def go(number: int) -> None:
            for step in range(5):
                _, touched = await self.book.create("users", {"name": f"user{number}.{step}"}, {})
                await self.book.dropped(touched.pending)

        await gatherResults([Deferred.fromCoroutine(go(number)) for number in range(8)])
        self.assertEqual(self.rows(), 0)
        self.assertEqual(len(await self.book.entries("users")), 40)

    async def test_examples_reach_nodes_that_run_already(self) -> None:
        add_examples(self.engine)
        touched = union(*await self.all())
        self.assertIn("alice@example.com", touched.limits)
        self.assertIn(("bob@example.org", "example.org"), touched.senders)
        self.assertEqual(touched.flags, {"example.com", "example.org"})


class PendingOnSqlite(OnSqlite, PendingTests):
    __test__ = True

    async def test_another_writer_that_does_not_finish_is_no_failure_of_the_database(self) -> None:
        _, touched = await self.book.create("users", {"name": "alice"}, {})
        self.engine.dispose()
        event.listen(self.engine, "connect", lambda connection, _: connection.execute("PRAGMA busy_timeout = 20"))
        with engine_for(self.adapter).connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            for _ in range(5):
                with self.assertRaisesRegex(BookUnavailable, "Somebody else is changing the database"):
                    await self.book.dropped(touched.pending)
        self.assertEqual(self.book.problem, "")
        await self.book.dropped(touched.pending)


class SchemaBehindTests(PendingTests):
    """On servers: the service did not reach one at its start, and it comes with older tables."""

    async def test_a_table_that_is_not_there_is_told_and_does_not_stop_policies(self) -> None:
        with self.engine.begin() as connection:
            pending_drops.drop(connection)
        self.addCleanup(pending_drops.create, self.engine)
        for _ in range(5):
            with self.assertRaisesRegex(
                BookUnavailable, "pending_drops cannot be used: .*: run 'chapps-cli admin db-setup'"
            ):
                await self.book.pending()
            with self.assertRaisesRegex(BookUnavailable, "run 'chapps-cli admin db-setup'"):
                await self.book.create("users", {"name": "alice"}, {})
        self.assertEqual(self.book.problem, "")
        self.assertFalse((await self.book.quota_of("alice")).known)


class PendingOnPostgreSQL(OnPostgreSQL, SchemaBehindTests):
    __test__ = True


class PendingOnMariaDB(OnMariaDB, SchemaBehindTests):
    __test__ = True
