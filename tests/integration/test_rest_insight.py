"""Explanations, decisions, metrics, health and the OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema_rs
from twisted.trial.unittest import TestCase

from chapps_tw.config.settings import Chapps, Settings
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest, parse_attributes
from chapps_tw.observe.decision_record import record_of
from chapps_tw.observe.decision_ring import MAX_DECISIONS, DecisionRing
from tests.support.decisions import entry
from tests.support.rest_client import Node

REQUEST = {
    "request": "smtpd_access_policy",
    "protocol_state": "RCPT",
    "sasl_username": "alice",
    "sender": "alice@example.com",
    "recipient": "bob@example.org",
    "client_address": "192.0.2.7",
    "instance": "1a2b.3c",
}


DECISION = Decision("REJECT no", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": 5, "used": 5})


class InsightTestCase(TestCase):
    settings = Settings()

    def setUp(self) -> None:
        self.node = Node(self.settings)
        self.node.start()
        self.addCleanup(self.node.stop)

    def decide(self) -> None:
        self.node.records = [record_of("outbound", "alice", PolicyRequest(REQUEST), DECISION, 1.5)]


class ExplainTests(InsightTestCase):
    async def test_a_request_is_explained_as_object_and_as_text(self) -> None:
        self.decide()
        text = "".join(f"{name}={value}\n" for name, value in REQUEST.items()).encode()
        for body, headers in (
            (REQUEST, {}),
            (text, {"Content-Type": "text/plain"}),
            (text + b"\n", {"Content-Type": "text/plain; charset=utf-8"}),
        ):
            answer = await self.node.ask("POST", "/live/explain/?listener=outbound", body, headers=headers)
            self.assertEqual(answer.status, 200, answer.body)
            [record] = answer.response
            self.assertEqual((record["reason"], record["figures"]), ("quota_exceeded", {"limit": 5, "used": 5}))
        self.assertEqual(self.node.explained, [("outbound", REQUEST)] * 3)

    async def test_the_listener_may_be_omitted(self) -> None:
        self.assertEqual((await self.node.ask("POST", "/live/explain", REQUEST)).status, 200)
        self.assertEqual(self.node.explained, [("", REQUEST)])

    async def test_an_unknown_listener_is_named(self) -> None:
        answer = await self.node.ask("POST", "/live/explain/?listener=nowhere", REQUEST)
        self.assertEqual((answer.status, answer.detail), (404, "There is no listener nowhere."))

    async def test_input_that_is_not_a_policy_request_is_rejected(self) -> None:
        text = {"Content-Type": "text/plain"}
        for body, headers, status in (
            (b"no request", text, 400),
            (b"x=1\n" * 300, text, 400),
            (b"", text, 400),
            ({"sender": 5}, {}, 422),
            ({"sender": "a\nb=c"}, {}, 422),
            ({}, {}, 422),
            ([], {}, 422),
            ("x", {}, 422),
        ):
            answer = await self.node.ask("POST", "/live/explain/", body, headers=headers)
            self.assertEqual(answer.status, status, (body, answer.body))

    async def test_the_answer_for_postfix_is_returned_with_all_decisions(self) -> None:
        within = Decision("DUNNO", Reason.AUTHORIZED_DOMAIN, "SenderDomainAuthPolicy")
        request = PolicyRequest(REQUEST)
        self.decide()
        self.node.records.insert(0, record_of("outbound", "alice", request, within, 1.5))
        answer = (await self.node.ask("POST", "/live/explain/", REQUEST)).json
        self.assertEqual((answer["answer"], answer["remarks"]), (answer["response"][1], []))
        refused = within._replace(action="REJECT no", reason=Reason.SENDER_NOT_AUTHORIZED)
        self.node.records.append(record_of("outbound", "alice", request, refused, 1.5))
        self.node.records.append(self.node.records[0])
        self.node.sent = 2
        answer = (await self.node.ask("POST", "/live/explain/", REQUEST)).json
        self.assertEqual(answer["answer"], answer["response"][2])
        remark = "Postfix would get the answer of SenderDomainAuthPolicy. Policies not run: SenderDomainAuthPolicy."
        self.assertEqual(answer["remarks"], [remark])

    async def test_the_protocol_state_is_validated_and_rcpt_by_default(self) -> None:
        without = {name: value for name, value in REQUEST.items() if name != "protocol_state"}
        missing = "protocol_state is missing: RCPT is assumed."
        for given, state, remarks in (
            ({}, "RCPT", [missing]),
            ({"protocol_state": ""}, "RCPT", [missing]),
            ({"protocol_state": "data"}, "DATA", ["protocol_state data was read as DATA."]),
            ({"protocol_state": "END-OF-MESSAGE"}, "END-OF-MESSAGE", []),
        ):
            answer = await self.node.ask("POST", "/live/explain/", {**without, **given})
            self.assertEqual((answer.status, answer.json.get("remarks")), (200, remarks), answer.body)
            self.assertEqual(self.node.explained.pop(), ("", {**without, "protocol_state": state}))
        answer = await self.node.ask("POST", "/live/explain/", {**without, "protocol_state": "RCPT TO"})
        self.assertEqual((answer.status, self.node.explained), (422, []))
        [fault] = answer.detail
        self.assertEqual(fault["loc"], ["body", "attributes"])
        self.assertRegex(fault["msg"], "^protocol_state must be one of CONNECT, EHLO, HELO, MAIL, RCPT, DATA, ")

    async def test_a_remark_names_policies_that_do_not_apply_at_the_stage(self) -> None:
        decision = Decision("DUNNO", Reason.STAGE_NOT_JUDGED, "GreylistingPolicy")
        self.node.records = [record_of("greylisting", "", PolicyRequest(REQUEST), decision, 1.5)]
        [remark] = (await self.node.ask("POST", "/live/explain/", REQUEST)).json["remarks"]
        self.assertEqual(remark, f"GreylistingPolicy: {Reason.STAGE_NOT_JUDGED.meaning}")

    async def test_invalid_utf_8_is_read_as_on_the_policy_port(self) -> None:
        text = b"protocol_state=RCPT\nsender=J\xfcrgen@example.com\nodd=x\xfc\n"
        wanted = {"protocol_state": "RCPT", "sender": "J\udcfcrgen@example.com", "odd": "x\udcfc"}
        self.assertEqual(parse_attributes(text.rstrip()), wanted)
        self.node.records = [record_of("outbound", "", PolicyRequest(wanted), DECISION, 1.5)]
        for body, kind in ((text, "text/plain"), (json.dumps(wanted).encode(), "application/json")):
            answer = await self.node.ask("POST", "/live/explain/", body, headers={"Content-Type": kind})
            self.assertEqual(answer.status, 200, answer.body)
            self.assertEqual(answer.response[0]["sender"], wanted["sender"])
        self.assertEqual(self.node.explained, [("", wanted)] * 2)


class LatinTests(InsightTestCase):
    settings = Settings(chapps=replace(Chapps(), payload_encoding="latin-1"))

    async def test_text_is_read_in_the_encoding_of_the_policy_port(self) -> None:
        text = b"protocol_state=RCPT\nsender=J\xfcrgen@example.com\n"
        answer = await self.node.ask("POST", "/live/explain/", text, headers={"Content-Type": "text/plain"})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(self.node.explained[0][1]["sender"], "Jürgen@example.com")


class DecisionsTests(InsightTestCase):
    async def test_decisions_are_filtered(self) -> None:
        self.decide()
        answer = await self.node.ask("GET", "/live/decisions/?user=alice&queue_id=&limit=7")
        self.assertEqual(answer.response[0]["action"], "REJECT no")
        self.assertEqual(self.node.searched, [{"user": "alice", "queue_id": ""}])
        await self.node.ask("GET", "/live/decisions/")
        self.assertEqual(self.node.searched[1], {})
        self.assertEqual((await self.node.ask("GET", "/live/decisions/?colour=red")).status, 422)

    async def test_a_remark_says_how_far_back_the_decisions_go(self) -> None:
        self.decide()
        searched = "Searched: the last 1 decisions of this node, since 1970-01-01T00:00:01+00:00."
        answer = (await self.node.ask("GET", "/live/decisions/")).json
        self.assertEqual(answer["remarks"], [searched])
        answer = (await self.node.ask("GET", "/live/decisions/?limit=1")).json
        self.assertEqual(answer["remarks"], [searched, "There may be more: the newest 1 are shown."])
        self.node.records = []
        answer = (await self.node.ask("GET", "/live/decisions/")).json
        self.assertEqual(answer["remarks"], ["This node has made no decisions since its start."])
        [route] = [each for each in self.node.api.routes if each.path == "/live/decisions/"]
        self.assertIn(f"last {MAX_DECISIONS} decisions since", route.note)


class FollowTests(InsightTestCase):
    async def follow(self, query: str) -> Any:
        answer = await self.node.ask("GET", f"/live/decisions/?{query}")
        self.assertEqual(answer.status, 200, answer.body)
        found = answer.json
        return [each["sequence"] for each in found["response"]], found["last_sequence"], found["dropped"]

    def fill(self, count: int) -> None:
        for number in range(count):
            self.ring.extend([entry(user=f"u{number % 2}")])

    def setUp(self) -> None:
        super().setUp()
        self.ring = self.node.decisions = DecisionRing(start=1000, max_entries=10)

    async def test_a_client_can_follow_the_decisions(self) -> None:
        self.assertEqual(await self.follow(""), ([], 1000, False))
        self.fill(3)
        self.assertEqual(await self.follow("after=1000"), ([1001, 1002, 1003], 1003, False))
        self.assertEqual(await self.follow("after=1003"), ([], 1003, False))
        self.assertEqual(await self.follow("limit=2"), ([1003, 1002], 1003, False))
        self.fill(4)
        self.assertEqual(await self.follow("after=1003&user=u1"), ([1005, 1007], 1007, False))

    async def test_the_next_answer_continues_after_the_limit(self) -> None:
        self.fill(7)
        self.assertEqual(await self.follow("after=1001&limit=4"), ([1002, 1003, 1004, 1005], 1005, False))
        self.assertEqual(await self.follow("after=1005&limit=4"), ([1006, 1007], 1007, False))
        remarks = (await self.node.ask("GET", "/live/decisions/?after=1001&limit=4")).json["remarks"]
        self.assertEqual(remarks, ["There may be more: repeat with after=1005."])
        remarks = (await self.node.ask("GET", "/live/decisions/?after=1003&limit=4")).json["remarks"]
        self.assertEqual(remarks, [])

    async def test_dropped_decisions_are_reported(self) -> None:
        self.fill(15)
        there = list(range(1006, 1016))
        self.assertEqual(await self.follow("after=1005"), (there, 1015, False))
        for after in (1004, 0, 2**53 - 1):
            self.assertEqual(await self.follow(f"after={after}"), (there, 1015, True))
        remarks = (await self.node.ask("GET", "/live/decisions/?after=1004")).json["remarks"]
        missing = "Earlier decisions are missing: this node keeps only its last ones since its start."
        self.assertEqual(remarks, [missing])

    async def test_an_invalid_sequence_number_is_rejected(self) -> None:
        for after in ("-1", "x", "", "1.5", str(2**53)):
            self.assertEqual((await self.node.ask("GET", f"/live/decisions/?after={after}")).status, 422, after)

    async def test_answers_match_the_document(self) -> None:
        document = (await self.node.ask("GET", "/openapi.json")).json
        self.fill(3)
        responses = document["paths"]["/live/decisions/"]["get"]["responses"]
        schema = responses["200"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        for query in ("", "?after=1001"):
            validator.validate((await self.node.ask("GET", f"/live/decisions/{query}")).json)


class HealthTests(InsightTestCase):
    async def test_health_and_readiness(self) -> None:
        self.assertEqual((await self.node.ask("GET", "/health", token="")).response, "alive")
        answer = await self.node.ask("GET", "/ready")
        self.assertEqual(answer.status, 200)
        self.assertEqual(
            [(part["name"], part["up"]) for part in answer.response], [("state", True), ("database", True)]
        )

    async def test_metrics_are_in_the_format_of_prometheus(self) -> None:
        answer = await self.node.ask("GET", "/metrics")
        self.assertEqual((answer.status, answer.body), (200, b"chapps_up 1\n"))
        self.assertTrue(answer.headers["content-type"].startswith("text/plain; version=0.0.4"))


class DocumentTests(InsightTestCase):
    async def test_every_route_is_in_the_document_and_answers(self) -> None:
        document = (await self.node.ask("GET", "/openapi.json")).json
        self.assertEqual(document["openapi"], "3.1.0")
        documented = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
        self.assertEqual(documented, {(r.method, r.path) for r in self.node.api.routes if not r.hidden})
        for method, path in sorted(documented):
            answer = await self.node.ask(method, path.replace("{source}", "example.com").format_map(_Ones()))
            operation = document["paths"][path][method.lower()]
            self.assertIn(str(answer.status), operation["responses"], (method, path, answer.body))
            self.assertNotEqual((answer.status, answer.json if answer.status == 404 else None),
                                (404, {"detail": "There is no such page."}))  # fmt: skip

    async def test_every_reason_is_explained(self) -> None:
        document = (await self.node.ask("GET", "/openapi.json")).json
        reason = document["components"]["schemas"]["Decided"]["properties"]["reason"]
        self.assertEqual(reason["enum"], [each.value for each in Reason])
        for each in Reason:
            self.assertIn(f"- `{each.value}`: {each.meaning}\n", reason["description"] + "\n")

    async def test_remarks_are_in_every_answer(self) -> None:
        document = (await self.node.ask("GET", "/openapi.json")).json
        for path in ("/health", "/ready", "/users/", "/live/decisions/", "/live/quota/?user_ids=1"):
            self.assertIsInstance((await self.node.ask("GET", path)).json["remarks"], list, path)
        for name, schema in document["components"]["schemas"].items():
            if "response" in schema.get("properties", ()):
                self.assertIn("remarks", schema["required"], name)

    async def test_answers_match_the_document(self) -> None:
        document = (await self.node.ask("GET", "/openapi.json")).json
        self.decide()
        await self.check(document, "POST", "/live/explain/", "/live/explain/", REQUEST)
        for kind, fields in (
            ("quotas", {"name": "basic", "quota": 5}),
            ("domains", {"name": "example.com"}),
            ("emails", {"name": "a@example.com"}),
            ("users", {"name": "alice", "quota": 1, "domains": [1], "emails": [1]}),
        ):
            await self.check(document, "POST", f"/{kind}/", f"/{kind}/", fields)
            await self.check(document, "GET", f"/{kind}/", f"/{kind}/")
            await self.check(document, "GET", f"/{kind}/{{id}}/", f"/{kind}/1/")
        for path in ("/users/quotas/", "/users/domains/", "/users/emails/", "/live/quota/"):
            await self.check(document, "GET", path, path + "?user_ids=1&user_ids=2")
        await self.check(document, "GET", "/live/quota/{user_id}", "/live/quota/1")
        await self.check(document, "GET", "/live/sda/", "/live/sda/?user_ids=1&domain_ids=1")
        await self.check(document, "GET", "/live/sda/{source}/for/{user}", "/live/sda/example.com/for/alice")
        await self.check(document, "GET", "/live/decisions/", "/live/decisions/")
        await self.check(document, "GET", "/ready", "/ready")
        await self.check(document, "POST", "/users/", "/users/", {"name": ""}, 422)
        await self.check(document, "POST", "/users/", "/users/", {"name": "alice"}, 409)
        await self.check(document, "GET", "/users/{id}/", "/users/7/", status=404)

    async def check(
        self, document: Any, method: str, path: str, asked: str, body: Any = None, status: int | None = None
    ) -> None:
        answer = await self.node.ask(method, asked, body)
        if status is not None:
            self.assertEqual(answer.status, status, answer.body)
        else:
            self.assertLess(answer.status, 300, answer.body)
        responses = document["paths"][path][method.lower()]["responses"]
        schema = responses[str(answer.status)]["content"]["application/json"]["schema"]
        jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate(answer.json)

    async def test_the_page_loads_nothing_from_other_hosts(self) -> None:
        page = await self.node.ask("GET", "/docs/")
        self.assertEqual(page.status, 200)
        self.assertIn("default-src 'none'", page.headers["content-security-policy"])
        for name in ("swagger-ui-bundle.js", "swagger-ui.css", "docs.js", "favicon-32x32.png"):
            self.assertIn(f"/docs/{name}" if name != "docs.html" else "", page.body.decode())
            self.assertEqual((await self.node.ask("GET", f"/docs/{name}")).status, 200)
        self.assertNotIn(b"://", page.body)
        self.assertNotIn("://", json.dumps((await self.node.ask("GET", "/openapi.json")).json))


class _Ones(dict[str, str]):
    """A value for each parameter of a path."""

    def __missing__(self, name: str) -> str:
        return "example.com" if name in ("domain", "client_address") else "1"
