"""How requests are read: guesses, requests of scripts, and forbidden attempts."""

from __future__ import annotations

from tests.integration.test_rest_book import BookTestCase


class RequestTests(BookTestCase):
    async def test_a_host_header_may_have_a_port_and_nothing_else(self) -> None:
        for host, status in (
            ("localhost", 200),
            ("localhost:8080", 200),
            ("localhost:", 200),
            ("[::1]:8080", 200),
            ("localhost:evil.example", 403),
            ("localhost:80:evil.example", 403),
            ("[::1].evil.example", 403),
            ("[::1", 403),
            ("localhost@evil.example", 403),
            ("evil.example@localhost", 403),
            ("localhost/evil.example", 403),
        ):
            answer = await self.node.ask("GET", "/health", headers={"Host": host})
            self.assertEqual((host, answer.status), (host, status))
            origin = {"Origin": f"http://{host}"}
            self.assertEqual((await self.node.ask("GET", "/health", headers=origin)).status, status, host)

    async def test_one_object_is_deleted_by_its_path(self) -> None:
        for kind, fields in (
            ("users", {"name": "ann"}),
            ("domains", {"name": "example.com"}),
            ("emails", {"name": "a@example.org"}),
            ("quotas", {"name": "basic", "quota": 1}),
        ):
            id = await self.create(kind, **fields)
            self.assertEqual((await self.expect(200, "DELETE", f"/{kind}/{id}")).response, "deleted")
            await self.expect(404, "GET", f"/{kind}/{id}")
            await self.expect(404, "DELETE", f"/{kind}/{id}")

    async def test_the_error_for_a_name_in_place_of_an_id_says_how_to_find_the_id(self) -> None:
        for method in ("GET", "DELETE"):
            [fault] = (await self.expect(422, method, "/users/erin@example.com")).detail
            self.assertEqual(fault["loc"], ["path", "id"])
            self.assertIn("GET /users/by-name/", fault["msg"])
        await self.expect(405, "DELETE", "/users/domains/")

    async def test_all_unknown_fields_are_reported_at_once(self) -> None:
        for method, path, body, where in (
            ("POST", "/users/", {"nam": "ann", "quta": 1, "name": "ann"}, "body"),
            ("POST", "/users/", {"user": {"name": "ann", "nam": 1, "quta": 2}}, "body"),
            ("GET", "/users/?nam=ann&quta=1", None, "query"),
        ):
            faults = (await self.expect(422, method, path, body)).detail
            self.assertEqual([fault["loc"][-1] for fault in faults], ["nam", "quta"])
            self.assertEqual({fault["loc"][0] for fault in faults}, {where})

    async def test_missing_fields_are_located_where_they_belong(self) -> None:
        faults = (await self.expect(422, "GET", "/live/grl/tuple/")).detail
        self.assertEqual(
            [fault["loc"] for fault in faults], [["query", n] for n in ("client_address", "sender", "recipient")]
        )
        for path in ("/users/quotas/", "/live/quota/"):
            self.assertEqual((await self.expect(422, "GET", path)).detail[0]["loc"], ["query", "user_ids"])
        self.assertEqual((await self.expect(422, "GET", "/live/grl/tuple/", {})).detail[0]["loc"][0], "body")
        self.assertEqual((await self.expect(422, "POST", "/users/", {"quota": 0})).detail[0]["loc"], ["body", "name"])

    async def test_the_root_redirects_to_the_page(self) -> None:
        answer = await self.node.ask("GET", "/", token="")
        self.assertEqual((answer.status, answer.headers["location"]), (307, "/docs"))

    async def test_json_ends_with_a_newline(self) -> None:
        for path in ("/users/", "/users/1", "/nothing", "/openapi.json", "/"):
            answer = await self.node.ask("GET", path)
            self.assertEqual(answer.body[-2:], b"}\n", path)
        self.assertTrue((await self.node.send_raw(b"NONSENSE\r\n\r\n")).endswith(b"}\n"))

    async def test_decisions_are_searched_by_domain_and_network_or_the_search_is_refused(self) -> None:
        for query in (
            "sender=partner.example",
            "client=203.0.113.0/24",
            "client=unknown",
            "client=2001:db8::1",
            "sender=",
        ):
            await self.expect(200, "GET", f"/live/decisions/?{query}")
        self.assertEqual(self.node.searched[1], {"client": "203.0.113.0/24"})
        for client in ("203.0.113", "203.0.113.0/33", "partner.example", "1.2.3.4/x"):
            [fault] = (await self.expect(422, "GET", f"/live/decisions/?client={client}")).detail
            self.assertEqual(fault["loc"], ["query", "client"])

    async def test_explain_suggests_the_attribute_names_of_postfix(self) -> None:
        [fault] = (await self.expect(422, "POST", "/live/explain/", {"user": "ann", "ip": "192.0.2.1"})).detail
        self.assertIn("user (use sasl_username)", fault["msg"])
        self.assertIn("ip (use client_address)", fault["msg"])
        self.assertEqual(self.node.explained, [])
