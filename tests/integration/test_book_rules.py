"""Limits, overrides and exemptions: changed, listed and read by policies, on each kind of database."""

from __future__ import annotations

import math
import time
from typing import Any

from sqlalchemy import insert, update

from chapps_tw.database import rule_checks
from chapps_tw.database.models import exemptions, overrides, quotas
from chapps_tw.interfaces.book import (
    AddLinks,
    BookConflict,
    Create,
    Delete,
    DomainPlan,
    Exemption,
    Limit,
    Override,
    Plan,
    StaleKeys,
    Update,
    UserPlan,
)
from chapps_tw.interfaces.writable_book import (
    MAX_AMOUNT,
    MAX_LIMITS,
    MAX_OVERRIDES,
    MAX_TIME,
    MAX_WINDOW,
    LimitEntry,
    OverrideEntry,
)
from tests.support.book_case import BookCase, OnMariaDB, OnPostgreSQL, OnSqlite, Statements

HOURLY: dict[str, Any] = {"name": "hourly", "unit": "messages", "amount": 50, "window": 3600}
EXEMPT: dict[str, Any] = {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": MAX_TIME}


class RulesTests(BookCase):
    """Behaviour on one kind of database."""

    __test__ = False

    async def limit(self, quota: int, **fields: Any) -> Any:
        return (await self.changed(Create("limits", HOURLY | {"quota": quota} | fields)))[0]

    async def override(self, author: str = "", **fields: Any) -> Any:
        return (await self.book.change(Create("overrides", {"until": MAX_TIME} | fields), author)).entry

    # --- limits ---

    async def test_a_plan_is_a_quota_with_its_limits(self) -> None:
        quota = await self.quota("basic", 100)
        self.assertEqual(await self.book.plan(quota), Plan(quota, "basic", 100, ()))
        await self.limit(quota)
        await self.limit(quota, name="daily", unit="bytes", amount=MAX_AMOUNT, window=86400, action="defer")
        both = (Limit("hourly", "messages", 50, 3600, "refuse"), Limit("daily", "bytes", MAX_AMOUNT, 86400, "defer"))
        self.assertEqual(await self.book.plan(quota), Plan(quota, "basic", 100, both))
        self.assertEqual(await self.book.plan_named("basic"), Plan(quota, "basic", 100, both))
        for missing in (quota + 1, 0, -1, 2**31):
            self.assertIsNone(await self.book.plan(missing))
        for other in ("Basic", "basic ", "", "x" * 100, "\udcff"):
            self.assertIsNone(await self.book.plan_named(other))

    async def test_limits_of_several_quotas_are_read_at_once(self) -> None:
        small, big = await self.quota("small", 1), await self.quota("big", 2)
        of_small = [await self.limit(small, name=name) for name in ("b", "a")]
        of_big = [await self.limit(big)]
        wanted = {small: of_small, big: of_big, 999: [], 10**20: []}
        self.assertEqual(await self.book.limits_of([small, big, 999, 10**20], 9), wanted)
        self.assertEqual(await self.book.limits_of([small, big], 1), {small: of_small[:1], big: []})

    async def test_a_quota_may_have_limits_only(self) -> None:
        quota = (await self.create("quotas", {"name": "only", "quota": None})).id
        self.assertEqual(await self.book.plan(quota), Plan(quota, "only", None, ()))

    async def test_a_negative_number_of_a_quota_counts_as_0(self) -> None:
        quota = await self.quota("basic", 100)
        with self.engine.begin() as connection:
            connection.execute(update(quotas).values(quota=-5))
        self.assertEqual(await self.book.plan(quota), Plan(quota, "basic", 0, ()))
        self.assertEqual(await self.book.plan_named("basic"), Plan(quota, "basic", 0, ()))

    async def test_changes_of_limits_invalidate_the_quota_and_none_of_its_users(self) -> None:
        quota = await self.quota("basic", 100)
        await self.user("alice", quotas=[quota])
        stale = StaleKeys(quotas=frozenset({quota}), quota_names=frozenset({"basic"}))
        entry, created = await self.changed(Create("limits", HOURLY | {"quota": quota}))
        self.assertEqual(entry, LimitEntry(entry.id, quota, "hourly", "messages", 50, 3600, "refuse"))
        entry, updated = await self.changed(Update("limits", entry.id, {"amount": 60, "action": "hold"}))
        self.assertEqual(entry, LimitEntry(entry.id, quota, "hourly", "messages", 60, 3600, "hold"))
        _, deleted = await self.changed(Delete("limits", [entry.id, 999]))
        self.assertEqual([created, updated, deleted], [stale] * 3)
        self.assertEqual(await self.changed(Delete("limits", [entry.id])), (None, StaleKeys()))

    async def test_limits_that_do_not_fit_are_rejected_with_a_sentence(self) -> None:
        quota = await self.quota("basic", 100)
        for fields, sentence in (
            ({"name": ""}, "The name of a limit has 1 to 32 printable characters."),
            ({"name": "x" * 33}, "The name of a limit has 1 to 32"),
            ({"name": "a\nb"}, "The name of a limit has 1 to 32"),
            ({"name": "a "}, "does not begin or end with white space"),
            ({"unit": "apples"}, "unit is one of messages, recipients, bytes, distinct_recipients."),
            ({"amount": -1}, f"amount is a whole number from 0 to {MAX_AMOUNT}."),
            ({"amount": MAX_AMOUNT + 1}, "amount is"),
            ({"amount": True}, "amount is"),
            ({"amount": 1.5}, "amount is"),
            ({"unit": "distinct_recipients", "amount": 100_001}, "amount is a whole number from 0 to 100000."),
            ({"window": 0}, f"window is a whole number from 1 to {MAX_WINDOW} seconds."),
            ({"window": MAX_WINDOW + 1}, "window is"),
            ({"action": "explode"}, "action is one of refuse, defer, hold."),
            ({"quota": "1"}, "The quota is an id."),
            ({"id": 7}, "limits have no field id that can be set."),
            ({"color": "red"}, "limits have no field color that can be set."),
        ):
            with self.assertRaisesRegex(ValueError, sentence):
                await self.limit(**({"quota": quota} | fields))
        with self.assertRaisesRegex(ValueError, "limits need window."):
            await self.changed(Create("limits", {"quota": quota, "name": "x", "unit": "bytes", "amount": 5}))
        with self.assertRaises(KeyError) as caught:
            await self.limit(quota + 1)
        self.assertEqual(caught.exception.args, (("quotas", quota + 1),))
        self.assertEqual(await self.book.rules("limits"), [])

    async def test_a_limit_cannot_be_updated_to_what_does_not_fit(self) -> None:
        quota = await self.quota("basic", 100)
        entry = await self.limit(quota)
        for fields, sentence in (
            ({"window": 0}, "window is"),
            ({"quota": quota}, "The quota of an entry in limits does not change."),
        ):
            with self.assertRaisesRegex(ValueError, sentence):
                await self.changed(Update("limits", entry.id, fields))
        with self.assertRaises(KeyError):
            await self.changed(Update("limits", 999, {"amount": 5}))
        with self.assertRaisesRegex(ValueError, "limits have no links"):
            await self.changed(AddLinks("limits", entry.id, "users", []))
        self.assertEqual(await self.book.rules_by_ids("limits", [entry.id, 999]), [entry])

    async def test_the_names_of_the_limits_of_a_quota_are_different(self) -> None:
        first, second = await self.quota("one", 1), await self.quota("two", 2)
        await self.limit(first)
        await self.limit(second)
        with self.assertRaisesRegex(BookConflict, "A limit of this quota named hourly exists already"):
            await self.limit(first)

    async def test_a_quota_has_a_bounded_number_of_limits(self) -> None:
        quota = await self.quota("basic", 100)
        found = [await self.limit(quota, name=f"l{number}") for number in range(MAX_LIMITS)]
        with self.assertRaisesRegex(ValueError, f"at most {MAX_LIMITS} limits"):
            await self.limit(quota)
        await self.changed(Update("limits", found[0].id, {"amount": 1}))
        await self.limit(await self.quota("other", 5))

    async def test_limits_are_listed_by_quota(self) -> None:
        first, second = await self.quota("one", 1), await self.quota("two", 2)
        found = [await self.limit(first), await self.limit(second), await self.limit(first, name="daily")]
        self.assertEqual(await self.book.rules("limits"), found)
        self.assertEqual(await self.book.rules("limits", of=("quotas", first)), [found[0], found[2]])
        self.assertEqual(await self.book.rules("limits", skip=1, limit=1), [found[1]])
        self.assertEqual(await self.book.rules("limits", of=("quotas", 10**20)), [])
        with self.assertRaisesRegex(ValueError, "users have no limits."):
            await self.book.rules("limits", of=("users", 1))
        await self.changed(Delete("quotas", [first]))
        self.assertEqual(await self.book.rules("limits"), [found[1]])

    # --- overrides ---

    async def test_an_override_of_a_user(self) -> None:
        quota = await self.quota("basic", 100)
        alice = await self.user("alice", quotas=[quota])
        begin = time.time()
        extra = await self.override("ops", user=alice, kind="extra", value=500, limit="hourly", reason="Newsletter")
        self.assertEqual(
            extra,
            OverrideEntry(
                extra.id, alice, None, "extra", 500, "hourly", extra.begin, MAX_TIME, "Newsletter", "", "ops",
                extra.created,
            ),
        )  # fmt: skip
        self.assertTrue(begin <= extra.begin == extra.created <= time.time())
        self.assertEqual(self.cache.take().users, {"alice"})
        later = await self.override(user=alice, kind="suspended", begin=MAX_TIME - 1, reason="Stolen password")
        self.assertEqual(
            await self.book.user_plan("alice"),
            UserPlan(
                True,
                quota,
                (
                    Override(extra.id, "extra", 500, "hourly", extra.begin, MAX_TIME, "Newsletter", ""),
                    Override(later.id, "suspended", 0, "", MAX_TIME - 1, MAX_TIME, "Stolen password", "refuse"),
                ),
            ),
        )

    async def test_an_override_of_a_domain(self) -> None:
        domain = await self.domain("example.com")
        self.cache.take()
        entry = await self.override(domain=domain, kind="unlimited")
        self.assertEqual(self.cache.take(), StaleKeys(domains=frozenset({"example.com"})))
        override = Override(entry.id, "unlimited", 0, "", entry.begin, MAX_TIME, "", "")
        self.assertEqual(await self.book.domain_plan("example.com"), DomainPlan(None, None, (override,)))
        self.assertEqual(await self.book.domain_plan("other.example"), DomainPlan(None, None))
        await self.changed(Delete("domains", [domain]))
        self.assertEqual(await self.book.rules("overrides"), [])

    async def test_overrides_that_are_over_are_not_read_by_policies(self) -> None:
        alice = await self.user("alice")
        entry = await self.override(user=alice, kind="unlimited")
        with self.engine.begin() as connection:
            connection.execute(update(overrides).values(begin_at=1.0, until_at=2.0))
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, None))
        [listed] = await self.book.rules("overrides", of=("users", alice))
        self.assertEqual(listed.id, entry.id)
        self.assertEqual(await self.book.rules("overrides", after=time.time()), [])

    async def test_an_override_is_extended_ended_and_deleted(self) -> None:
        alice = await self.user("alice")
        entry = await self.override("ops", user=alice, kind="unlimited")
        changed, stale = await self.changed(Update("overrides", entry.id, {"until": entry.begin + 1, "reason": "Why"}))
        self.assertEqual(changed, entry._replace(until=entry.begin + 1, reason="Why"))
        self.assertEqual(stale, StaleKeys(users=frozenset({"alice"})))
        _, stale = await self.changed(Delete("overrides", [entry.id]))
        self.assertEqual(stale, StaleKeys(users=frozenset({"alice"})))
        self.assertEqual(await self.book.user_plan("alice"), UserPlan(True, None))

    async def test_overrides_that_do_not_fit_are_rejected_with_a_sentence(self) -> None:
        alice, domain = await self.user("alice"), await self.domain("example.com")
        for fields, sentence in (
            ({"user": None}, "An override is that of a user or of a domain."),
            ({"domain": domain}, "An override is that of a user or of a domain."),
            ({"user": "alice"}, "The user is an id."),
            ({"kind": "free"}, "kind is one of extra, unlimited, suspended."),
            ({"kind": "extra"}, f"value is a whole number from 1 to {MAX_AMOUNT} for extra."),
            ({"value": 5}, "value is 0 for unlimited."),
            ({"action": "defer"}, "Only an override that is suspended has an action."),
            ({"kind": "suspended", "action": "hold"}, "action is one of refuse, defer."),
            ({"kind": "suspended", "limit": "hourly"}, "Who is suspended is so for all limits"),
            ({"until": 5.0}, "until is later than begin."),
            ({"begin": 1.0, "until": 5.0}, "until is in the past."),
            ({"until": math.nan}, "until is in epoch seconds"),
            ({"until": math.inf}, "until is in epoch seconds"),
            ({"begin": -1}, "begin is in epoch seconds"),
            ({"reason": "x" * 501}, "A reason has 0 to 500 printable characters."),
            ({"reason": "550 5.7.1\r\naction=OK"}, "A reason has 0 to 500 printable characters."),
            ({"created": 5.0}, "overrides have no field created that can be set."),
        ):
            with self.assertRaisesRegex(ValueError, sentence):
                given: dict[str, Any] = {"user": alice, "kind": "unlimited", **fields}
                await self.override(**given)
        self.assertEqual(await self.book.rules("overrides"), [])

    async def test_a_user_has_a_bounded_number_of_overrides_that_are_not_over(self) -> None:
        alice = await self.user("alice")
        for _ in range(MAX_OVERRIDES):
            last = await self.override(user=alice, kind="unlimited")
        with self.assertRaisesRegex(ValueError, f"at most {MAX_OVERRIDES} overrides"):
            await self.override(user=alice, kind="unlimited")
        await self.changed(Update("overrides", last.id, {"until": last.begin + 0.001}))
        await self.override(user=alice, kind="unlimited")

    async def test_a_plan_is_read_in_one_query(self) -> None:
        alice, domain = await self.user("alice"), await self.domain("example.com")
        for _ in range(3):
            await self.override(user=alice, kind="unlimited")
            await self.override(domain=domain, kind="unlimited")
        seen = Statements(self.engine)
        self.assertEqual(len((await self.book.user_plan("alice")).overrides), 3)
        self.assertEqual(len((await self.book.domain_plan("example.com")).overrides), 3)
        self.assertEqual(len(seen.seen), 2)

    # --- exemptions ---

    async def test_exemptions_are_stored_in_normal_form(self) -> None:
        for kind, value, normal in (
            ("client", "192.0.2.1/32", "192.0.2.1"),
            ("client", "192.0.2.0/24", "192.0.2.0/24"),
            ("client", "2001:DB8::1", "2001:db8::1"),
            ("client", "::ffff:192.0.2.1", "192.0.2.1"),
            ("client", "::ffff:192.0.2.0/120", "192.0.2.0/24"),
            ("sender", "Joe@BÜCHER.example", "joe@xn--bcher-kva.example"),
            ("sender_domain", "Bücher.example.", "xn--bcher-kva.example"),
            ("sender_domain", ".Example.com", ".example.com"),
            ("recipient", "ABUSE@example.com", "abuse@example.com"),
        ):
            entry, stale = await self.changed(Create("exemptions", EXEMPT | {"kind": kind, "value": value}))
            self.assertEqual((entry.kind, entry.value), (kind, normal))
            self.assertEqual(stale, StaleKeys(exemptions=True))

    async def test_policies_read_the_exemptions_that_are_not_over(self) -> None:
        self.assertEqual(await self.book.exemptions(), ())
        first = (await self.book.change(Create("exemptions", EXEMPT | {"reason": "Partner"}), "ops")).entry
        second, _ = await self.changed(Create("exemptions", EXEMPT | {"scope": "limit:flood"}))
        with self.engine.begin() as connection:
            values = {"kind": "client", "value": "x", "scope": "spf", "reason": "", "author": "", "created_at": 1.0}
            connection.execute(insert(exemptions), [{**values, "until_at": 2.0}])
        self.assertEqual(await self.book.exemptions(), (first, second))
        assert isinstance(first, Exemption)
        self.assertEqual((first.reason, first.author, first.until), ("Partner", "ops", MAX_TIME))
        self.assertEqual(len(await self.book.rules("exemptions")), 3)
        _, stale = await self.changed(Delete("exemptions", [first.id]))
        self.assertEqual(stale, StaleKeys(exemptions=True))
        self.assertEqual(await self.changed(Delete("exemptions", [first.id])), (None, StaleKeys()))

    async def test_exemptions_that_do_not_fit_are_rejected_with_a_sentence(self) -> None:
        for fields, sentence in (
            ({"kind": "planet"}, "kind is one of client, sender, sender_domain, recipient."),
            ({"value": "192.0.2.1/24"}, "A client is an address or a network"),
            ({"value": "example.com"}, "A client is an address or a network"),
            ({"value": 5}, "The value of an exemption is text."),
            ({"kind": "sender", "value": "joe"}, "A sender is an email address."),
            ({"kind": "recipient", "value": f"{'x' * 320}@example.com"}, "A recipient is an email address."),
            ({"kind": "sender_domain", "value": "a b"}, "A sender_domain is a domain name"),
            ({"kind": "sender_domain", "value": ""}, "A sender_domain is a domain name"),
            ({"scope": "everything"}, "scope is one of spf, greylisting, sender_authorization, limit:NAME."),
            ({"scope": "limit:"}, "The name of a limit has 1 to"),
            ({"scope": 5}, "scope is one of"),
            ({"until": 5.0}, "until is in the past."),
        ):
            with self.assertRaisesRegex(ValueError, sentence):
                await self.changed(Create("exemptions", EXEMPT | fields))
        self.assertEqual(await self.book.rules("exemptions"), [])

    async def test_there_is_a_bounded_number_of_exemptions_that_are_not_over(self) -> None:
        # Lowered: the real bound takes long to fill.
        self.patch(rule_checks, "MAX_EXEMPTIONS", 3)
        for _ in range(3):
            await self.changed(Create("exemptions", EXEMPT))
        with self.assertRaisesRegex(ValueError, "at most 3 exemptions"):
            await self.changed(Create("exemptions", EXEMPT))


class RulesOnSqlite(OnSqlite, RulesTests):
    __test__ = True


class RulesOnPostgreSQL(OnPostgreSQL, RulesTests):
    __test__ = True


class RulesOnMariaDB(OnMariaDB, RulesTests):
    __test__ = True
