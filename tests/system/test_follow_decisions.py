"""Following what the service decides over HTTP, also over a restart."""

from __future__ import annotations

from typing import Any
from unittest import TestCase

from tests.support.policy_client import outbound
from tests.support.servers.service import Service


class FollowTests(TestCase):
    def setUp(self) -> None:
        # Decisions are remembered also where none is logged.
        self.service = Service({"Log": {"file": ""}}).start()
        self.addCleanup(self.service.remove)

    def decide(self, *instances: str) -> None:
        with self.service.client() as client:
            for instance in instances:
                client.ask(outbound(instance=instance))

    def follow(self, query: str) -> tuple[list[str], dict[str, Any]]:
        """The instances of what is answered, and the answer."""
        status, answer = self.service.http(f"/live/decisions/{query}")
        self.assertEqual(status, 200, answer)
        return [each["instance"] for each in answer["response"]], answer

    def test_each_decision_is_told_once_and_a_restart_is_told(self) -> None:
        nothing, answer = self.follow("")
        self.assertEqual((nothing, answer["dropped"]), ([], False))
        began = answer["last_sequence"]
        self.decide("one", "two")
        told, answer = self.follow(f"?after={began}")
        self.assertEqual((told, answer["last_sequence"], answer["dropped"]), (["one", "two"], began + 2, False))
        self.decide("three")
        told, answer = self.follow(f"?after={began + 2}")
        self.assertEqual((told, answer["last_sequence"], answer["dropped"]), (["three"], began + 3, False))
        self.assertEqual(self.follow("")[0], ["three", "two", "one"])
        self.service.stop()
        self.service.start()
        self.decide("four")
        told, answer = self.follow(f"?after={began + 3}")
        self.assertEqual((told, answer["dropped"]), (["four"], True))
        self.assertGreater(answer["last_sequence"], began + 4)
        self.assertEqual(self.follow(f"?after={answer['last_sequence']}")[1]["dropped"], False)
        self.assertFalse((self.service.directory / "decisions.log").exists())
