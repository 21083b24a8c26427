"""Times in answers: epoch seconds, and beside them the same as text."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from twisted.trial.unittest import TestCase

from chapps_tw.interfaces.greylist import GreylistAttempt, GreylistRules
from tests.support.rest_client import Node

EPOCH = "UNIX epoch"
TUPLE = "/live/grl/tuple/?client_address=192.0.2.1&sender=a@b.example&recipient=c@d.example"


class TimeTests(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.node.ask(method, path, body)
        self.assertIn(answer.status, (200, 201), (path, answer.body))
        return answer.json

    def check(self, where: str, fields: Any) -> int:
        """Check all times in an answer, and return how many there are."""
        if isinstance(fields, list):
            return sum(self.check(where, each) for each in fields)
        if not isinstance(fields, dict):
            return 0
        texts = [name for name in fields if name.endswith("_iso")]
        for name in texts:
            seconds, text = fields[name.removesuffix("_iso")], fields[name]
            if seconds:
                self.assertRegex(text, r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", where)
                self.assertAlmostEqual(datetime.fromisoformat(text).timestamp(), seconds, 2, where)
            else:
                self.assertIsNone(text, where)
        return len(texts) + sum(self.check(where, each) for each in fields.values())

    async def test_all_times_of_the_document_have_a_text_beside_them(self) -> None:
        schemas = (await self.ask("GET", "/openapi.json"))["components"]["schemas"]
        found = 0
        for name, schema in schemas.items():
            properties = schema.get("properties", {})
            for each, about in properties.items():
                if EPOCH in about.get("description", "") and not each.endswith("_iso"):
                    self.assertIn(f"{each}_iso", properties, name)
                    found += 1
        self.assertGreater(found, 10)
        for name in ("Moment", "TallyList"):
            self.assertIn("response_iso", schemas[name]["properties"])

    async def test_the_text_is_the_same_time(self) -> None:
        await self.ask("POST", "/quotas/", {"name": "none", "quota": 0})
        await self.ask("POST", "/users/", {"name": "alice", "quota": 1})
        about = {"user": "alice", "kind": "extra", "value": 1, "until": "1d"}
        await self.ask("POST", "/overrides/", about)
        exemption = {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": "1d"}
        await self.ask("POST", "/exemptions/", exemption)
        await self.node.state.note_event("e", 60.0, json.dumps({"kind": "near_limit", "at": 1790000000.25}))
        # With the time of the envelope.
        for method, path, body, count in (
            ("GET", "/users/", None, 1),
            ("GET", "/overrides/1", None, 4),
            ("GET", "/exemptions/", None, 3),
            ("GET", "/audit/?limit=1", None, 2),
            ("GET", "/live/limits/alice", None, 4),
            ("GET", "/live/events/", None, 2),
            ("GET", "/live/decisions/", None, 2),
            ("POST", "/live/explain/", {"sender": "a"}, 3),
        ):
            self.assertEqual(self.check(path, await self.ask(method, path, body)), count, path)

    async def test_greylist_entries_and_tallies_have_texts_too(self) -> None:
        never = await self.ask("GET", TUPLE)
        self.assertEqual((never["response"], never["response_iso"]), (0.0, None))
        attempt = GreylistAttempt("192.0.2.0/24", "a@b.example", "c@d.example", "d.example", "i1", True)
        rules = GreylistRules(0.0, 1000.0, 1000.0, 1000.0, 10)
        for _ in range(2):
            await self.node.state.check_greylist(attempt, rules)
        found = await self.ask("GET", TUPLE)
        self.assertEqual(self.check("tuple", found), 2)
        tally = await self.ask("GET", "/live/grl/tally/192.0.2.1")
        [[instance, seconds]], [[same, text]] = tally["response"], tally["response_iso"]
        self.assertEqual((instance, same), ("i1", "i1"))
        self.assertAlmostEqual(datetime.fromisoformat(text).timestamp(), seconds, 2)
