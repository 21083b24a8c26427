"""The audit trail, on each kind of database."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import func, insert, select, update
from twisted.internet.task import Clock

from chapps_tw.application.database import PRUNE_SECONDS, Book
from chapps_tw.database.audit import MAX_BYTES, MAX_RECORDS, MAX_SINGLE, NAMES
from chapps_tw.database.models import audit, domain_user, users
from chapps_tw.interfaces.book import AddLinks, BookConflict, Create, Delete, Edit, Fields, RemoveLinks, Update
from chapps_tw.interfaces.writable_book import MAX_TIME
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements


class AuditTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def recorded(self, edit: Edit) -> list[tuple[Any, ...]]:
        """Make a change; return what is recorded of it: action, kind, entry, name, before, after."""
        last = max((record.id for record in await self.book.audit(limit=1)), default=0)
        await self.book.change(edit, "ops")
        return [record[3:] for record in await self.book.audit() if record.id > last]

    async def test_a_new_entry_is_recorded_with_its_links(self) -> None:
        quota, domain = await self.quota("basic", 100), await self.domain("example.com")
        before = time.time()
        links = {"quotas": [quota], "domains": [domain]}
        alice = (await self.book.change(Create("users", {"name": "alice"}, links), "ops")).entry
        assert alice is not None
        [record] = await self.book.audit(limit=1)
        after = {"name": "alice", "quotas": ["basic"], "domains": ["example.com"]}
        self.assertEqual(record[2:], ("ops", "create", "users", alice.id, "alice", None, after))
        self.assertTrue(before <= record.at <= time.time())

    async def test_an_update_is_recorded_with_what_was_there_before(self) -> None:
        domain = await self.domain("example.com", greylist=True)
        before = {"name": "example.com", "greylist": True, "check_spf": False, "each_quota": None, "pool_quota": None}
        edit = Update("domains", domain, {"greylist": False, "name": "example.org"})
        after = before | {"name": "example.org", "greylist": False}
        self.assertEqual(await self.recorded(edit), [("update", "domains", domain, "example.org", before, after)])
        self.assertEqual(await self.recorded(Update("domains", domain, {"greylist": False})), [])

    async def test_links_are_recorded_by_name(self) -> None:
        domain, alice = await self.domain("example.com"), await self.user("alice")
        small, big = await self.quota("small", 1), await self.quota("big", 2)
        for edit, before, after in (
            (AddLinks("users", alice, "domains", [domain]), None, {"domains": ["example.com"]}),
            (AddLinks("users", alice, "quotas", [small]), {"quotas": []}, {"quotas": ["small"]}),
            (AddLinks("users", alice, "quotas", [big]), {"quotas": ["small"]}, {"quotas": ["big"]}),
        ):
            self.assertEqual(await self.recorded(edit), [("link", "users", alice, "alice", before, after)])
        removal = RemoveLinks("domains", domain, "users", [alice, 999])
        record = ("unlink", "domains", domain, "example.com", {"users": ["alice"]}, None)
        self.assertEqual(await self.recorded(removal), [record])
        self.assertEqual(await self.recorded(removal), [])
        states = {"name": "alice", "quotas": ["big"]}, {"name": "alice", "quotas": []}
        update = Update("users", alice, {}, {"quotas": []})
        self.assertEqual(await self.recorded(update), [("update", "users", alice, "alice", *states)])

    async def test_a_deletion_is_recorded_with_all_that_was_there(self) -> None:
        quota, domain = await self.quota("basic", 100), await self.domain("example.com")
        await self.create("limits", {"quota": quota, "name": "h", "unit": "bytes", "amount": 5, "window": 60})
        alice = await self.user("alice", quotas=[quota], domains=[domain])
        self.assertEqual(
            await self.recorded(Delete("quotas", [quota, 999])),
            [
                (
                    "delete", "quotas", quota, "basic",
                    {
                        "name": "basic", "quota": 100, "users": ["alice"],
                        "limits": [{"name": "h", "unit": "bytes", "amount": 5, "window": 60, "action": "refuse"}],
                    },
                    None,
                )
            ],
        )  # fmt: skip
        before = {"name": "alice", "domains": ["example.com"], "emails": [], "quotas": []}
        self.assertEqual(
            await self.recorded(Delete("users", [alice])), [("delete", "users", alice, "alice", before, None)]
        )
        self.assertEqual(await self.recorded(Delete("users", [alice])), [])

    async def test_a_deletion_of_many_is_one_record_with_their_number(self) -> None:
        self.add_users(MAX_SINGLE + 1)
        seen = Statements(self.engine, "INSERT INTO audit")
        [record] = await self.recorded(Delete("users", range(1, MAX_SINGLE + 2)))
        self.assertEqual(record[:4], ("delete", "users", None, ""))
        self.assertEqual((len(record[4]["users"]), record[4]["users_total"]), (NAMES, MAX_SINGLE + 1))
        self.assertEqual(len(seen.seen), 1)

    async def test_many_links_are_recorded_by_their_number(self) -> None:
        domain = await self.domain("example.com")
        self.add_users(100)
        [record] = await self.recorded(AddLinks("domains", domain, "users", range(1, 100)))
        self.assertEqual((len(record[5]["users"]), record[5]["users_total"]), (NAMES, 99))
        [record] = await self.recorded(Delete("domains", [domain]))
        self.assertEqual((len(record[4]["users"]), record[4]["users_total"]), (NAMES, 99))

    def add_users(self, count: int) -> None:
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": f"user{id:04}"} for id in range(1, count + 1)])

    async def test_rules_are_recorded_under_the_name_that_they_are_about(self) -> None:
        quota, alice = await self.quota("basic", 100), await self.user("alice")
        given: tuple[tuple[str, str, Fields], ...] = (
            ("limits", "basic", {"quota": quota, "name": "h", "unit": "bytes", "amount": 5, "window": 6}),
            ("overrides", "alice", {"user": alice, "kind": "unlimited", "until": MAX_TIME}),
            ("exemptions", "192.0.2.1", {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": MAX_TIME}),
        )
        for kind, name, new in given:
            entry = (await self.book.change(Create(kind, new))).entry
            assert entry is not None
            [created] = await self.book.audit(kind=kind)
            fields = entry._asdict()
            del fields["id"]
            self.assertEqual(created[3:], ("create", kind, entry.id, name, None, fields))
            [deleted] = await self.recorded(Delete(kind, [entry.id]))
            self.assertEqual(deleted, ("delete", kind, entry.id, name, fields, None))

    async def test_a_change_that_fails_is_not_recorded(self) -> None:
        await self.user("alice")
        before = await self.book.audit()
        with self.assertRaises(BookConflict):
            await self.book.change(Create("users", {"name": "alice"}))
        self.assertEqual(await self.book.audit(), before)

    async def test_a_change_of_the_live_state_is_added(self) -> None:
        await self.book.add_to_audit("ops", "reset", "usage", "alice", {"used": 5})
        [record] = await self.book.audit()
        self.assertEqual(record[2:], ("ops", "reset", "usage", None, "alice", {"used": 5}, None))
        await self.book.add_to_audit("x" * 100, "y" * 100, "z" * 100, "a\0\udcff" + "n" * 1000)
        self.assertEqual(len(await self.book.audit()), 2)
        with self.assertRaisesRegex(ValueError, f"at most {MAX_BYTES} bytes"):
            await self.book.add_to_audit("", "reset", "usage", "alice", None, {"x": "y" * MAX_BYTES})

    async def test_records_are_filtered_and_paged(self) -> None:
        for number, (author, kind, name) in enumerate(
            (("ops", "usage", "alice"), ("", "usage", "bob"), ("ops", "tally", "alice"), ("", "tally", "carol")), 1
        ):
            await self.book.add_to_audit(author, "reset", kind, name)
            with self.engine.begin() as connection:
                last = select(func.max(audit.c.id)).scalar_subquery()
                id = connection.scalar(select(last))
                connection.execute(update(audit).where(audit.c.id == id).values(at=float(number)))

        async def found(**wanted: Any) -> list[float]:
            return [record.at for record in await self.book.audit(**wanted)]

        self.assertEqual(await found(), [4, 3, 2, 1])
        self.assertEqual(await found(author="ops"), [3, 1])
        self.assertEqual(await found(author=""), [4, 2])
        self.assertEqual(await found(kind="usage"), [2, 1])
        self.assertEqual(await found(name="alice"), [3, 1])
        self.assertEqual(await found(name="ALICE"), [])
        self.assertEqual(await found(since=2, until=4), [3, 2])
        self.assertEqual(await found(author="ops", kind="tally", name="alice"), [3])
        self.assertEqual(await found(name="\udcff\0"), [])
        first = await self.book.audit(limit=2)
        self.assertEqual(await found(before=first[-1].id, limit=2), [2, 1])
        self.assertEqual(await found(before=10**20, limit=10**20), [4, 3, 2, 1])
        self.assertEqual(await found(limit=0), [])

    async def test_old_records_are_deleted_in_bounded_steps(self) -> None:
        row = {"author": "", "action": "x", "kind": "y", "name": ""}
        with self.engine.begin() as connection:
            connection.execute(insert(audit), [{**row, "at": 1.0} for _ in range(MAX_RECORDS + 5)])
            connection.execute(insert(audit), {**row, "at": time.time()})
        seen = Statements(self.engine, "DELETE FROM audit")
        await self.book.prune_audit(86400.0)
        self.assertEqual(len(seen.seen), 2)
        self.assertEqual(len(await self.book.audit()), 1)

    async def test_a_node_deletes_old_records_now_and_then(self) -> None:
        with self.engine.begin() as connection:
            row = {"author": "", "action": "x", "kind": "y", "name": ""}
            connection.execute(insert(audit), [{**row, "at": time.time() - age} for age in (90000.0, 80000.0)])
        clock = Clock()
        part = Book(self.book, clock, audit_days=1)
        part.start()
        self.addCleanup(part.stop)
        clock.advance(PRUNE_SECONDS - 1)
        self.assertEqual(len(await self.book.audit()), 2)
        clock.advance(1)
        while len(await self.book.audit()) > 1:
            pass

    async def test_links_of_what_is_deleted_cost_a_bounded_number_of_names(self) -> None:
        domain = await self.domain("example.com")
        self.add_users(1000)
        with self.engine.begin() as connection:
            connection.execute(insert(domain_user), [{"user_id": id, "domain_id": domain} for id in range(1, 1001)])
        [record] = await self.recorded(Update("domains", domain, {}, {"users": [1]}))
        self.assertEqual((len(record[4]["users"]), record[4]["users_total"]), (NAMES, 1000))
        self.assertEqual(record[5]["users"], ["user0001"])


class AuditOnSqlite(OnSqlite, AuditTests):
    __test__ = True


class AuditOnPostgreSQL(OnPostgreSQL, AuditTests):
    __test__ = True


class AuditOnMariaDB(OnMariaDB, AuditTests):
    __test__ = True
