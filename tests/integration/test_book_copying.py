"""Copying a book of CHAPPS 0.5 to another database, on each kind of database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select, text

from chapps_tw.database import schema
from chapps_tw.database.copying import Copied, Entry, OldBook, copy, read
from chapps_tw.database.models import invalidation_outbox
from chapps_tw.interfaces.book import AddLinks
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, engine_for

FLAGS = {"greylist": True, "check_spf": False}
NO_FLAGS = {"greylist": False, "check_spf": False}


def book() -> OldBook:
    """Return two users who share a domain; one has a quota and an address."""
    return OldBook(
        {
            "quotas": [Entry(3, "small", {"quota": 5})],
            "domains": [Entry(11, "Example.COM", FLAGS), Entry(12, "bücher.example", NO_FLAGS)],
            "emails": [Entry(21, "Sales@example.org", {})],
            "users": [Entry(31, "Ann", {}), Entry(32, "bob", {})],
        },
        {"quotas": [(31, 3)], "domains": [(31, 11), (32, 11), (32, 12)], "emails": [(31, 21)]},
    )


class CopyingTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    def copied(self, old: OldBook, fold_case: bool = True) -> Copied:
        return copy(old, self.engine, fold_case)

    async def links(self, user: int) -> dict[str, list[str]]:
        found = {}
        for other in ("domains", "emails", "quotas"):
            found[other] = sorted([each.name for each in (await self.book.links("users", [user], other))[user]])
        return found

    async def test_all_is_copied_with_names_in_normal_form_and_the_same_ids(self) -> None:
        done = self.copied(book())
        self.assertEqual(done.added, {"quotas": 1, "domains": 2, "emails": 1, "users": 2, "links": 5})
        self.assertEqual((set(done.known.values()), done.left_out), ({0}, []))
        self.assertEqual(
            await self.links(31), {"domains": ["example.com"], "emails": ["sales@example.org"], "quotas": ["small"]}
        )
        self.assertEqual(
            await self.links(32), {"domains": ["example.com", "xn--bcher-kva.example"], "emails": [], "quotas": []}
        )
        flags = await self.book.flags_of("example.com")
        self.assertEqual((flags.greylist, flags.check_spf), (True, False))

    async def test_the_same_again_adds_nothing(self) -> None:
        self.copied(book())
        done = self.copied(book())
        self.assertEqual(set(done.added.values()), {0})
        self.assertEqual(done.known, {"quotas": 1, "domains": 2, "emails": 1, "users": 2})

    async def test_entries_can_be_added_afterwards(self) -> None:
        self.copied(book())
        for name in ("dora", "eve"):
            self.assertGreater(await self.user(name), 32)
        self.assertGreater(await self.domain("other.example"), 12)

    async def test_an_id_that_is_taken_is_replaced(self) -> None:
        ids = [await self.user(f"own{number}") for number in range(2)]
        old = book()
        old.entries["users"] = [Entry(ids[0], "Ann", {}), Entry(ids[1], "bob", {})]
        old.links = {"quotas": [(ids[0], 3)], "domains": [(ids[1], 11)], "emails": []}
        self.copied(old)
        entries = await self.book.by_names("users", ["ann", "bob"])
        found = {name: each.id for name, each in entries.items()}
        self.assertEqual(len({*ids, found["ann"], found["bob"]}), 4)
        self.assertEqual((await self.links(found["ann"]))["quotas"], ["small"])
        self.assertEqual((await self.links(found["bob"]))["domains"], ["example.com"])
        self.assertEqual((await self.links(ids[0]))["quotas"], [])

    async def test_what_is_there_is_left_as_it_is(self) -> None:
        quota = await self.quota("small", 99)
        large = await self.quota("large", 1000)
        ann = await self.user("ann", quotas=[large])
        await self.domain("example.com", greylist=False, check_spf=True)
        await self.book.change(AddLinks("users", ann, "domains", [await self.domain("own.example")]))
        done = self.copied(book())
        self.assertEqual(done.known, {"quotas": 1, "domains": 1, "emails": 0, "users": 1})
        self.assertEqual(
            await self.links(ann),
            {"domains": ["example.com", "own.example"], "emails": ["sales@example.org"], "quotas": ["large"]},
        )
        self.assertTrue((await self.book.flags_of("example.com")).check_spf)
        self.assertEqual((await self.book.plan(quota)).quota, 99)  # type: ignore[union-attr]

    async def test_of_users_in_several_spellings_one_is_used_and_domains_are_joined(self) -> None:
        old = book()
        old.entries["users"] += [Entry(33, "ann", {}), Entry(34, "ANN", {})]
        old.entries["domains"] += [Entry(13, "example.com", NO_FLAGS), Entry(14, "own.example", NO_FLAGS)]
        old.links["domains"] = [(31, 12), (32, 11), (33, 13), (33, 14)]
        done = self.copied(old)
        self.assertEqual(
            done.left_out,
            [
                "users: 'Ann' (id 31) has the same name as 'ann'.",
                "users: 'ANN' (id 34) has the same name as 'ann'.",
            ],
        )
        wanted = {"domains": ["example.com", "own.example"], "emails": [], "quotas": []}
        self.assertEqual(await self.links(33), wanted)
        self.assertEqual((await self.links(32))["domains"], ["example.com"])
        self.assertFalse((await self.book.flags_of("example.com")).greylist)

    async def test_users_are_told_apart_by_case_without_fold_case(self) -> None:
        old = book()
        old.entries["users"].append(Entry(33, "ann", {}))
        self.assertEqual(self.copied(old, fold_case=False).left_out, [])
        self.assertEqual((await self.links(31))["quotas"], ["small"])
        self.assertEqual((await self.links(33))["quotas"], [])

    async def test_names_that_are_not_valid_are_left_out_with_their_links(self) -> None:
        old = book()
        old.entries["domains"].append(Entry(13, "no domain", NO_FLAGS))
        old.entries["emails"].append(Entry(22, "no address", {}))
        old.links["domains"].append((31, 13))
        done = self.copied(old)
        self.assertEqual(
            done.left_out,
            ["domains: 'no domain' (id 13) is not a valid name.", "emails: 'no address' (id 22) is not a valid name."],
        )
        self.assertEqual((await self.links(31))["domains"], ["example.com"])

    async def test_what_is_cached_about_it_is_invalidated(self) -> None:
        self.copied(book())
        with self.engine.connect() as connection:
            texts = " ".join(connection.scalars(select(invalidation_outbox.c.stale_keys)))
        for name in ("ann", "bob", "example.com", "sales@example.org"):
            self.assertIn(f'"{name}"', texts)

    async def test_many_are_copied(self) -> None:
        old = book()
        old.entries["users"] = [Entry(number, f"User{number}", {}) for number in range(1, 6002)]
        old.links = {"quotas": [(number, 3) for number in range(1, 6002)], "domains": [(9, 11)], "emails": []}
        self.assertEqual(self.copied(old).added["links"], 6002)
        self.assertEqual((await self.links(9)), {"domains": ["example.com"], "emails": [], "quotas": ["small"]})
        read_back = read(self.engine)
        self.assertEqual(len(read_back.entries["users"]), 6001)
        self.assertEqual(len(read_back.links["quotas"]), 6001)
        self.assertEqual(read_back.without_quota, [])
        self.assertEqual([each.name for each in read_back.flagged], ["example.com"])


class SqliteTests(OnSqlite, CopyingTests):
    __test__ = True


class PostgreSQLTests(OnPostgreSQL, CopyingTests):
    __test__ = True


class MariaDBTests(OnMariaDB, CopyingTests):
    __test__ = True


class ReadingTests(OnMariaDB, BookCase):
    """Reading databases that this version has not made."""

    def new(self, *statements: str) -> Any:
        engine = engine_for(self.new_database())
        self.addCleanup(engine.dispose)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        return engine

    def test_the_first_tables_have_no_flags(self) -> None:
        names = [
            f"CREATE TABLE {name} (id INT PRIMARY KEY, name VARCHAR(64))" for name in ("users", "domains", "emails")
        ]
        links = [f"CREATE TABLE {each}_user (user_id INT, {each}_id INT)" for each in ("domain", "email", "quota")]
        quotas = "CREATE TABLE quotas (id INT PRIMARY KEY, name VARCHAR(32), quota INT)"
        engine = self.new(*names, *links, quotas, "INSERT INTO domains VALUES (1, 'Example.com')")
        old = read(engine)
        self.assertEqual(old.entries["domains"], [Entry(1, "Example.com", NO_FLAGS)])
        self.assertEqual((old.flagged, old.remarks), ([], ["Names of domains normalized: 1."]))
        with engine.connect() as connection:
            self.assertEqual(connection.scalar(select(func.count()).select_from(text("domains"))), 1)

    def test_a_database_without_tables_is_refused(self) -> None:
        with self.assertRaisesRegex(schema.SchemaError, "There are no tables of CHAPPS"):
            read(self.new())
