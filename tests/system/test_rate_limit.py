"""Limits of the configuration in the running service: over the policy protocol and over HTTP."""

from __future__ import annotations

import time
from typing import Any

from tests.support.api_case import APITestCase
from tests.support.policy_client import inbound, outbound
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.service import PATIENT, Options, Service

LIMITS: Options = {
    **PATIENT,
    "Limit flood": {
        "per": "client_network",
        "unit": "messages",
        "amount": 2,
        "window": "1h",
        "match": "sasl_username:empty, client_address:!192.0.2.0/24",
    },
    "Limit inbox": {"per": "recipient", "amount": 1, "window": "1d", "match": "recipient:.limited.example"},
    "Limit all": {"per": "everybody", "unit": "distinct_recipients", "amount": 1000, "window": "1d"},
    "Limit off": {"per": "sender", "amount": 0, "window": "1d"},
    "RateLimitPolicy": {"limits": "flood, inbox, all"},
}
DEFERRED = "DEFER_IF_PERMIT Rate limit exceeded: 2 of 2 in 1 hour, try again in 60 minutes"


class LimitTests(APITestCase):
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        cls.service = cls.run_service(LIMITS)

    def ask(self, address: str, **changes: str) -> str:
        """Return the answer to a new message of a stranger."""
        with self.service.client("limits") as client:
            return client.ask(inbound(client_address=address, **changes))

    def use(self, name: str, what: str) -> Any:
        return self.expect(200, self.service, "GET", f"/live/rate-limits/{name}/{what}")["response"]

    def test_messages_of_one_network_are_counted_together(self) -> None:
        answers = [self.ask(f"203.0.113.{host}") for host in (5, 6, 7)]
        self.assertEqual(answers, ["DUNNO", "DUNNO", DEFERRED])
        self.assertEqual(self.ask("203.0.114.7"), "DUNNO")
        self.assertEqual([self.ask("192.0.2.7") for _ in range(3)], ["DUNNO"] * 3)
        with self.service.client("limits") as client:
            self.assertEqual(client.ask(outbound(client_address="203.0.113.8")), "DUNNO")

    def test_http_tells_what_is_used_and_makes_room(self) -> None:
        for left in (2, 1, 0):
            found = self.use("flood", "198.51.100.9")
            self.assertEqual((found["amount"], found["used"], found["left"]), (2, 2 - left, left))
            self.assertIs((found["room_at"] or 0) > time.time() + 3000, left == 0)
            self.ask("198.51.100.7")
        self.assertEqual(self.use("flood", "198.51.100.0%2F24")["used"], 2)
        path = "/live/rate-limits/flood/198.51.100.9"
        self.assertEqual(self.expect(200, self.service, "DELETE", path)["response"], 2)
        self.assertEqual(self.use("flood", "198.51.100.9")["used"], 0)
        self.assertEqual(self.ask("198.51.100.7"), "DUNNO")
        trail = self.expect(200, self.service, "GET", "/audit/?kind=live/rate-limits")["response"]
        self.assertEqual((trail[0]["action"], trail[0]["name"]), ("delete", "flood 198.51.100.9"))

    def test_http_lists_the_limits_of_the_configuration(self) -> None:
        found = self.expect(200, self.service, "GET", "/live/rate-limits/")["response"]
        self.assertEqual([each["name"] for each in found], ["flood", "inbox", "all", "off"])
        self.assertEqual([each["applied"] for each in found], [True, True, True, False])
        self.assertEqual(
            found[0],
            {
                "name": "flood",
                "per": "client_network",
                "unit": "messages",
                "amount": 2,
                "window": 3600,
                "match": ["sasl_username:empty", "client_address:!192.0.2.0/24"],
                "action": "defer",
                "mode": "enforce",
                "warn_at": 80,
                "applied": True,
            },
        )

    def test_http_refuses_what_is_no_limit_and_what_none_counts(self) -> None:
        for path, status in (("off/a@example.org", 404), ("none/x", 404), ("inbox/", 404)):
            self.expect(status, self.service, "GET", f"/live/rate-limits/{path}")
        fault = self.expect(422, self.service, "GET", "/live/rate-limits/inbox/%00")["detail"]
        self.assertEqual(fault[0]["loc"], ["path", "what"])

    def test_an_explanation_tells_the_limit_and_changes_nothing(self) -> None:
        body = inbound(client_address="203.0.115.7", recipient="bob@mx.limited.example")
        for _ in range(3):
            answer = self.expect(200, self.service, "POST", "/live/explain/?listener=limits", body)["answer"]
            self.assertEqual((answer["reason"], answer["figures"]["used"]), ("within_limits", 1))
        self.assertEqual(answer["detail"], "limit inbox, recipient bob@mx.limited.example")

    def test_the_decision_and_the_event_name_the_limit(self) -> None:
        self.ask("203.0.116.7", recipient="carl@limited.example")
        self.assertIn("Rate limit exceeded: 1 of 1 in 1 day", self.ask("203.0.116.8", recipient="carl@limited.example"))
        found = self.expect(200, self.service, "GET", "/live/decisions/?recipient=carl@limited.example")["response"]
        self.assertEqual([each["reason"] for each in found], ["rate_limited", "within_limits"])
        self.assertEqual(found[0]["detail"], "limit inbox, recipient carl@limited.example")
        self.assertEqual(found[0]["figures"]["limit"], 1)

        def events() -> list[str]:
            listed = self.expect(200, self.service, "GET", "/live/events/")["response"]
            return [each["kind"] for each in listed if each["account"] == "inbox:carl@limited.example"]

        wait_until(lambda: events() == ["at_limit"], "the event")
        self.service.log("recipient limit inbox: 'inbox:carl@limited.example' has used 1 of 1 (at_limit)")

    def test_an_exempt_client_is_not_limited_from_the_next_request_on(self) -> None:
        self.assertEqual([self.ask("203.0.117.7") for _ in range(3)], ["DUNNO", "DUNNO", DEFERRED])
        rule = {"kind": "client", "value": "203.0.117.0/24", "scope": "limit:flood", "until": "1d", "reason": "partner"}
        self.expect(201, self.service, "POST", "/exemptions/", rule)
        self.assertEqual(self.ask("203.0.117.7"), "DUNNO")
        self.assertEqual(self.ask("203.0.118.7"), "DUNNO")


class RedisLimitTests(LimitTests):
    @classmethod
    def setUpClass(cls) -> None:
        cls.service = cls.run_service(LIMITS, {"Redis": {"server": "127.0.0.1", "port": cls.run_redis().port}})


class TwoNodeTests(APITestCase):
    def test_two_nodes_count_together_and_note_an_event_once(self) -> None:
        nodes = self.run_nodes(self.run_redis(), LIMITS)
        answers = []
        for node in (*nodes, *nodes):
            with node.client("limits") as client:
                answers.append(client.ask(inbound(client_address="203.0.113.5")))
        self.assertEqual([answer.partition(" ")[0] for answer in answers], ["DUNNO"] * 2 + ["DEFER_IF_PERMIT"] * 2)
        line = "client_network limit flood: 'flood:203.0.113.0/24' has used 2 of 2 (at_limit)"
        wait_until(lambda: any(line in node.log() for node in nodes), "the event")
        for node in nodes:
            listed = self.expect(200, node, "GET", "/live/events/")["response"]
            self.assertEqual([event["kind"] for event in listed if event["limit"] == "flood"], ["at_limit"])
        self.assertEqual(sum(node.log().count(line) for node in nodes), 1)


class ListenerTests(APITestCase):
    def test_a_listener_with_inbound_policies_limits_clients_that_those_skip(self) -> None:
        port = free_port()
        service = self.run_service(
            {
                **LIMITS,
                "Limit all": {"per": "everybody", "unit": "messages", "amount": 2, "window": "1h"},
                "Listener mx": {
                    "listen": f"tcp:{port}:interface=127.0.0.1",
                    "policies": "RateLimitPolicy GreylistingPolicy",
                },
            }
        )
        service.ports["mx"] = port
        with service.client("mx") as client:
            trusted = [client.ask(inbound(client_address="127.0.0.1")) for _ in range(2)]
            self.assertEqual(trusted, ["DUNNO", "DUNNO"])
            self.assertIn("Rate limit exceeded", client.ask(outbound()))

    def test_what_was_counted_is_known_after_a_restart(self) -> None:
        service = self.run_service(LIMITS)
        with service.client("limits") as client:
            for _ in range(2):
                client.ask(inbound(client_address="203.0.113.5"))
        service.stop()
        service.start().wait_ready()
        with service.client("limits") as client:
            self.assertIn("Rate limit exceeded", client.ask(inbound(client_address="203.0.113.5")))
