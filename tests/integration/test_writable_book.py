"""Reading and changing the book, and what each change invalidates, on each kind of database."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import func, insert, select
from twisted.internet.defer import Deferred, gatherResults

from chapps_tw.database.models import domain_user, domains, email_user, emails, quota_user, users
from chapps_tw.interfaces.book import (
    AddLinks,
    BookConflict,
    Create,
    Delete,
    DomainPlan,
    Edit,
    Entry,
    RemoveLinks,
    StaleKeys,
    Update,
    UserPlan,
)
from chapps_tw.interfaces.writable_book import Sort
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements

NOTHING = StaleKeys()


def plans(*users: str) -> StaleKeys:
    return StaleKeys(users=frozenset(users))


def quotas(id: int, *names: str) -> StaleKeys:
    return StaleKeys(quotas=frozenset({id}), quota_names=frozenset(names))


def flags_and_plan(*domains: str) -> StaleKeys:
    return StaleKeys(flags=frozenset(domains), domains=frozenset(domains))


def senders(*pairs: tuple[str, str]) -> StaleKeys:
    return StaleKeys(senders=frozenset(pairs))


class WritableBookTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    # --- reading ---

    async def test_entries_are_listed_by_id_in_pages(self) -> None:
        ids = [await self.user(f"user{number}") for number in range(5)]
        self.assertEqual([entry.id for entry in await self.book.entries("users")], sorted(ids))
        page = await self.book.entries("users", skip=1, limit=2)
        self.assertEqual(page, [Entry(ids[1], "user1"), Entry(ids[2], "user2")])
        self.assertEqual(await self.book.entries("users", skip=10**30), [])
        self.assertEqual(len(await self.book.entries("users", limit=10**30)), 5)

    async def test_entries_are_sorted_by_id_or_by_name(self) -> None:
        [b, a, c] = [await self.user(name) for name in ("bob", "ann", "cy")]
        for sort, ids in (("id", [b, a, c]), ("-id", [c, a, b]), ("name", [a, b, c]), ("-name", [c, b, a])):
            found = await self.book.entries("users", sort=cast(Sort, sort))
            self.assertEqual([entry.id for entry in found], ids, sort)
        page = await self.book.entries("users", q="b", skip=0, limit=1, sort="-name")
        self.assertEqual([entry.id for entry in page], [b])

    async def test_every_kind_has_its_fields(self) -> None:
        domain = await self.domain("example.com", greylist=True)
        quota = await self.quota("basic", 100)
        self.assertEqual(await self.book.entries("domains"), [Entry(domain, "example.com", 0, True, False)])
        self.assertIs((await self.book.entries("domains"))[0].greylist, True)
        self.assertEqual(await self.book.entries("quotas"), [Entry(quota, "basic", 100)])

    async def test_searches_are_literal(self) -> None:
        names = ["100%", "a_b", "axb", "a/b", "a\\b", "it's", 'quo"te', "große küche"]
        for name in names:
            await self.user(name)
        for q, found in (
            ("%", ["100%"]),
            ("_", ["a_b"]),
            ("/", ["a/b"]),
            ("\\", ["a\\b"]),
            ("'", ["it's"]),
            ('"', ['quo"te']),
            ("a_b", ["a_b"]),
            ("A", ["a_b", "axb", "a/b", "a\\b"]),
            ("ße", ["große küche"]),
            ("%%", []),
            ("nothing", []),
            ("\udcff", []),
            ("a\0b", []),
            ("x" * 100_000, []),
        ):
            self.assertEqual([entry.name for entry in await self.book.entries("users", q=q)], found, q)

    async def test_domains_and_addresses_are_searched_in_either_form(self) -> None:
        names = ("xn--bcher-kva.example", "bücher.example", "other.example")
        with self.engine.begin() as connection:
            for id, name in enumerate(names, 1):
                connection.execute(insert(domains), {"id": id, "name": name, "greylist": False, "check_spf": False})
                connection.execute(insert(emails), {"id": id, "name": f"joe@{name}"})
        for q, found in (
            *(("bücher", {1, 2}), ("Bücher.ex", {1, 2}), ("XN--bcher-kva", {1, 2}), ("xn--bcher-kva.example", {1, 2})),
            *((".example", {1, 2, 3}), ("xn--b", {1}), ("büch", {2}), ("%", set()), ("bücher.other", set())),
        ):
            for kind in ("domains", "emails"):
                self.assertEqual({entry.id for entry in await self.book.entries(kind, q=q)}, found, (kind, q))
        self.assertEqual({entry.id for entry in await self.book.entries("emails", q="e@bücher")}, {1, 2})
        await self.user("xn--bcher-kva")
        self.assertEqual(await self.book.entries("users", q="bücher"), [])

    async def test_entries_by_their_ids(self) -> None:
        first, second = await self.user("alice"), await self.user("bob")
        found = await self.book.by_ids("users", [second, 10**30, first, second, -1, 2**31, 999])
        self.assertEqual(found, [Entry(first, "alice"), Entry(second, "bob")])
        self.assertEqual(await self.book.by_ids("users", []), [])

    async def test_entries_by_their_name(self) -> None:
        id = await self.user("alice")
        self.assertEqual(await self.book.by_name("users", "alice"), Entry(id, "alice"))
        self.assertEqual(await self.book.by_name("users", "ALICE"), Entry(id, "alice"))
        for other in ("älice", "alice ", "bob", "", "\udcff", "a\0", "x" * 1000):
            self.assertIsNone(await self.book.by_name("users", other), other)

    async def test_entries_by_many_names_are_those_that_policies_use(self) -> None:
        rows = [(1, "ALICE"), (2, "alice"), (3, "Bob"), (4, "BOB"), (5, "Me@bücher.example"), (6, "Carol")]
        with self.engine.begin() as connection:
            connection.execute(insert(users), [{"id": id, "name": name} for id, name in rows])
            connection.execute(insert(users), [{"id": id, "name": f"user{id}"} for id in range(100, 200)])
        many = [f"user{id}" for id in range(100, 210)]
        wanted = {"alice": 2, "bob": 3, "me@xn--bcher-kva.example": 5, "carol": 6}
        found = await self.book.by_names("users", [*wanted, *many, "nobody", "", "\udcff", "a\0", "x" * 1000])
        ids = {name: entry.id for name, entry in found.items()}
        self.assertEqual(ids, wanted | {f"user{id}": id for id in range(100, 200)})
        self.assertEqual(list(ids), [*wanted, *many[:100]])
        for name in wanted:
            self.assertEqual(await self.book.by_name("users", name), found[name])
        self.assertEqual(await self.book.by_names("domains", []), {})

    async def test_links_are_seen_from_both_ends(self) -> None:
        com, org = await self.domain("example.com"), await self.domain("example.org")
        quota = await self.quota("basic", 100)
        alice = await self.user("alice", domains=[org, com], quotas=[quota])
        bob = await self.user("bob", domains=[com])
        found = await self.book.links("users", [alice, bob, 999, 10**20], "domains")
        names = {id: [entry.name for entry in entries] for id, entries in found.items()}
        self.assertEqual(names, {alice: ["example.com", "example.org"], bob: ["example.com"], 999: [], 10**20: []})
        self.assertEqual(
            await self.book.links("domains", [com], "users"), {com: [Entry(alice, "alice"), Entry(bob, "bob")]}
        )
        self.assertEqual((await self.book.links("users", [alice], "quotas"))[alice], [Entry(quota, "basic", 100)])
        by_quota = await self.book.links("quotas", [quota], "users")
        self.assertEqual(by_quota, {quota: [Entry(alice, "alice")]})
        for limit, counts in ((0, [0, 0]), (1, [1, 0]), (2, [2, 0]), (3, [2, 1]), (9, [2, 1])):
            found = await self.book.links("users", [alice, bob], "domains", limit)
            self.assertEqual([len(found[id]) for id in (alice, bob)], counts)
        linked = await self.book.entries("users", q="o", linked=("domains", com))
        self.assertEqual(linked, [Entry(bob, "bob")])
        self.assertEqual([entry.id for entry in await self.book.entries("domains", linked=("users", bob))], [com])
        self.assertEqual(await self.book.entries("users", linked=("domains", 10**20)), [])

    # --- creating ---

    async def test_a_new_user_invalidates_the_plan_and_each_sender(self) -> None:
        domain, email = await self.domain("Bücher.Example"), await self.email("Sales@Example.com")
        quota = await self.quota("basic", 100)
        links = {"domains": [domain, domain], "emails": [email], "quotas": [quota]}
        entry, stale = await self.changed(Create("users", {"name": "alice"}, links))
        self.assertEqual(entry, Entry(entry.id, "alice"))
        expected = {("alice", "xn--bcher-kva.example"), ("alice", "sales@example.com")}
        self.assertEqual(stale, StaleKeys(frozenset({"alice"}), frozenset(expected)))

    async def test_new_domains_emails_and_quotas(self) -> None:
        alice = await self.user("alice")
        _, stale = await self.changed(Create("domains", {"name": "example.com", "greylist": True}, {"users": [alice]}))
        self.assertEqual(stale, flags_and_plan("example.com")._replace(senders=frozenset({("alice", "example.com")})))
        _, stale = await self.changed(Create("emails", {"name": "a@example.com"}, {"users": [alice]}))
        self.assertEqual(stale, senders(("alice", "a@example.com")))
        quota, stale = await self.changed(Create("quotas", {"name": "q", "quota": 0}))
        self.assertEqual(stale, quotas(quota.id, "q"))

    async def test_a_taken_name_is_a_conflict_that_names_it(self) -> None:
        await self.user("alice")
        await self.domain("example.com")
        quota = await self.quota("basic", 100)
        taken: list[tuple[str, dict[str, Any], str]] = [
            ("users", {"name": "alice"}, "A user named alice exists already"),
            ("domains", {"name": "example.com"}, "A domain named example.com exists already"),
            ("quotas", {"name": "basic", "quota": 5}, "A quota named basic exists already"),
        ]
        for kind, fields, sentence in taken:
            with self.assertRaisesRegex(BookConflict, sentence):
                await self.changed(Create(kind, fields))
        self.assertEqual(await self.book.by_ids("quotas", [quota]), [Entry(quota, "basic", 100)])

    async def test_quotas_may_have_the_same_number_or_none(self) -> None:
        first, second = await self.quota("one", 100), await self.quota("two", 100)
        entry, _ = await self.changed(Update("quotas", second, {"quota": None}))
        self.assertEqual(entry, Entry(second, "two", None))
        self.assertEqual((await self.book.by_ids("quotas", [first]))[0].quota, 100)

    async def test_the_id_of_a_deleted_quota_is_not_used_again(self) -> None:
        quota = await self.quota("one", 1)
        await self.changed(Delete("quotas", [quota]))
        self.assertGreater(await self.quota("two", 2), quota)

    async def test_values_that_do_not_fit_are_rejected(self) -> None:
        refused: list[tuple[str, dict[str, Any]]] = [
            ("users", {"name": "x" * 129}),
            ("domains", {"name": "x" * 256}),
            ("users", {"name": "a\0b"}),
            ("users", {"name": "\udcff"}),
            ("users", {"name": ""}),
            ("users", {}),
            ("users", {"name": "x", "greylist": True}),
            ("users", {"name": "x", "id": 5}),
            ("quotas", {"name": "x"}),
            ("quotas", {"name": "x", "quota": 2**31}),
            ("quotas", {"name": "x", "quota": -1}),
            ("quotas", {"name": "x", "quota": True}),
            ("quotas", {"name": "x", "quota": 1.5}),
            ("domains", {"name": "x", "greylist": 1}),
            ("domains", {"name": "x", "each_quota": "1"}),
            ("domains", {"name": "x", "pool_quota": True}),
            *(("quotas", {"name": name, "quota": 5}) for name in ("trail ", " lead", "tab\t")),
            *(
                (kind, {"name": name})
                for kind in ("users", "domains", "emails")
                for name in ("trail ", " lead", "x\xa0")
            ),
        ]
        for kind, fields in refused:
            with self.assertRaises(ValueError):
                await self.changed(Create(kind, fields))
        for kind in ("users", "domains", "emails", "quotas"):
            self.assertEqual(await self.book.entries(kind), [])
        alice = await self.user("alice")
        with self.assertRaisesRegex(ValueError, "A name in users does not begin or end with white space"):
            await self.changed(Update("users", alice, {"name": "alice "}))

    async def test_a_name_that_exists_in_another_spelling_is_a_conflict(self) -> None:
        # Ids that the sequences of a new database do not reach.
        with self.engine.begin() as connection:
            for number, name in enumerate(("UPPER.Example", "Bücher.Example"), 1001):
                connection.execute(
                    domains.insert(), {"id": number, "name": name, "greylist": False, "check_spf": False}
                )
                connection.execute(emails.insert(), {"id": number, "name": f"Info@{name}"})
        other, address = await self.domain("other.example"), await self.email("x@other.example")
        for name, there in (
            ("upper.example", "UPPER.Example"),
            ("Upper.example", "UPPER.Example"),
            ("xn--bcher-kva.example", "Bücher.Example"),
        ):
            for kind, prefix, id in (("domains", "", other), ("emails", "Info@", address)):
                sentence = f"named {prefix}{there} exists already"
                with self.assertRaisesRegex(BookConflict, sentence):
                    await self.changed(Create(kind, {"name": prefix + name}))
                with self.assertRaisesRegex(BookConflict, sentence):
                    await self.changed(Update(kind, id, {"name": prefix + name}))
        # The name of an entry may be changed to its normal form.
        self.assertEqual(
            (await self.changed(Update("domains", 1001, {"name": "upper.example"})))[0].name, "upper.example"
        )
        self.assertEqual((await self.changed(Update("domains", 1001, {"greylist": True})))[0].name, "upper.example")

    async def test_the_longest_names_fit(self) -> None:
        for kind, length in (("users", 128), ("domains", 255), ("emails", 320)):
            entry, _ = await self.changed(Create(kind, {"name": "\U0001f4e7" * length}))
            self.assertEqual(len(entry.name), length)

    async def test_a_link_to_a_missing_entry_rolls_back_the_change(self) -> None:
        with self.assertRaises(KeyError) as caught:
            await self.changed(Create("users", {"name": "alice"}, {"domains": [10**20]}))
        self.assertEqual(caught.exception.args, (("domains", 10**20),))
        self.assertEqual(await self.book.entries("users"), [])

    async def test_two_quotas_of_a_user_are_refused(self) -> None:
        both = [await self.quota("a", 1), await self.quota("b", 2)]
        with self.assertRaisesRegex(ValueError, "one quota"):
            await self.changed(Create("users", {"name": "alice"}, {"quotas": both}))

    # --- changing ---

    async def test_a_renamed_user_invalidates_both_names(self) -> None:
        alice = await self.user("alice", domains=[await self.domain("example.com")])
        entry, stale = await self.changed(Update("users", alice, {"name": "bob"}))
        self.assertEqual(entry, Entry(alice, "bob"))
        pairs = frozenset({("alice", "example.com"), ("bob", "example.com")})
        self.assertEqual(stale, StaleKeys(frozenset({"alice", "bob"}), pairs))

    async def test_a_renamed_domain_invalidates_both_names(self) -> None:
        domain = await self.domain("old.example")
        await self.user("alice", domains=[domain])
        _, stale = await self.changed(Update("domains", domain, {"name": "New.example"}))
        pairs = frozenset({("alice", "old.example"), ("alice", "new.example")})
        self.assertEqual(stale, flags_and_plan("old.example", "new.example")._replace(senders=pairs))

    async def test_a_renamed_email_invalidates_both_names(self) -> None:
        email = await self.email("old@example.com")
        await self.user("alice", emails=[email])
        _, stale = await self.changed(Update("emails", email, {"name": "new@example.com"}))
        self.assertEqual(stale, senders(("alice", "old@example.com"), ("alice", "new@example.com")))

    async def test_a_flag_invalidates_only_the_domains_flags(self) -> None:
        domain = await self.domain("example.com")
        await self.user("alice", domains=[domain])
        entry, stale = await self.changed(Update("domains", domain, {"greylist": True}))
        self.assertEqual((entry.greylist, entry.check_spf), (True, False))
        self.assertEqual(stale, StaleKeys(flags=frozenset({"example.com"})))

    async def test_a_changed_quota_invalidates_itself_and_not_its_users(self) -> None:
        quota = await self.quota("basic", 100)
        await self.user("alice", quotas=[quota])
        self.assertEqual((await self.changed(Update("quotas", quota, {"quota": 200})))[1], quotas(quota, "basic"))
        _, stale = await self.changed(Update("quotas", quota, {"name": "new"}))
        self.assertEqual(stale, quotas(quota, "basic", "new"))

    async def test_a_domain_gives_and_shares_quotas(self) -> None:
        quota, domain = await self.quota("basic", 100), await self.domain("example.com")
        for field in ("each_quota", "pool_quota"):
            entry, stale = await self.changed(Update("domains", domain, {field: quota}))
            self.assertEqual(getattr(entry, field), quota)
            self.assertEqual(stale, StaleKeys(domains=frozenset({"example.com"})))
            with self.assertRaises(KeyError) as caught:
                await self.changed(Update("domains", domain, {field: 999}))
            self.assertEqual(caught.exception.args, (("quotas", 999),))
        await self.changed(Update("domains", domain, {"pool_quota": None}))
        self.assertEqual(await self.book.domain_plan("example.com"), DomainPlan(quota, None))
        await self.changed(Delete("quotas", [quota]))
        self.assertEqual(await self.book.domain_plan("example.com"), DomainPlan(None, None))

    async def test_given_links_replace_existing_ones(self) -> None:
        a, b, c = [await self.domain(f"{letter}.example") for letter in "abc"]
        email = await self.email("x@example.com")
        alice = await self.user("alice", domains=[a, b], emails=[email])
        _, stale = await self.changed(Update("users", alice, {}, {"domains": [b, c, c]}))
        self.assertEqual(stale, senders(*(("alice", f"{letter}.example") for letter in "abc")))
        links = (await self.book.links("users", [alice], "domains"))[alice]
        self.assertEqual([entry.id for entry in links], [b, c])
        self.assertEqual(len((await self.book.links("users", [alice], "emails"))[alice]), 1)

    async def test_a_quota_is_replaced_and_removed(self) -> None:
        small, big = await self.quota("small", 1), await self.quota("big", 2)
        alice = await self.user("alice", quotas=[small])
        for given, own in (([big], big), ([], None), ([small], small)):
            _, stale = await self.changed(Update("users", alice, {}, {"quotas": given}))
            self.assertEqual(stale, plans("alice"))
            self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, own))
        self.assertEqual((await self.changed(AddLinks("users", alice, "quotas", [big])))[1], plans("alice"))
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, big))
        self.assertEqual((await self.changed(RemoveLinks("users", alice, "quotas", [big])))[1], plans("alice"))
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, None))

    async def test_a_missing_entry_cannot_be_changed(self) -> None:
        for id in (999, 0, -1, 10**20):
            for change in (
                self.changed(Update("users", id, {"name": "x"})),
                self.changed(AddLinks("users", id, "domains", [])),
                self.changed(RemoveLinks("users", id, "domains", [])),
            ):
                with self.assertRaises(KeyError) as caught:
                    await change
                self.assertEqual(caught.exception.args, (("users", id),))

    # --- links ---

    async def test_linking_invalidates_only_the_pairs_named(self) -> None:
        a, b = await self.domain("a.example"), await self.domain("b.example")
        alice, bob = await self.user("alice", domains=[a]), await self.user("bob")
        self.assertEqual(
            (await self.changed(AddLinks("users", alice, "domains", [b])))[1], senders(("alice", "b.example"))
        )
        self.assertEqual(
            (await self.changed(AddLinks("users", alice, "domains", [b, b])))[1], senders(("alice", "b.example"))
        )
        _, stale = await self.changed(AddLinks("domains", a, "users", [alice, bob]))
        self.assertEqual(stale, senders(("alice", "a.example"), ("bob", "a.example")))
        _, stale = await self.changed(RemoveLinks("domains", a, "users", [alice, 999, 10**20]))
        self.assertEqual(stale, senders(("alice", "a.example")))
        self.assertTrue((await self.book.senders_of("bob", "a.example", "")).domain)
        self.assertFalse((await self.book.senders_of("alice", "a.example", "")).domain)
        with self.assertRaises(KeyError) as caught:
            await self.changed(AddLinks("users", alice, "emails", [999]))
        self.assertEqual(caught.exception.args, (("emails", 999),))

    async def test_kinds_that_have_no_links_are_refused(self) -> None:
        with self.assertRaisesRegex(ValueError, "domains are not linked to emails"):
            await self.book.links("domains", [1], "emails")

    # --- deleting ---

    async def test_deleting_invalidates_what_was_linked(self) -> None:
        com, email = await self.domain("example.com"), await self.email("x@example.net")
        quota = await self.quota("basic", 100)
        links = {"domains": [com], "emails": [email], "quotas": [quota]}
        alice, bob = await self.user("alice", **links), await self.user("bob", **links)
        _, stale = await self.changed(Delete("users", [alice, alice, 999, 10**20]))
        self.assertEqual(stale, StaleKeys(frozenset({"alice"}), self.pairs("alice")))
        _, stale = await self.changed(Delete("domains", [com]))
        self.assertEqual(stale, flags_and_plan("example.com")._replace(senders=frozenset({("bob", "example.com")})))
        _, stale = await self.changed(Delete("emails", [email]))
        self.assertEqual(stale, senders(("bob", "x@example.net")))
        _, stale = await self.changed(Delete("quotas", [quota]))
        # A policy that finds it gone goes on as if bob had none.
        self.assertEqual(stale, quotas(quota, "basic"))
        self.assertEqual(await self.changed(Delete("quotas", [quota])), (None, NOTHING))
        self.assertEqual(await self.book.user_plan("bob"), UserPlan(True, None))
        self.assertEqual(await self.book.by_ids("users", [alice, bob]), [Entry(bob, "bob")])
        self.assertEqual(self.link_rows(), 0)

    def pairs(self, user: str) -> frozenset[tuple[str, str]]:
        return frozenset({(user, "example.com"), (user, "x@example.net")})

    def link_rows(self) -> int:
        with self.engine.connect() as connection:
            tables = (domain_user, email_user, quota_user)
            return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)

    async def test_thousands_of_users_at_once(self) -> None:
        count = 2500
        with self.engine.begin() as connection:
            rows = [{"id": number, "name": f"user{number}"} for number in range(1, count + 1)]
            connection.execute(users.insert(), rows)
        domain, quota = await self.domain("example.com"), await self.quota("basic", 100)
        everybody = list(range(1, count + 1))
        _, stale = await self.changed(AddLinks("domains", domain, "users", everybody))
        self.assertEqual(stale, StaleKeys(sender_domains=frozenset({"example.com"})))
        _, stale = await self.changed(Update("quotas", quota, {"quota": 5}, {"users": everybody}))
        self.assertEqual(len(stale.users), count)
        seen = Statements(self.engine, "DELETE")
        _, stale = await self.changed(Delete("users", everybody))
        self.assertEqual((len(stale.users), stale.sender_domains), (count, {"example.com"}))
        self.assertEqual(await self.book.entries("users"), [])
        self.assertEqual(len(seen.seen), 5)
        self.assertEqual(self.link_rows(), 0)

    # --- at the same time ---

    async def test_writers_at_the_same_time_lose_nothing(self) -> None:
        there = [await self.domain(f"d{number}.example") for number in range(12)]
        alice, bob = await self.user("alice"), await self.user("bob")
        edits: list[Edit] = [AddLinks("users", user, "domains", [id]) for id in there for user in (alice, bob)]
        edits += [Update("domains", id, {"greylist": True}) for id in there]
        await gatherResults([Deferred.fromCoroutine(self.book.change(edit)) for edit in edits])
        found = await self.book.links("users", [alice, bob], "domains")
        self.assertEqual([len(found[alice]), len(found[bob])], [12, 12])
        self.assertTrue(all(entry.greylist for entry in found[alice]))

    async def test_only_one_of_two_writers_gets_a_name(self) -> None:
        def create(_: int) -> Deferred[Any]:
            return Deferred.fromCoroutine(self.book.change(Create("users", {"name": "alice"}))).addErrback(
                lambda failure: failure.trap(BookConflict)
            )

        results = await gatherResults([create(number) for number in range(8)])
        self.assertEqual(results.count(BookConflict), 7)

    async def test_a_change_reaches_what_others_link_meanwhile(self) -> None:
        """In any order, one of the two changes invalidates the final pair."""
        for number in range(5):
            domain, user = await self.domain(f"d{number}.example"), await self.user(f"old{number}")
            self.cache.take()
            edits: list[Edit] = [
                Update("users", user, {"name": f"new{number}"}),
                AddLinks("users", user, "domains", [domain]),
            ]
            await gatherResults([Deferred.fromCoroutine(self.book.change(edit)) for edit in edits])
            self.assertIn((f"new{number}", f"d{number}.example"), self.cache.take().senders)

    async def test_another_programs_lock_is_waited_for(self) -> None:
        alice = await self.user("alice")
        with self.engine.connect().execution_options(chapps_writes=True) as connection:
            connection.begin()
            connection.execute(users.update().where(users.c.id == alice).values(name="bob"))
            change = Deferred.fromCoroutine(self.changed(Update("users", alice, {"name": "carol"})))
            # Its other threads have answered many lookups meanwhile.
            for _ in range(5):
                self.assertTrue((await self.book.user_plan("alice")).known)
            self.assertFalse(change.called)
            connection.commit()
        _, stale = await change
        self.assertIn("carol", stale.users)
        self.assertEqual((await self.book.by_ids("users", [alice]))[0].name, "carol")


class WritableBookOnSqlite(OnSqlite, WritableBookTests):
    __test__ = True


class WritableBookOnPostgreSQL(OnPostgreSQL, WritableBookTests):
    __test__ = True


class WritableBookOnMariaDB(OnMariaDB, WritableBookTests):
    __test__ = True
