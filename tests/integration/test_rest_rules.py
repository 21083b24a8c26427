"""Limits of quotas, quotas of domains, overrides and exemptions over a real socket."""

from __future__ import annotations

import time
from typing import Any

from tests.integration.test_rest_book import BookTestCase


class QuotaLimitTests(BookTestCase):
    async def quota(self) -> int:
        return await self.create("quotas", name="basic", quota=200)

    async def add(self, quota: int, **fields: Any) -> int:
        answer = await self.expect(201, "POST", f"/quotas/{quota}/limits/", fields)
        return int(answer.response["id"])

    async def test_limits_are_added_shown_changed_and_deleted(self) -> None:
        quota = await self.quota()
        created = await self.expect(
            201, "POST", f"/quotas/{quota}/limits/", {"name": "hour", "amount": 50, "window": "1h"}
        )
        id = created.response["id"]
        hour = {
            "id": id, "quota": quota, "name": "hour", "unit": "recipients", "amount": 50, "window": 3600,
            "action": "refuse",
        }  # fmt: skip
        self.assertEqual((created.response, created.headers["location"]), (hour, f"/limits/{id}/"))
        changed = await self.expect(200, "PUT", f"/limits/{id}/", {"unit": "bytes", "amount": 10**9, "action": "defer"})
        hour |= {"unit": "bytes", "amount": 10**9, "action": "defer"}
        self.assertEqual(changed.response, hour)
        self.assertEqual((await self.expect(200, "GET", f"/limits/{id}/")).response, hour)
        self.assertEqual((await self.expect(200, "DELETE", f"/limits/{id}/")).response, "deleted")
        missing = await self.expect(404, "GET", f"/limits/{id}/")
        self.assertEqual(missing.detail, f"There is no limit with id {id}.")

    async def test_the_limits_of_a_quota_are_beside_it(self) -> None:
        quota = await self.quota()
        hour = await self.add(quota, name="hour", amount=50, window="1h")
        day = await self.add(quota, name="people", unit="distinct_recipients", amount=500, window=86400, action="hold")
        shown = (await self.expect(200, "GET", f"/quotas/{quota}/")).json
        self.assertEqual(shown["response"], {"id": quota, "name": "basic", "quota": 200})
        self.assertEqual([each["id"] for each in shown["limits"]], [hour, day])

    async def test_limits_are_listed_of_one_quota_or_of_all_and_paged(self) -> None:
        basic = await self.quota()
        other = await self.create("quotas", name="other", quota=200)
        ids = [await self.add(basic, name=f"l{n}", amount=n, window=60) for n in range(3)]
        last = await self.add(other, name="l0", amount=5, window=60)
        for path, wanted in (
            (f"/quotas/{basic}/limits/", ids),
            (f"/quotas/{basic}/limits/?skip=1&limit=1", ids[1:2]),
            ("/limits/", [*ids, last]),
            ("/limits/?skip=3", [last]),
        ):
            found = (await self.expect(200, "GET", path)).response
            self.assertEqual([each["id"] for each in found], wanted, path)

    async def test_several_limits_are_deleted_and_unknown_ids_are_told(self) -> None:
        quota = await self.quota()
        ids = [await self.add(quota, name=f"l{n}", amount=n, window=60) for n in range(2)]
        answer = (await self.expect(200, "DELETE", "/limits/", [*ids, 777])).json
        self.assertEqual(answer["remarks"], ["There is no limit with id 777."])
        self.assertEqual((await self.expect(200, "GET", "/limits/")).response, [])

    async def test_a_quota_that_does_not_exist_has_no_limits(self) -> None:
        new = {"name": "hour", "amount": 50, "window": "1h"}
        for method, body in (("GET", None), ("POST", new)):
            answer = await self.expect(404, method, "/quotas/77/limits/", body)
            self.assertEqual(answer.detail, "There is no quota with id 77.")

    async def test_a_name_is_unique_within_its_quota(self) -> None:
        quota = await self.quota()
        await self.add(quota, name="hour", amount=50, window="1h")
        await self.expect(409, "POST", f"/quotas/{quota}/limits/", {"name": "hour", "amount": 1, "window": "2h"})

    async def test_every_error_is_reported_at_once(self) -> None:
        quota = await self.quota()
        wrong = {"name": "", "unit": "letters", "amount": -1, "window": "367d", "action": "drop"}
        answer = await self.expect(422, "POST", f"/quotas/{quota}/limits/", wrong)
        faults = {each["loc"][1]: each["msg"] for each in answer.detail}
        self.assertEqual(sorted(faults), ["action", "amount", "name", "unit", "window"])
        self.assertIn("'bytes'", faults["unit"])
        unknown = await self.expect(422, "POST", f"/quotas/{quota}/limits/", {"count": 1, "per": "hour"})
        self.assertEqual([each["loc"][1] for each in unknown.detail], ["count", "per"])

    async def test_a_quota_may_consist_of_its_limits_alone(self) -> None:
        quota = await self.create("quotas", name="basic", quota=None)
        await self.add(quota, name="hour", amount=50, window="1h")
        shown = (await self.expect(200, "GET", f"/quotas/{quota}/")).json
        self.assertEqual([shown["response"]["quota"], len(shown["limits"])], [None, 1])

    async def test_two_quotas_may_have_the_same_number(self) -> None:
        await self.create("quotas", name="basic", quota=200)
        await self.create("quotas", name="other", quota=200)


class DomainQuotaTests(BookTestCase):
    async def test_quotas_of_a_domain_are_set_shown_and_removed(self) -> None:
        each = await self.create("quotas", name="each", quota=50)
        pool = await self.create("quotas", name="pool", quota=5000)
        domain = await self.create("domains", name="example.com", each_quota=each)
        path = f"/domains/{domain}/"

        async def shown() -> list[int | None]:
            [listed] = (await self.expect(200, "GET", "/domains/")).response
            self.assertEqual((await self.expect(200, "GET", path)).response, listed)
            return [listed["each_quota"], listed["pool_quota"]]

        self.assertEqual(await shown(), [each, None])
        await self.expect(200, "PUT", "/domains/", {"domain": {"id": domain, "pool_quota": pool}})
        self.assertEqual(await shown(), [each, pool])
        await self.expect(200, "PUT", "/domains/", {"id": domain, "each_quota": None, "greylist": True})
        self.assertEqual(await shown(), [each, pool])
        await self.expect(200, "PUT", "/domains/", {"id": domain, "each_quota": 0})
        self.assertEqual(await shown(), [None, pool])
        await self.expect(200, "DELETE", "/quotas/", [pool])
        self.assertEqual(await shown(), [None, None])

    async def test_a_quota_that_does_not_exist_is_refused(self) -> None:
        answer = await self.expect(409, "POST", "/domains/", {"name": "example.com", "each_quota": 77})
        self.assertEqual(answer.detail, "There is no quota with id 77.")

    async def test_the_answer_about_a_user_is_as_before(self) -> None:
        quota = await self.create("quotas", name="basic", quota=50)
        domain = await self.create("domains", name="example.com", each_quota=quota)
        user = await self.create("users", name="alice", domains=[domain])
        shown = (await self.expect(200, "GET", f"/users/{user}/")).json
        plain = {"id": domain, "name": "example.com", "greylist": False, "check_spf": False}
        self.assertEqual([shown["domains"], shown["quota"]], [[plain], None])


class OverrideTests(BookTestCase):
    async def override(self, **fields: Any) -> dict[str, Any]:
        new = {"kind": "unlimited", "until": "3d", **fields}
        return dict((await self.expect(201, "POST", "/overrides/", new)).response)

    async def ids(self, query: str = "") -> list[int]:
        return [each["id"] for each in (await self.expect(200, "GET", f"/overrides/{query}")).response]

    async def test_an_override_is_for_a_user_or_a_domain_by_id_or_by_name(self) -> None:
        user = await self.create("users", name="alice@example.com")
        domain = await self.create("domains", name="example.com")
        names = ("user_id", "user", "domain_id", "domain")
        of_user, of_domain = [user, "alice@example.com", None, None], [None, None, domain, "example.com"]
        for about, wanted in (
            ({"user_id": user}, of_user),
            ({"user": "Alice@EXAMPLE.com"}, of_user),
            ({"domain_id": domain}, of_domain),
            ({"domain": "Example.com."}, of_domain),
        ):
            made = await self.override(**about)
            self.assertEqual([made[name] for name in names], wanted, about)
        for about, sentence in (
            ({"user_id": 77}, "There is no user with id 77."),
            ({"user": "bob"}, "There is no user named bob."),
            ({"domain": "other.example"}, "There is no domain named other.example."),
        ):
            answer = await self.expect(404, "POST", "/overrides/", {"kind": "unlimited", "until": "3d", **about})
            self.assertEqual(answer.detail, sentence)

    async def test_all_fields_are_shown(self) -> None:
        await self.create("users", name="alice")
        before = time.time()
        made = await self.override(
            user="alice", kind="extra", value=500, limit="hour", until="2h", reason="Newsletter, ticket 17"
        )
        path = f"/overrides/{made['id']}/"
        self.assertEqual((await self.expect(200, "GET", path)).response, made)
        self.assertEqual(
            [made[each] for each in ("kind", "value", "limit", "reason", "author", "active")],
            ["extra", 500, "hour", "Newsletter, ticket 17", "first", True],
        )
        self.assertTrue(before - 1 <= made["begin"] <= time.time() + 1, made)
        self.assertApproximates(made["until"], before + 7200, 60)
        self.assertApproximates(made["created"], before, 60)

    async def test_until_is_epoch_seconds_a_zoned_time_or_a_duration(self) -> None:
        await self.create("users", name="alice")
        for given, epoch in ((4_000_000_000, 4e9), (4e9 + 0.5, 4e9 + 0.5), ("2096-10-02T15:06:40+08:00", 4e9)):
            self.assertEqual((await self.override(user="alice", until=given))["until"], epoch)
        for given, sentence in (
            ("2096-10-02T15:06:40", "time zone"),
            ("soon", "a duration such as 90m or 3d"),
            (True, "a duration such as 90m or 3d"),
        ):
            new = {"user": "alice", "kind": "unlimited", "until": given}
            [fault] = (await self.expect(422, "POST", "/overrides/", new)).detail
            self.assertEqual(fault["loc"], ["body", "until"])
            self.assertIn(sentence, fault["msg"])

    async def test_what_is_over_before_it_begins_is_refused(self) -> None:
        await self.create("users", name="alice")
        for times in ({"until": 5}, {"begin": "2d", "until": "1d"}):
            new = {"user": "alice", "kind": "unlimited", **times}
            await self.expect(422, "POST", "/overrides/", new)
        self.assertEqual(await self.ids(), [])

    async def test_fields_that_do_not_fit_the_kind_are_refused_together(self) -> None:
        user = await self.create("users", name="alice")
        new = {"user_id": user, "domain": "example.com", "kind": "extra", "action": "defer", "until": "1d"}
        [fault] = (await self.expect(422, "POST", "/overrides/", new)).detail
        self.assertEqual(
            fault["msg"],
            "must have exactly one of user_id, user, domain_id, domain; must have a value with kind extra, and only "
            "then; must have an action only with kind suspended",
        )
        [fault] = (await self.expect(422, "POST", "/overrides/", {"kind": "unlimited", "until": "1d"})).detail
        self.assertIn("exactly one of", fault["msg"])

    async def test_overrides_are_listed_by_user_by_domain_and_while_they_are_not_over(self) -> None:
        await self.create("users", name="alice")
        await self.create("users", name="bob")
        domain = await self.create("domains", name="example.com")
        alice = [(await self.override(user="alice", begin=begin))["id"] for begin in (0, "1d")]
        bob = (await self.override(user="bob", kind="suspended", action="defer"))["id"]
        pool = (await self.override(domain_id=domain))["id"]
        for query, wanted in (
            ("", [*alice, bob, pool]),
            ("?user=ALICE", alice),
            ("?user=alice&skip=1", alice[1:]),
            ("?domain=example.com", [pool]),
            (f"?domain_id={domain}&active=1", [pool]),
            ("?active=true&limit=2", alice),
        ):
            self.assertEqual(await self.ids(query), wanted, query)
        shown = (await self.expect(200, "GET", "/overrides/?user=alice")).response
        self.assertEqual([each["active"] for each in shown], [True, False])
        await self.expect(404, "GET", "/overrides/?user=carol")
        await self.expect(422, "GET", "/overrides/?user=alice&domain=example.com")
        self.node.api_ahead += 4 * 86400
        self.assertEqual([await self.ids("?active=1"), len(await self.ids())], [[], 4])

    async def test_an_override_is_changed_and_ended(self) -> None:
        await self.create("users", name="alice")
        made = await self.override(user="alice", kind="suspended", reason="spam")
        self.assertEqual(made["action"], "refuse")
        path = f"/overrides/{made['id']}/"
        changed = (await self.expect(200, "PUT", path, {"action": "defer", "until": 4_000_000_000})).response
        until = {"until": 4e9, "until_iso": "2096-10-02T07:06:40.000Z"}
        self.assertEqual(changed, {**made, "action": "defer", **until})
        self.assertEqual((await self.expect(200, "DELETE", path)).response, "deleted")
        await self.expect(404, "DELETE", path)
        await self.expect(404, "PUT", path, {"reason": "x"})
        several = [(await self.override(user="alice"))["id"] for _ in range(2)]
        await self.expect(200, "DELETE", f"/overrides/?override_ids={several[0]}&override_ids={several[1]}")
        self.assertEqual(await self.ids(), [])


class ExemptionTests(BookTestCase):
    def setUp(self) -> None:
        super().setUp()
        scope = {"kind": "client", "value": "192.0.2.0/24", "scope": "greylisting"}
        self.new: dict[str, Any] = {**scope, "until": "1d", "reason": "partner"}

    async def test_an_exemption_is_created_shown_changed_and_ended(self) -> None:
        created = await self.expect(201, "POST", "/exemptions/", {**self.new, "until": 4_000_000_000})
        made = created.response
        self.assertEqual(created.headers["location"], f"/exemptions/{made['id']}/")
        wanted = {**self.new, "until": 4e9, "author": "first", "active": True}
        self.assertEqual({name: made[name] for name in wanted}, wanted)
        self.assertEqual((await self.expect(200, "GET", "/exemptions/")).response, [made])
        path = f"/exemptions/{made['id']}/"
        changed = await self.expect(200, "PUT", path, {"scope": "limit:flood", "reason": ""})
        self.assertEqual(changed.response, {**made, "scope": "limit:flood", "reason": ""})
        self.assertEqual((await self.expect(200, "DELETE", path)).response, "deleted")
        await self.expect(404, "GET", path)

    async def test_values_are_stored_in_their_normal_form(self) -> None:
        for kind, given, stored in (
            ("client", "[2001:DB8::]/32", "2001:db8::/32"),
            ("sender", "News@Example.COM", "news@example.com"),
            ("sender_domain", ".Example.COM", ".example.com"),
            ("recipient", "Abuse@bücher.example", "abuse@xn--bcher-kva.example"),
        ):
            answer = await self.expect(201, "POST", "/exemptions/", {**self.new, "kind": kind, "value": given})
            self.assertEqual(answer.response["value"], stored)

    async def test_errors_name_field_and_remedy(self) -> None:
        for change, where, sentence in (
            ({"value": "192.0.2.1/24"}, "value", "use 192.0.2.0/24 for the network, or 192.0.2.1 for the address"),
            ({"kind": "sender"}, "value", "must be a mail address"),
            ({"kind": "helo"}, "kind", "'sender_domain'"),
            ({"scope": "dkim"}, "scope", "must be spf, greylisting, sender_authorization, or limit:NAME"),
            ({"scope": "limit:"}, "scope", "limit:NAME"),
            ({"until": None}, "until", "a duration such as"),
        ):
            [fault] = (await self.expect(422, "POST", "/exemptions/", {**self.new, **change})).detail
            self.assertEqual(fault["loc"], ["body", where])
            self.assertIn(sentence, fault["msg"])
        without = {name: value for name, value in self.new.items() if name != "until"}
        [fault] = (await self.expect(422, "POST", "/exemptions/", without)).detail
        self.assertEqual([fault["loc"], fault["msg"]], [["body", "until"], "is missing"])

    async def test_what_is_over_is_listed_unless_only_active_ones_are_asked_for(self) -> None:
        await self.expect(201, "POST", "/exemptions/", self.new)
        self.assertEqual(len((await self.expect(200, "GET", "/exemptions/?active=1")).response), 1)
        self.node.api_ahead += 2 * 86400
        self.assertEqual((await self.expect(200, "GET", "/exemptions/?active=1")).response, [])
        [over] = (await self.expect(200, "GET", "/exemptions/")).response
        self.assertFalse(over["active"])
