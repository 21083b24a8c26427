"""The audit trail over a real socket: who changed what."""

from __future__ import annotations

import time
from typing import Any

from chapps_tw.interfaces.book import BookUnavailable
from tests.integration.test_rest_book import BookTestCase


class AuditTests(BookTestCase):
    async def trail(self, query: str = "") -> list[dict[str, Any]]:
        return list((await self.expect(200, "GET", f"/audit/{query}")).response)

    async def test_every_change_is_recorded_with_the_name_of_its_token(self) -> None:
        billing = self.node.tokens.create("billing", "full", 1.0)
        quota = await self.create("quotas", name="basic", quota=10)
        await self.expect(200, "PUT", "/quotas/", {"id": quota, "quota": 20}, token=billing)
        await self.expect(200, "DELETE", f"/quotas/{quota}/", token=billing)
        deleted, updated, created = await self.trail()
        names = ("author", "action", "kind", "entry", "name")
        self.assertEqual([created[each] for each in names], ["first", "create", "quotas", quota, "basic"])
        self.assertEqual([updated[each] for each in names], ["billing", "update", "quotas", quota, "basic"])
        self.assertEqual([deleted[each] for each in names], ["billing", "delete", "quotas", quota, "basic"])
        self.assertEqual([updated["before"]["quota"], updated["after"]["quota"]], [10, 20])
        self.assertIsNone(created["before"])
        self.assertIsNone(deleted["after"])
        self.assertApproximates(created["at"], time.time(), 60)

    async def test_links_limits_overrides_and_exemptions_are_recorded(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        user = await self.create("users", name="alice")
        await self.expect(200, "PUT", f"/users/{user}/quota/{quota}/")
        await self.expect(201, "POST", f"/quotas/{quota}/limits/", {"name": "hour", "amount": 5, "window": "1h"})
        await self.expect(201, "POST", "/overrides/", {"user": "alice", "kind": "unlimited", "until": "1d"})
        new = {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": "1d"}
        await self.expect(201, "POST", "/exemptions/", new)
        found = [(each["action"], each["kind"], each["name"]) for each in await self.trail("?limit=4")]
        self.assertEqual(
            found,
            [
                ("create", "exemptions", "192.0.2.1"),
                ("create", "overrides", "alice"),
                ("create", "limits", "basic"),
                ("link", "users", "alice"),
            ],
        )

    async def test_a_change_that_is_refused_is_not_recorded(self) -> None:
        await self.create("users", name="alice")
        await self.expect(409, "POST", "/users/", {"name": "alice"})
        self.assertEqual(len(await self.trail()), 1)

    async def test_records_are_filtered_and_paged(self) -> None:
        billing = self.node.tokens.create("billing", "full", 1.0)
        await self.create("users", name="alice")
        await self.create("domains", name="example.com")
        await self.expect(201, "POST", "/users/", {"name": "bob"}, token=billing)
        for query, names in (
            ("", ["bob", "example.com", "alice"]),
            ("?author=billing", ["bob"]),
            ("?author=first", ["example.com", "alice"]),
            ("?author=", []),
            ("?kind=users", ["bob", "alice"]),
            ("?kind=users&name=alice", ["alice"]),
            ("?since=1h", ["bob", "example.com", "alice"]),
            ("?until=1h", []),
            ("?until=0", []),
            ("?since=2096-10-02T15:06:40Z", []),
            ("?limit=2", ["bob", "example.com"]),
        ):
            self.assertEqual([each["name"] for each in await self.trail(query)], names, query)
        last = (await self.trail("?limit=2"))[-1]["id"]
        self.assertEqual([each["name"] for each in await self.trail(f"?before={last}")], ["alice"])

    async def test_wrong_filters_are_refused(self) -> None:
        for query in ("limit=0", "limit=1001", "before=-1", "since=yesterday", "until=2026-10-01", "user=alice"):
            await self.expect(422, "GET", f"/audit/?{query}")

    async def test_changes_of_the_live_state_are_recorded(self) -> None:
        user = await self.create("users", name="alice")
        await self.expect(200, "DELETE", f"/live/quota/{user}/")
        await self.expect(200, "DELETE", "/live/quota/0?name=alice")
        await self.expect(200, "DELETE", "/live/sda/example.com/for/alice/")
        await self.expect(200, "DELETE", "/live/grl/tally/192.0.2.1/")
        await self.expect(200, "POST", "/live/config/write/", "open sesame")
        found = [(each["author"], each["action"], each["kind"], each["name"]) for each in await self.trail("?limit=5")]
        self.assertEqual(
            found,
            [
                ("first", "post", "live/config/write", ""),
                ("first", "delete", "live/grl/tally", "192.0.2.1"),
                ("first", "delete", "live/sda", "example.com alice"),
                ("first", "delete", "live/quota", "alice"),
                ("first", "delete", "live/quota", "alice"),
            ],
        )
        self.assertNotIn("open sesame", str(await self.trail()))

    async def test_the_live_state_is_changed_without_the_database_and_a_remark_says_what_is_missing(self) -> None:
        async def fail(*_: object, **__: object) -> None:
            raise BookUnavailable("The database is unavailable.")

        self.patch(self.node.book, "add_to_audit", fail)
        answer = (await self.expect(200, "DELETE", "/live/grl/option_cache/example.com/")).json
        sentence = "This is done, but not in the audit trail: the database is unavailable."
        self.assertEqual([answer["response"], answer["remarks"]], ["deleted", [sentence]])

    async def test_of_many_ids_the_first_are_recorded(self) -> None:
        ids = list(range(1, 101))
        await self.expect(200, "DELETE", "/live/sda/", {"user_ids": ids, "domain_ids": [7]})
        [record] = await self.trail()
        self.assertEqual(record["after"], {
            "user_ids": ids[:20], "user_ids_total": 100, "domain_ids": [7], "email_ids": [],
        })  # fmt: skip

    async def test_reading_the_live_state_is_not_recorded(self) -> None:
        user = await self.create("users", name="alice")
        await self.expect(200, "GET", f"/live/quota/{user}/")
        await self.expect(200, "GET", "/live/sda/example.com/for/alice/")
        self.assertEqual(len(await self.trail()), 1)

    async def test_a_token_that_only_reads_sees_the_trail(self) -> None:
        reader = self.node.tokens.create("help desk", "read", 1.0)
        await self.expect(200, "GET", "/audit/", token=reader)
