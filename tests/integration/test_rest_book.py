"""Users, domains, emails and quotas over a real socket."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from sqlalchemy import event, insert
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Settings
from chapps_tw.database.models import domains, users
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import BookUnavailable, Create
from chapps_tw.interfaces.state import Fresh, ValueKey
from chapps_tw.rest.routers import associations
from tests.support.rest_client import Answer, Node

ODD_NAMES = [
    "a/b",
    "50%",
    "%2F",
    "two words",
    "Jürgen",
    "名前",
    "12345",
    "a+b@example.com",
    "x?y#z",
    "quo\"te'",
    "..",
    "&=",
]


class BookTestCase(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    async def create(self, kind: str, **fields: Any) -> int:
        answer = await self.node.ask("POST", f"/{kind}/", fields)
        self.assertEqual(answer.status, 201, answer.body)
        return int(answer.response["id"])

    async def expect(self, status: int, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        answer = await self.node.ask(method, path, body, **more)
        self.assertEqual(answer.status, status, (method, path, answer.body))
        self.assertEqual(answer.headers["content-type"], "application/json")
        return answer


class ObjectTests(BookTestCase):
    async def test_each_kind_is_created_shown_listed_changed_and_deleted(self) -> None:
        for kind, singular, fields, change in (
            ("users", "user", {"name": "alice"}, {"name": "bob"}),
            (
                "domains", "domain",
                {"name": "example.com", "greylist": True, "check_spf": False, "each_quota": None, "pool_quota": None},
                {"check_spf": True},
            ),
            ("emails", "email", {"name": "a@example.com"}, {"name": "b@example.com"}),
            ("quotas", "quota", {"name": "basic", "quota": 100}, {"quota": 7}),
        ):  # fmt: skip
            created = await self.expect(201, "POST", f"/{kind}/", fields)
            id = created.response["id"]
            self.assertEqual(created.response, {"id": id, **fields})
            changed = await self.expect(200, "PUT", f"/{kind}/", {singular: {"id": id, **change}})
            self.assertEqual(changed.response, {"id": id, **fields, **change})
            shown = await self.expect(200, "GET", f"/{kind}/{id}/")
            self.assertEqual(shown.response, changed.response)
            listed = await self.expect(200, "GET", f"/{kind}/")
            self.assertEqual(listed.response, [changed.response])
            self.assertEqual((await self.expect(200, "DELETE", f"/{kind}/", [id])).response, "deleted")
            await self.expect(404, "GET", f"/{kind}/{id}")
            self.assertEqual((await self.expect(200, "GET", f"/{kind}")).response, [])

    async def test_the_envelope_has_version_and_time(self) -> None:
        answer = (await self.expect(200, "GET", "/users/")).json
        self.assertEqual(answer["version"], "CHAPPS-TW v0.0.test")
        self.assertApproximates(answer["timestamp"], time.time(), 10)

    async def test_a_user_is_shown_with_what_is_linked_to_it(self) -> None:
        quota = await self.create("quotas", name="basic", quota=100)
        domain = await self.create("domains", name="example.com")
        email = await self.create("emails", name="me@example.org")
        created = await self.expect(
            201, "POST", "/users/", {"name": "alice", "quota": quota, "domains": [domain], "emails": [email]}
        )
        shown = (await self.expect(200, "GET", f"/users/{created.response['id']}/")).json
        for answer in (created.json, shown):
            self.assertEqual(answer["quota"], {"id": quota, "name": "basic", "quota": 100})
            self.assertEqual([each["name"] for each in answer["domains"]], ["example.com"])
            self.assertEqual([each["name"] for each in answer["emails"]], ["me@example.org"])
        users = (await self.expect(200, "GET", f"/domains/{domain}")).json["users"]
        self.assertEqual(users, [{"id": created.response["id"], "name": "alice"}])

    async def test_the_wrapped_form_of_a_body_is_accepted_too(self) -> None:
        quota = await self.create("quotas", name="basic", quota=100)
        created = await self.expect(201, "POST", "/users/", {"user": {"name": "alice"}, "quota": quota})
        self.assertEqual(created.json["quota"]["id"], quota)
        flat = await self.expect(200, "PUT", "/users/", {"id": created.response["id"], "name": "bob"})
        self.assertEqual(flat.response["name"], "bob")
        wrapped = await self.expect(201, "POST", "/quotas/", {"quota": {"name": "big", "quota": 5}})
        self.assertEqual(wrapped.response["quota"], 5)
        await self.expect(422, "POST", "/users/", {"user": {"name": "carol", "color": "red"}})

    async def test_lists_given_to_put_replace_links_and_omitted_ones_are_null(self) -> None:
        first = await self.create("domains", name="one.example")
        second = await self.create("domains", name="two.example")
        email = await self.create("emails", name="me@example.org")
        user = await self.create("users", name="alice", domains=[first], emails=[email])
        changed = (await self.expect(200, "PUT", "/users/", {"user": {"id": user}, "domains": [second]})).json
        self.assertEqual([each["id"] for each in changed["domains"]], [second])
        self.assertIsNone(changed["emails"])
        self.assertIsNone(changed["quota"])
        shown = (await self.expect(200, "GET", f"/users/{user}/")).json
        self.assertEqual([each["id"] for each in shown["domains"]], [second])
        self.assertEqual([each["id"] for each in shown["emails"]], [email])

    async def test_a_name_that_is_taken_is_a_conflict(self) -> None:
        await self.create("users", name="alice")
        other = await self.create("users", name="bob")
        answer = await self.expect(409, "POST", "/users/", {"name": "alice"})
        self.assertEqual(answer.detail, "Unique key conflict creating user.")
        answer = await self.expect(409, "PUT", "/users/", {"user": {"id": other, "name": "alice"}})
        self.assertEqual(answer.detail, "Unique key conflict updating user.")

    async def test_errors_name_what_does_not_exist(self) -> None:
        user = await self.create("users", name="alice")
        for status, method, path, body, missing in (
            (404, "GET", "/domains/77/", None, "domain"),
            (404, "PUT", "/users/", {"user": {"id": 77, "name": "x"}}, "user"),
            (404, "PUT", "/users/77/emails/", [], "user"),
            (404, "GET", "/users/77/domains/", None, "user"),
            (409, "POST", "/users/", {"name": "x", "domains": [77]}, "domain"),
            (409, "PUT", f"/users/{user}/quota/77", None, "quota"),
            (409, "PUT", f"/users/{user}/emails/", [77], "email"),
        ):
            detail = (await self.expect(status, method, path, body)).detail
            self.assertEqual(detail, f"There is no {missing} with id 77.")
        self.assertEqual(len((await self.expect(200, "GET", "/users/")).response), 1)

    async def test_unusual_names_are_stored_unchanged_except_for_case(self) -> None:
        for name in map(str.lower, ODD_NAMES):
            id = await self.create("users", name=name.upper())
            self.assertEqual((await self.expect(200, "GET", f"/users/{id}")).response["name"], name)
            found = (await self.expect(200, "GET", f"/users/?q={quote(name, safe='')}")).response
            self.assertIn({"id": id, "name": name}, found)

    async def test_domains_and_addresses_are_stored_in_normal_form(self) -> None:
        domain = await self.expect(201, "POST", "/domains/", {"name": "BÜCHER.Example."})
        self.assertEqual(domain.response["name"], "xn--bcher-kva.example")
        email = await self.expect(201, "POST", "/emails/", {"name": "Me@BÜCHER.example"})
        self.assertEqual(email.response["name"], "me@xn--bcher-kva.example")
        user = await self.expect(201, "POST", "/users/", {"name": "Me@BÜCHER.example"})
        self.assertEqual(user.response["name"], "me@xn--bcher-kva.example")

    async def test_invalid_names_are_rejected(self) -> None:
        for kind, fields in (
            ("users", {"name": ""}),
            ("users", {"name": "x" * 129}),
            ("users", {"name": "a\nb"}),
            ("users", {"name": "a\x00b"}),
            ("users", {"name": 5}),
            ("users", {}),
            ("users", {"name": "a", "domains": [True]}),
            ("users", {"name": "a", "domains": [0]}),
            ("users", {"name": "a", "domains": [2**31]}),
            ("users", {"name": "a", "domains": "1"}),
            ("users", {"name": "a", "id": 1}),
            ("domains", {"name": "no domain"}),
            ("domains", {"name": "-a.example"}),
            ("domains", {"name": "a" * 64 + ".example"}),
            ("domains", {"name": ("a" * 60 + ".") * 5}),
            ("domains", {"name": "example.com", "greylist": 1}),
            ("emails", {"name": "example.com"}),
            ("emails", {"name": "@example.com"}),
            ("emails", {"name": "a@b@example.com"}),
            ("quotas", {"name": "q" * 33, "quota": 1}),
            ("quotas", {"name": "q", "quota": -1}),
            ("quotas", {"name": "q", "quota": 2**31}),
            ("quotas", {"name": "q", "quota": 1.5}),
            ("quotas", {"name": "q", "quota": True}),
        ):
            answer = await self.expect(422, "POST", f"/{kind}/", fields)
            self.assertEqual(set(answer.detail[0]), {"loc", "msg", "type"})

    async def test_names_that_are_almost_certainly_mistakes_are_rejected_with_a_sentence(self) -> None:
        space = "must not begin or end with white space"
        for kind, fields, sentence in (
            ("users", {"name": "robert "}, space),
            ("users", {"name": "\xa0robert"}, space),
            ("quotas", {"name": "basic ", "quota": 1}, space),
            ("domains", {"name": " example.com"}, space),
            ("emails", {"name": " joe@ex.com"}, space),
            ("emails", {"name": "joe@ex.com "}, space),
            ("emails", {"name": '" joe"@ex.com'}, space),
            (
                "emails",
                {"name": "a@b@ex.com"},
                "must have quotes around the part before the last @, since it contains another @",
            ),
            ("users", {"name": "İ" * 128}, "must be a name of at most 128 characters in its stored form"),
            ("emails", {"name": "İ" * 160 + "@ex.com"}, "must be a mail address"),
            ("emails", {"name": "a@1.2.3.4"}, "must be a mail address"),
            ("domains", {"name": "1.2.3.4"}, "must be a domain name"),
            ("domains", {"name": "xn--zzzz"}, "must be a domain name"),
        ):
            answer = await self.expect(422, "POST", f"/{kind}/", fields)
            self.assertEqual([fault["msg"] for fault in answer.detail], [sentence], fields)
        user = await self.create("users", name="robert")
        await self.expect(422, "PUT", "/users/", {"id": user, "name": "robert "})
        await self.expect(422, "GET", "/live/grl/tally/1.2.3")
        for client in ("192.0.2.1", "2001:db8::1", "example.com"):
            await self.expect(200, "GET", f"/live/grl/tally/{client}")

    async def test_a_user_whose_stored_name_ends_with_a_space_can_be_queried_and_renamed(self) -> None:
        with self.node.book._engine.begin() as connection:
            connection.execute(insert(users), {"id": 5, "name": "robert "})
        await self.expect(200, "GET", "/live/quota/0?name=robert%20")
        self.assertEqual((await self.expect(200, "PUT", "/users/", {"id": 5, "name": "robert"})).response["id"], 5)

    async def test_an_address_is_stored_without_the_quotes_that_postfix_removes(self) -> None:
        created = await self.expect(201, "POST", "/emails/", {"name": '"a b"@q.example'})
        self.assertEqual(created.response["name"], "a b@q.example")
        await self.expect(409, "POST", "/emails/", {"name": "a b@q.example"})
        await self.expect(200, "PUT", "/emails/", {"email": created.response})
        created = await self.expect(201, "POST", "/emails/", {"name": '"A@b"@q.example'})
        self.assertEqual(created.response["name"], "a@b@q.example")

    async def test_a_domain_that_exists_in_another_spelling_is_a_conflict(self) -> None:
        with self.node.book._engine.begin() as connection:
            connection.execute(insert(domains), {"name": "UPPER.Example", "greylist": False, "check_spf": False})
        answer = await self.expect(409, "POST", "/domains/", {"name": "upper.example"})
        self.assertEqual(answer.detail, "Unique key conflict creating domain.")
        self.assertEqual(answer.json["remarks"], ["A domain named UPPER.Example exists already."])

    async def test_location_is_the_path_of_the_new_entry(self) -> None:
        for kind, fields in (("users", {"name": "alice"}), ("domains", {"name": "example.com"})):
            answer = await self.expect(201, "POST", f"/{kind}/", fields)
            self.assertEqual(answer.headers["location"], f"/{kind}/{answer.response['id']}/")
            await self.expect(200, "GET", answer.headers["location"])
        self.assertNotIn("location", (await self.expect(200, "GET", "/users/")).headers)
        document = (await self.expect(200, "GET", "/openapi.json")).json
        self.assertIn("Location", document["paths"]["/users/"]["post"]["responses"]["201"]["headers"])

    async def test_a_deletion_reports_how_many_users_are_affected(self) -> None:
        quota, unused = [await self.create("quotas", name=f"q{n}", quota=n) for n in (1, 2)]
        first, second = [await self.create("domains", name=f"d{n}.example") for n in (1, 2)]
        email = await self.create("emails", name="a@example.com")
        alice = await self.create("users", name="alice", quota=quota, domains=[first, second], emails=[email])
        bob = await self.create("users", name="bob", quota=quota, domains=[first])
        for path, ids, remarks in (
            ("/quotas/", [unused], []),
            ("/quotas/", [quota], ["2 users have no own quota now; without another, nothing may be sent."]),
            ("/domains/", [first, second], ["2 users may no longer send from there, unless another link allows it."]),
            ("/emails/", [email], ["1 user may no longer send from there, unless another link allows it."]),
            ("/users/", [alice, bob], []),
        ):
            answer = await self.expect(200, "DELETE", path, ids)
            self.assertEqual(answer.json.get("remarks", []), remarks, path)

    async def test_a_change_is_atomic(self) -> None:
        user = await self.create("users", name="alice")
        await self.expect(409, "PUT", "/users/", {"user": {"id": user, "name": "bob"}, "domains": [77]})
        self.assertEqual((await self.expect(200, "GET", f"/users/{user}")).response["name"], "alice")


class LinkTests(BookTestCase):
    async def test_links_are_added_listed_and_removed_from_either_side(self) -> None:
        user = await self.create("users", name="alice")
        for other, names in (("domains", ["a.example", "b.example"]), ("emails", ["a@x.example", "b@x.example"])):
            first, second = [await self.create(other, name=name) for name in names]
            path = f"/users/{user}/{other}/"
            self.assertEqual((await self.expect(200, "PUT", path, [first])).response, "Updated.")
            self.assertEqual((await self.expect(200, "PUT", path, [first, second])).response, "Updated.")
            listed = (await self.expect(200, "GET", path)).response
            self.assertEqual([each["id"] for each in listed], [first, second])
            self.assertEqual((await self.expect(200, "GET", f"/{other}/{first}/users/")).response[0]["id"], user)
            await self.expect(200, "DELETE", path, [first, 77])
            await self.expect(200, "DELETE", f"/{other}/{second}/users/?user_ids={user}")
            self.assertEqual((await self.expect(200, "GET", path)).response, [])
            await self.expect(200, "PUT", f"/{other}/{second}/users/", [user])
            self.assertEqual((await self.expect(200, "GET", path)).response[0]["id"], second)

    async def test_the_users_of_a_quota_are_listed_searched_and_paged(self) -> None:
        quota, other = [await self.create("quotas", name=name, quota=10) for name in ("basic", "other")]
        wanted = [
            {"id": await self.create("users", name=f"user{n}", quota=quota), "name": f"user{n}"} for n in range(4)
        ]
        await self.create("users", name="user9", quota=other)
        path = f"/quotas/{quota}/users/"
        self.assertEqual((await self.expect(200, "GET", path)).response, wanted)
        self.assertEqual((await self.expect(200, "GET", path + "?skip=1&limit=2")).response, wanted[1:3])
        self.assertEqual((await self.expect(200, "GET", path + "?q=R3")).response, wanted[3:])
        self.assertEqual((await self.expect(404, "GET", "/quotas/77/users/")).detail, "There is no quota with id 77.")
        await self.expect(405, "PUT", path, [1])

    async def test_the_quota_of_a_user_is_replaced(self) -> None:
        small = await self.create("quotas", name="small", quota=1)
        big = await self.create("quotas", name="big", quota=1000)
        user = await self.create("users", name="alice", quota=small)
        self.assertEqual((await self.expect(200, "PUT", f"/users/{user}/quota/{big}")).response, "Updated.")
        self.assertEqual((await self.expect(200, "GET", f"/users/{user}")).json["quota"]["id"], big)

    async def test_a_quota_is_removed_from_one_user_only(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        alice = await self.create("users", name="alice", quota=quota, domains=[domain])
        bob = await self.create("users", name="bob", quota=quota)
        first = (await self.expect(200, "DELETE", f"/users/{alice}/quota/")).json
        self.assertEqual(first["response"], "Updated.")
        self.assertEqual(first["remarks"], [])
        shown = (await self.expect(200, "GET", f"/users/{alice}")).json
        self.assertIsNone(shown["quota"])
        self.assertEqual([each["id"] for each in shown["domains"]], [domain])
        self.assertEqual((await self.expect(200, "GET", f"/users/{bob}")).json["quota"]["id"], quota)
        again = (await self.expect(200, "DELETE", f"/users/{alice}/quota")).json
        self.assertEqual([again["response"], again["remarks"]], ["Updated.", ["User alice had no quota."]])
        missing = await self.expect(404, "DELETE", "/users/77/quota/")
        self.assertEqual(missing.detail, "There is no user with id 77.")
        await self.expect(422, "DELETE", f"/users/{alice}/quota/", [quota])
        await self.expect(405, "GET", f"/users/{alice}/quota/")

    async def test_maps_of_several_users_by_body_and_by_query(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        email = await self.create("emails", name="a@example.com")
        alice = await self.create("users", name="alice", quota=quota, domains=[domain], emails=[email])
        bob = await self.create("users", name="bob")
        for path, key, one, none in (
            ("/users/quotas/", "quota_id", quota, None),
            ("/users/domains/", "domain_ids", [domain], []),
            ("/users/emails/", "email_ids", [email], []),
        ):
            wanted = [{"user_name": "alice", key: one}, {"user_name": "bob", key: none}]
            by_body = (await self.expect(200, "GET", path, [alice, bob, 77])).json
            by_query = (await self.expect(200, "GET", f"{path}?user_ids={alice}&user_ids={bob}")).json
            self.assertEqual([by_body["response"], by_query["response"]], [wanted, wanted])
            self.assertEqual(by_body["remarks"], ["There is no user with id 77."])
            await self.expect(422, "GET", path)

    async def test_users_without_a_quota_are_left_out_of_the_map_when_asked_for(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        alice = await self.create("users", name="alice", quota=quota)
        bob = await self.create("users", name="bob")
        path = f"/users/quotas/?user_ids={alice}&user_ids={bob}"
        for given, names in (
            ("", ["alice", "bob"]), ("&nulls=1", ["alice", "bob"]), ("&nulls=true", ["alice", "bob"]),
            ("&nulls=0", ["alice"]), ("&nulls=false", ["alice"]),
        ):  # fmt: skip
            found = (await self.expect(200, "GET", path + given)).response
            self.assertEqual([each["user_name"] for each in found], names, given)
        found = (await self.expect(200, "GET", "/users/quotas/?nulls=0", [alice, bob])).response
        self.assertEqual(found, [{"user_name": "alice", "quota_id": quota}])
        for given in ("", "2", "null", "yes"):
            await self.expect(422, "GET", f"{path}&nulls={given}")
        await self.expect(422, "GET", f"/users/domains/?user_ids={alice}&nulls=0")
        document = (await self.expect(200, "GET", "/openapi.json")).json
        names = [each["name"] for each in document["paths"]["/users/quotas/"]["get"]["parameters"]]
        self.assertEqual(names, ["user_ids", "nulls"])

    async def test_lists_are_searched_and_paged(self) -> None:
        ids = [await self.create("users", name=name) for name in ("ann", "a_n", "a%n", "bob", "anna")]
        listed = (await self.expect(200, "GET", "/users/?q=_")).response
        self.assertEqual([each["name"] for each in listed], ["a_n"])
        listed = (await self.expect(200, "GET", "/users/?q=%25")).response
        self.assertEqual([each["name"] for each in listed], ["a%n"])
        listed = (await self.expect(200, "GET", "/users?skip=1&limit=2")).response
        self.assertEqual([each["id"] for each in listed], ids[1:3])
        domain = await self.create("domains", name="example.com", users=ids)
        listed = (await self.expect(200, "GET", f"/domains/{domain}/users/?q=ann&skip=1")).response
        self.assertEqual([each["name"] for each in listed], ["anna"])

    async def test_all_entries_that_match_are_counted_on_request(self) -> None:
        names = [f"{name}.example" for name in ("a", "ab", "abc", "b")]
        domains = [await self.create("domains", name=name) for name in names]
        user = await self.create("users", name="alice", domains=domains[:2])
        for path, total in (
            ("/domains/?total=1&limit=1", 4), ("/domains/?total=1&q=a", 4), ("/domains/?total=1&q=ab", 2),
            ("/domains/?total=1&limit=4", 4), ("/domains/?total=1&limit=3&skip=3", 4), ("/domains/?total=1&skip=9", 4),
            ("/domains/?total=1&q=none", 0), (f"/users/{user}/domains/?total=1&skip=9", 2), ("/domains/", None),
        ):  # fmt: skip
            self.assertEqual((await self.expect(200, "GET", path)).json["total"], total, path)

    async def test_a_list_longer_than_a_slice_is_whole(self) -> None:
        for number in range(450):
            await self.node.book.change(Create("users", {"name": f"user{number}"}))
        answer = await self.expect(200, "GET", "/users/")
        self.assertEqual([each["name"] for each in answer.response], [f"user{n}" for n in range(450)])
        self.assertIn("timestamp", answer.json)


class AssociationTests(BookTestCase):
    """What is nested in the entries of a list, if ``with`` names it."""

    async def fill(self) -> None:
        self.quota = await self.create("quotas", name="basic", quota=10)
        limit = {"name": "hour", "amount": 5, "window": "1h"}
        self.limit = (await self.expect(201, "POST", f"/quotas/{self.quota}/limits/", limit)).response
        self.domain = await self.create("domains", name="example.com", greylist=True)
        self.email = await self.create("emails", name="a@example.org")
        self.alice = await self.create(
            "users", name="alice", quota=self.quota, domains=[self.domain], emails=[self.email]
        )
        self.bob = await self.create("users", name="bob")

    async def listed(self, path: str) -> Any:
        return (await self.expect(200, "GET", path)).response

    async def test_what_is_named_is_nested_in_each_entry(self) -> None:
        await self.fill()
        quota = {"id": self.quota, "name": "basic", "quota": 10}
        domain = {"id": self.domain, "name": "example.com", "greylist": True, "check_spf": False}
        email = {"id": self.email, "name": "a@example.org"}
        alice, bob = {"id": self.alice, "name": "alice"}, {"id": self.bob, "name": "bob"}
        of_domain = {"each_quota": None, "pool_quota": None}
        everything = {"quota": quota, "domains": [domain], "emails": [email]}
        for path, wanted in (
            (
                "/users/?with=quota,domains,emails",
                [{**alice, **everything}, {**bob, "quota": None, "domains": [], "emails": []}],
            ),
            ("/users/?with=domains&q=b", [{**bob, "domains": []}]),
            ("/domains/?with=users", [{**domain, **of_domain, "users": [alice]}]),
            ("/emails/?with=users,users", [{**email, "users": [alice]}]),
            ("/quotas/?with=limits,users", [{**quota, "limits": [self.limit], "users": [alice]}]),
            (f"/users/{self.alice}/domains/?with=users", [{**domain, **of_domain, "users": [alice]}]),
            (f"/users/{self.alice}/emails/?with=users", [{**email, "users": [alice]}]),
            (f"/domains/{self.domain}/users/?with=quota", [{**alice, "quota": quota}]),
            (f"/emails/{self.email}/users/?with=emails", [{**alice, "emails": [email]}]),
            (f"/quotas/{self.quota}/users/?with=quota%2Cdomains", [{**alice, "quota": quota, "domains": [domain]}]),
            ("/users/", [alice, bob]),
        ):
            self.assertEqual(await self.listed(path), wanted, path)

    async def test_a_name_of_no_association_is_a_422(self) -> None:
        for path, sentence in (
            ("/users/?with=quotas", "must be names of quota, domains, emails, separated by commas"),
            ("/users/?with=quota,", "must be names of quota, domains, emails, separated by commas"),
            ("/users/?with=", "must be names of quota, domains, emails, separated by commas"),
            ("/domains/?with=quota", "must be names of users, separated by commas"),
            ("/limits/?with=quota", "is not a known parameter"),
        ):
            [fault] = (await self.expect(422, "GET", path)).detail
            self.assertEqual((fault["loc"], fault["msg"]), (["query", "with"], sentence))

    async def test_a_page_takes_one_query_for_each_association(self) -> None:
        await self.fill()
        for number in range(30):
            await self.create("users", name=f"user{number}", quota=self.quota, domains=[self.domain])
        queries: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            queries.extend([statement] if statement.startswith("SELECT") else [])

        event.listen(self.node.engine, "before_cursor_execute", note)
        await self.listed("/users/")
        alone = len(queries)
        await self.listed("/users/?with=quota,domains,emails")
        self.assertEqual(len(queries) - alone, alone + 3)

    async def test_what_would_nest_too_much_is_refused_with_the_remedy(self) -> None:
        self.patch(associations, "MAX_NESTED", 3)
        quota = await self.create("quotas", name="basic", quota=10)
        for number in range(4):
            await self.create("users", name=f"user{number}", quota=quota)
            limit = {"name": f"limit{number}", "amount": 5, "window": "1h"}
            await self.expect(201, "POST", f"/quotas/{quota}/limits/", limit)
        for name in ("users", "limits"):
            [fault] = (await self.expect(422, "GET", f"/quotas/?with={name}")).detail
            wanted = f"would nest more than 3 {name}: use a smaller limit, or GET /quotas/ID/{name}/"
            self.assertEqual(fault["msg"], wanted)
        self.assertEqual(len(await self.listed("/users/?with=quota&limit=3")), 3)
        await self.expect(422, "GET", "/users/?with=quota")


class NewUserTests(BookTestCase):
    """A new user who may send nothing: the answer says what is missing."""

    async def missing(self, name: str, **links: Any) -> list[str]:
        """Return what the remarks name of what is missing."""
        answer = await self.expect(201, "POST", "/users/", {"name": name, **links})
        remarks = answer.json["remarks"]
        self.assertTrue(all(each.startswith(f"User {name} may send nothing yet, with no ") for each in remarks))
        return [each.partition(" with no ")[2].partition(" ")[0].strip(":") for each in remarks]

    def use_other(self, **options: Any) -> None:
        """Continue with a service that has other settings."""
        settings = Settings()
        oqp = replace(settings.oqp, default_quota=options.get("default_quota", ""))
        sda = replace(settings.sda, own_address=options.get("own_address", False))
        self.node = Node(replace(settings, oqp=oqp, sda=sda))
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_what_a_user_lacks_is_named(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        email = await self.create("emails", name="a@example.org")
        for name, links, missing in (
            ("a", {}, ["quota", "domain"]),
            ("b", {"quota": quota}, ["domain"]),
            ("c", {"domains": [domain]}, ["quota"]),
            ("d", {"quota": quota, "domains": [domain]}, []),
            ("e", {"quota": quota, "emails": [email]}, []),
            ("f@example.com", {"quota": 0, "domains": []}, ["quota", "domain"]),
        ):
            self.assertEqual(await self.missing(name, **links), missing, name)

    async def test_the_sentences_have_the_remedy(self) -> None:
        answer = await self.expect(201, "POST", "/users/", {"name": "alice"})
        self.assertEqual(
            answer.json["remarks"],
            [
                "User alice may send nothing yet, with no quota: set one (chapps-cli set-quota, or "
                "PUT /users/1/quota/ID).",
                "User alice may send nothing yet, with no domain and no address to send from: add some "
                "(chapps-cli allow, or PUT /users/1/domains/ or PUT /users/1/emails/).",
            ],
        )

    async def test_the_quota_of_a_domain_is_enough(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com", each_quota=quota)
        email = await self.create("emails", name="a@example.com")
        other = await self.create("domains", name="example.org")
        for name, links, missing in (
            ("a@example.com", {}, ["domain"]),
            ("a", {"domains": [domain]}, []),
            ("b", {"emails": [email]}, []),
            ("c", {"domains": [other]}, ["quota"]),
            ("c@example.org", {"domains": [domain]}, ["quota"]),
        ):
            self.assertEqual(await self.missing(name, **links), missing, name)

    async def test_settings_that_let_everybody_send_are_heeded(self) -> None:
        self.use_other(default_quota="basic", own_address=True)
        self.assertEqual(await self.missing("a@example.com"), ["quota"])
        await self.create("quotas", name="basic", quota=10)
        self.assertEqual(await self.missing("b@example.com"), [])
        self.assertEqual(await self.missing("b"), ["domain"])

    async def test_a_user_is_created_even_if_that_cannot_be_found_out(self) -> None:
        def fail(*_: Any) -> Any:
            raise BookUnavailable("The database is unavailable.")

        self.patch(self.node.book, "by_names", fail)
        answer = await self.expect(201, "POST", "/users/", {"name": "alice@example.com"})
        self.assertEqual(answer.json["remarks"], [])


class InForceTests(BookTestCase):
    """Each change invalidates the cached values that it makes stale."""

    async def cache(self, *keys: ValueKey) -> None:
        found = await self.node.state.values(keys)
        fresh = [Fresh(key, "text", each.token) for key, each in zip(keys, found, strict=True)]
        await self.node.state.keep_values(fresh, 1000.0)
        self.assertEqual(await self.cached(*keys), [True] * len(keys))

    async def cached(self, *keys: ValueKey) -> list[bool]:
        return [each.value is not None for each in await self.node.state.values(keys)]

    async def test_a_changed_quota_is_in_effect_whoever_has_it(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        other = await self.create("quotas", name="other", quota=11)
        await self.create("users", name="alice", quota=quota)
        keys = (value_keys.plan(quota), value_keys.plan_named("basic"), value_keys.plan(other))
        await self.cache(*keys)
        await self.expect(200, "PUT", "/quotas/", {"quota": {"id": quota, "quota": 20}})
        self.assertEqual(await self.cached(*keys), [False, False, True])

    async def test_a_changed_limit_of_a_quota_is_in_effect(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        key, path = value_keys.plan(quota), f"/quotas/{quota}/limits/"
        await self.cache(key)
        limit = (await self.expect(201, "POST", path, {"name": "hour", "amount": 5, "window": "1h"})).response["id"]
        self.assertEqual(await self.cached(key), [False])
        await self.cache(key)
        await self.expect(200, "PUT", f"/limits/{limit}/", {"amount": 6})
        self.assertEqual(await self.cached(key), [False])
        await self.cache(key)
        await self.expect(200, "DELETE", f"/limits/{limit}/")
        self.assertEqual(await self.cached(key), [False])

    async def test_the_quotas_of_a_domain_are_in_effect(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        keys = (value_keys.domain_plan("example.com"), value_keys.domain_plan("other.example"))
        for change in ({"each_quota": quota}, {"pool_quota": quota}, {"each_quota": 0}):
            await self.cache(*keys)
            await self.expect(200, "PUT", "/domains/", {"id": domain, **change})
            self.assertEqual(await self.cached(*keys), [False, True], change)

    async def test_an_override_is_in_effect_and_ends_at_once(self) -> None:
        await self.create("users", name="alice")
        await self.create("domains", name="example.com")
        for about, key in (
            ({"user": "alice"}, value_keys.user_plan("alice")),
            ({"domain": "example.com"}, value_keys.domain_plan("example.com")),
        ):
            await self.cache(key)
            new = {**about, "kind": "unlimited", "until": "1d"}
            id = (await self.expect(201, "POST", "/overrides/", new)).response["id"]
            self.assertEqual(await self.cached(key), [False], about)
            await self.cache(key)
            await self.expect(200, "DELETE", f"/overrides/{id}/")
            self.assertEqual(await self.cached(key), [False], about)

    async def test_an_exemption_is_in_effect_and_ends_at_once(self) -> None:
        await self.cache(value_keys.EXEMPTIONS)
        new = {"kind": "client", "value": "192.0.2.0/24", "scope": "spf", "until": "1d"}
        id = (await self.expect(201, "POST", "/exemptions/", new)).response["id"]
        self.assertEqual(await self.cached(value_keys.EXEMPTIONS), [False])
        await self.cache(value_keys.EXEMPTIONS)
        await self.expect(200, "DELETE", f"/exemptions/?exemption_ids={id}")
        self.assertEqual(await self.cached(value_keys.EXEMPTIONS), [False])

    async def test_a_replaced_quota_is_in_effect(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        user = await self.create("users", name="alice")
        await self.cache(value_keys.user_plan("alice"))
        await self.expect(200, "PUT", f"/users/{user}/quota/{quota}")
        self.assertEqual(await self.cached(value_keys.user_plan("alice")), [False])

    async def test_a_removed_quota_is_in_effect(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        user = await self.create("users", name="alice", quota=quota)
        await self.create("users", name="bob", quota=quota)
        keys = (value_keys.user_plan("alice"), value_keys.user_plan("bob"))
        await self.cache(*keys)
        await self.expect(200, "DELETE", f"/users/{user}/quota/")
        self.assertEqual(await self.cached(*keys), [False, True])

    async def test_a_removed_domain_is_in_effect_and_leaves_other_verdicts(self) -> None:
        domain = await self.create("domains", name="example.com")
        user = await self.create("users", name="alice", domains=[domain])
        keys = (value_keys.sender("alice", "example.com"), value_keys.sender("alice", "other.example"))
        await self.cache(*keys)
        await self.expect(200, "DELETE", f"/users/{user}/domains/", [domain])
        self.assertEqual(await self.cached(*keys), [False, True])

    async def test_a_deleted_user_is_in_effect(self) -> None:
        quota = await self.create("quotas", name="basic", quota=10)
        domain = await self.create("domains", name="example.com")
        user = await self.create("users", name="alice", quota=quota, domains=[domain])
        keys = (value_keys.user_plan("alice"), value_keys.sender("alice", "example.com"))
        await self.cache(*keys)
        await self.expect(200, "DELETE", "/users/", [user])
        self.assertEqual(await self.cached(*keys), [False, False])

    async def test_changed_flags_of_a_domain_are_in_effect(self) -> None:
        domain = await self.create("domains", name="example.com")
        key = value_keys.check_spf("example.com")
        await self.cache(key)
        await self.expect(200, "PUT", "/domains/", {"domain": {"id": domain, "check_spf": True}})
        self.assertEqual(await self.cached(key), [False])
