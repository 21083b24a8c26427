"""Requests of a client written for CHAPPS, and the answers of CHAPPS."""

from __future__ import annotations

from tests.integration.test_rest_book import BookTestCase


class ReferenceClientTests(BookTestCase):
    async def test_a_user_created_with_quota_zero_has_none(self) -> None:
        for body in ({"name": "ann", "quota": 0}, {"user": {"name": "ben"}, "quota": 0, "domains": [], "emails": []}):
            answer = await self.expect(201, "POST", "/users/", body)
            self.assertEqual([answer.json[each] for each in ("quota", "domains", "emails")], [None, None, None])
            shown = await self.expect(200, "GET", f"/users/{answer.response['id']}/")
            self.assertEqual([shown.json[each] for each in ("quota", "domains", "emails")], [None, [], []])

    async def test_an_empty_list_changes_nothing_and_the_answer_says_what_does(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        email = await self.create("emails", name="a@example.org")
        user = await self.create("users", name="ann", quota=quota, domains=[domain], emails=[email])
        changed = {"user": {"id": user}, "quota": 0, "domains": [], "emails": []}
        answer = await self.expect(200, "PUT", "/users/", changed)
        self.assertEqual([answer.json[each] for each in ("quota", "domains", "emails")], [None, None, None])
        for path in ("quota", "domains", "emails"):
            [remark] = [each for each in answer.json["remarks"] if f"DELETE /users/{user}/{path}/" in each]
            self.assertIn("nothing", remark)
        shown = await self.expect(200, "GET", f"/users/{user}/")
        self.assertEqual(shown.json["quota"]["id"], quota)
        self.assertEqual([len(shown.json[each]) for each in ("domains", "emails")], [1, 1])
        for kind, singular, id in (("domains", "domain", domain), ("emails", "email", email)):
            answer = await self.expect(200, "PUT", f"/{kind}/", {singular: {"id": id}, "users": []})
            self.assertIsNone(answer.json["users"])
            self.assertIn(f"DELETE /{kind}/{id}/users/", answer.json["remarks"][0])
            self.assertEqual(len((await self.expect(200, "GET", f"/{kind}/{id}/users/")).response), 1)

    async def test_an_empty_list_of_users_is_null_when_something_is_created(self) -> None:
        for kind, name in (("domains", "example.com"), ("emails", "a@example.org")):
            answer = await self.expect(201, "POST", f"/{kind}/", {"name": name, "users": []})
            self.assertIsNone(answer.json["users"])
            self.assertEqual(answer.json["remarks"], [])

    async def test_maps_of_users_none_of_whom_exists_are_not_found(self) -> None:
        ann = await self.create("users", name="ann")
        for kind in ("quotas", "domains", "emails"):
            answer = await self.expect(404, "GET", f"/users/{kind}/", [ann + 1, ann + 2])
            self.assertIn(str(ann + 1), answer.detail)
            answer = await self.expect(200, "GET", f"/users/{kind}/", [ann, ann + 1])
            self.assertEqual(len(answer.response), 1)
            self.assertEqual((await self.expect(200, "GET", f"/users/{kind}/", [])).response, [])
