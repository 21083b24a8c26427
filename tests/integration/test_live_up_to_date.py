"""``/live/quota`` shows the limit that is enforced, also after the database was changed by hand."""

from __future__ import annotations

from tests.integration.test_rest_live import LiveTestCase
from tests.support.cached_values import quota_number


class UpToDateTests(LiveTestCase):
    async def test_a_limit_that_is_not_the_books_any_more_is_read_again(self) -> None:
        quota = await self.create("quotas", name="basic", quota=50)
        alice = await self.create("users", name="alice", quota=quota)
        for number, (path, body) in enumerate([(f"/live/quota/{alice}", None), ("/live/quota/", [alice])]):
            # With the limit of the book before a manual UPDATE.
            await self.send("alice", 1, 5, f"i{number}")
            told = (await self.expect(200, "GET", path, body)).json
            found = (await quota_number(self.node.state, "alice"), await self.used("alice"))
            self.assertEqual(found, (50, number + 1))
            if body is None:
                self.assertIn("The cached limit was 5; the quota of 50 applies now.", told["remarks"])

    async def test_a_copy_of_a_quota_that_was_taken_away_is_dropped(self) -> None:
        bob = await self.create("users", name="bob")
        await self.send("bob", 1, 5)
        self.assertEqual((await self.expect(200, "GET", f"/live/quota/{bob}")).response, 0)
        self.assertIsNone(await quota_number(self.node.state, "bob"))

    async def test_a_copy_that_holds_is_left_alone(self) -> None:
        quota = await self.create("quotas", name="basic", quota=5)
        alice = await self.create("users", name="alice", quota=quota)
        await self.send("alice", 1, 5)
        await self.expect(200, "GET", f"/live/quota/{alice}")
        self.assertEqual(await quota_number(self.node.state, "alice"), 5)
