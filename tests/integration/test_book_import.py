"""Importing permissions and quotas into the book, on each kind of database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert

from chapps_tw.database.models import domains, email_user, users
from chapps_tw.interfaces.book import AddLinks, StaleKeys
from chapps_tw.interfaces.writable_book import MAX_BAD_LINES, MAX_LINES, BadLine, BadLines, Imported
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite


class ImportTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def imported(self, *lines: str, create: bool = False) -> tuple[Imported, StaleKeys]:
        """Import lines; return the outcome, and the keys that it made stale."""
        self.cache.take()
        done = await self.book.import_lines("\n".join(lines).encode(), create, "billing")
        return done, self.cache.take()

    async def bad(self, *lines: str, create: bool = False) -> list[tuple[int, str]]:
        with self.assertRaises(BadLines) as raised:
            await self.imported(*lines, create=create)
        return [tuple(each) for each in raised.exception.lines]

    async def links(self, user: int) -> dict[str, list[str]]:
        found = {}
        for other in ("domains", "emails", "quotas"):
            found[other] = [each.name for each in (await self.book.links("users", [user], other))[user]]
        return found

    async def test_all_lines_are_applied(self) -> None:
        ann, bob = await self.user("ann"), await self.user("bob")
        await self.domain("example.com")
        email = await self.email("sales@example.org")
        await self.book.change(AddLinks("users", ann, "emails", [email]))
        for name in ("small", "large"):
            await self.quota(name, 10)
        done, stale = await self.imported(
            "# a comment", "", "allow:ann:example.com", " deny:ann:sales@example.org \r", "quota:ann:small",
            "allow:bob:SALES@Example.ORG", "quota:bob:large",
        )  # fmt: skip
        self.assertEqual(done, Imported(lines=5, allowed=2, denied=1, quotas=2, created=0))
        self.assertEqual(await self.links(ann), {"domains": ["example.com"], "emails": [], "quotas": ["small"]})
        wanted = {"domains": [], "emails": ["sales@example.org"], "quotas": ["large"]}
        self.assertEqual(await self.links(bob), wanted)
        pairs = {("ann", "example.com"), ("ann", "sales@example.org"), ("bob", "sales@example.org")}
        self.assertEqual(stale, StaleKeys(users=frozenset({"ann", "bob"}), senders=frozenset(pairs)))

    async def test_the_same_again_changes_nothing(self) -> None:
        await self.user("ann")
        await self.domain("example.com")
        await self.quota("small", 10)
        lines = "allow:ann:example.com", "quota:ann:small"
        await self.imported(*lines)
        self.assertEqual(await self.imported(*lines), (Imported(2, 0, 0, 0, 0), StaleKeys()))

    async def test_the_last_line_about_the_same_counts(self) -> None:
        ann = await self.user("ann")
        await self.domain("example.com")
        for name in ("small", "large"):
            await self.quota(name, 10)
        lines = "allow:ann:example.com", "quota:ann:small", "quota:ann:large", "deny:ann:example.com"
        done, _ = await self.imported(*lines)
        self.assertEqual((done.allowed, done.denied, done.quotas), (0, 0, 1))
        self.assertEqual(await self.links(ann), {"domains": [], "emails": [], "quotas": ["large"]})

    async def test_domains_and_addresses_are_created_only_if_wanted(self) -> None:
        ann = await self.user("ann")
        lines = "allow:ann:New.example", "allow:ann:new@example.org", "deny:ann:new.example"
        told = [(1, "there is no domain named new.example"), (2, "there is no email named new@example.org")]
        self.assertEqual(await self.bad(*lines), [*told, (3, "there is no domain named new.example")])
        done, stale = await self.imported(*lines, create=True)
        self.assertEqual(done, Imported(lines=3, allowed=1, denied=0, quotas=0, created=2))
        self.assertEqual(await self.links(ann), {"domains": [], "emails": ["new@example.org"], "quotas": []})
        self.assertEqual((stale.flags, stale.domains), (frozenset({"new.example"}), frozenset({"new.example"})))

    async def test_every_bad_line_is_reported_and_nothing_is_stored(self) -> None:
        ann = await self.user("ann")
        await self.domain("example.com")
        form = "must be allow:USER:DOMAIN, allow:USER:ADDRESS, deny:... or quota:USER:QUOTA"
        lines = ["allow:ann:example.com", "permit:ann:example.com", "allow:ann", "allow:ann:a:b"]
        self.assertEqual(await self.bad(*lines), [(number, form) for number in (2, 3, 4)])
        unknown = await self.bad("allow:ann:example.com", "allow:eve:example.com", "quota:ann:none", create=True)
        self.assertEqual(unknown, [(2, "there is no user named eve"), (3, "there is no quota named none")])
        odd = "not a domain", "b\u00fccher..example", "@", "\0", "x" * 300, ""
        told = await self.bad(*(f"allow:ann:{name}" for name in odd), f"allow:{'u' * 400}:example.com", create=True)
        kinds = ["email" if "@" in name else "domain" for name in odd]
        sentences = [f"there is no {kind} named {name[:100]}" for kind, name in zip(kinds, odd, strict=True)]
        self.assertEqual(told, list(enumerate([*sentences, f"there is no user named {'u' * 100}"], 1)))
        with self.assertRaises(BadLines):
            await self.book.import_lines(b"allow:ann:example.com\nallow:\xff:example.com", False)
        self.assertEqual(await self.links(ann), {"domains": [], "emails": [], "quotas": []})

    async def test_many_bad_lines_are_counted(self) -> None:
        with self.assertRaises(BadLines) as raised:
            await self.imported(*["nonsense"] * (MAX_BAD_LINES + 5))
        self.assertEqual((len(raised.exception.lines), raised.exception.total), (MAX_BAD_LINES, MAX_BAD_LINES + 5))
        with self.assertRaises(BadLines) as raised:
            await self.book.import_lines(b"#\n" * (MAX_LINES + 1), False)
        told = f"is beyond the {MAX_LINES} lines that a file may have"
        self.assertEqual(raised.exception.lines, [BadLine(MAX_LINES + 1, told)])

    async def test_names_in_other_spellings_are_found(self) -> None:
        async def stored(table: Any, name: str) -> None:
            with self.engine.begin() as connection:
                connection.execute(insert(table).values(name=name))

        await stored(users, "Carl@Example.com")
        await stored(domains, "B\u00fccher.example")
        done, stale = await self.imported("allow:CARL@example.com:xn--bcher-kva.example", create=True)
        self.assertEqual((done.allowed, done.created), (1, 0))
        self.assertEqual(stale.senders, {("carl@example.com", "xn--bcher-kva.example")})

    async def test_an_import_is_one_record_of_the_audit_trail(self) -> None:
        for number in range(30):
            await self.user(f"user{number:02}")
        await self.imported(*(f"allow:user{number:02}:a.example" for number in range(30)), create=True)
        [record] = await self.book.audit(kind="import")
        self.assertEqual((record.author, record.action, record.before), ("billing", "import", None))
        assert record.after is not None
        self.assertEqual((record.after["allowed"], record.after["users_total"]), (30, 30))

    async def test_many_lines_are_imported(self) -> None:
        with self.engine.begin() as connection:
            rows = [{"name": f"user{number}"} for number in range(2000)]
            connection.execute(insert(users), rows)
        lines = [f"allow:user{number}:d{number}.example" for number in range(2000)]
        lines += [f"allow:user{number}:box@d{number}.example" for number in range(2000)]
        done, stale = await self.imported(*lines, create=True)
        self.assertEqual(done, Imported(4000, allowed=4000, denied=0, quotas=0, created=4000))
        self.assertEqual(len(stale.senders), 4000)
        done, _ = await self.imported(*(line.replace("allow", "deny") for line in lines))
        self.assertEqual(done.denied, 4000)
        with self.engine.connect() as connection:
            self.assertEqual(connection.execute(email_user.select()).all(), [])


class ImportOnSqlite(OnSqlite, ImportTests):
    __test__ = True


class ImportOnPostgreSQL(OnPostgreSQL, ImportTests):
    __test__ = True


class ImportOnMariaDB(OnMariaDB, ImportTests):
    __test__ = True
