"""Limits on mail of any kind through a real Postfix: what the client is told, what is counted, what is held."""

from __future__ import annotations

import time
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.support.policy_client import inbound
from tests.support.postfix_case import PostfixTestCase
from tests.support.servers.common import wait_until
from tests.support.servers.redis import RedisProcess
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.smtp_client import Replies, SMTPClient

HOUR = {"unit": "messages", "amount": 2, "window": "1h"}
BOX = "bob@example.com"
STRANGER = "carl@example.net"
DEFERRED, REFUSED = 450, 554


class LimitedCase(PostfixTestCase):
    """A service with limits, and a Postfix that asks it."""

    def state(self) -> Options:
        """Return the options for the live state."""
        return {}

    def run_both(self, stages: Sequence[str], limits: Mapping[str, Mapping[str, object]]) -> None:
        sections = {f"Limit {name}": {**HOUR, **options} for name, options in limits.items()}
        self.service = Service({**PATIENT, **self.state(), **sections})
        self.addCleanup(self.service.remove)
        self.service.start().wait_ready()
        self.run_postfix({stage: [self.service.endpoint("limits")] for stage in stages})

    def send(
        self,
        address: str = "203.0.113.5",
        login: str = "",
        sender: str = STRANGER,
        recipients: Sequence[str] = (BOX,),
        text: str = "Subject: test\r\n\r\nHello\r\n",
    ) -> Replies:
        """Send a message from a client, in a session of its own."""
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR=address, NAME="mx.example.net", **({"LOGIN": login} if login else {}))
            return client.message(sender, recipients, text)

    def use(self, name: str, what: str) -> Any:
        """Return how much of a limit is used, over HTTP."""
        status, answer = self.service.http(f"/live/rate-limits/{name}/{what}")
        self.assertEqual(status, 200, answer)
        return answer["response"]

    def explain(self, **attributes: str) -> Any:
        """Return what the listener of limits would answer."""
        body = inbound(client_address="203.0.113.5", sender=STRANGER, recipient=BOX, **attributes)
        status, answer = self.service.http("/live/explain/?listener=limits", "POST", body)
        self.assertEqual(status, 200, answer)
        return answer["answer"]

    @property
    def held(self) -> int:
        """The number of messages on hold."""
        return sum(path.is_file() for path in (self.postfix.directory / "queue" / "hold").rglob("*"))


class NetworkTests(LimitedCase):
    def test_strangers_of_one_network_are_deferred_together_and_others_are_not(self) -> None:
        match = "sasl_username:empty, client_address:!203.0.113.128/25"
        self.run_both(["RCPT"], {"flood": {"per": "client_network", "match": match}})
        self.assertEqual([self.send(f"203.0.113.{host}").codes for host in (5, 6)], [[250]] * 2)
        told = self.send("203.0.113.7").recipients[0]
        self.assertEqual(told[0], DEFERRED)
        self.assertIn("Rate limit exceeded: 2 of 2 in 1 hour, try again in 60 minutes", told[1])
        self.assertEqual(self.send("198.51.100.7").codes, [250])
        self.assertEqual(self.send("203.0.113.7", login="ann").codes, [250])
        self.assertEqual(self.send("203.0.113.200").codes, [250])
        self.assertEqual(len(self.postfix.delivered(5)), 5)

    def test_smtp_http_and_explanations_tell_the_same_and_a_reset_makes_room(self) -> None:
        self.run_both(["RCPT", "DATA"], {"flood": {"per": "client_network"}})
        for left in (2, 1, 0):
            self.assertEqual(self.use("flood", "203.0.113.99")["left"], left)
            self.assertEqual(self.explain()["reason"], "within_limits" if left else "rate_limited")
            self.assertEqual(self.send().codes, [250] if left else [DEFERRED])
        found = self.use("flood", "203.0.113.0%2F24")
        self.assertEqual((found["what"], found["used"]), ("203.0.113.0/24", 2))
        self.assertGreater(found["room_at"], time.time() + 3000)
        self.assertEqual(self.explain()["detail"], "limit flood, client_network 203.0.113.0/24")
        self.assertEqual(self.service.http("/live/rate-limits/flood/203.0.113.1", "DELETE")[1]["response"], 2)
        self.assertEqual(self.send().codes, [250])
        self.assertEqual(self.use("flood", "203.0.113.1")["used"], 1)


class RedisNetworkTests(NetworkTests):
    def state(self) -> Options:
        redis = RedisProcess(Path(self.enterContext(TemporaryDirectory(prefix="redis-"))))
        self.addCleanup(redis.stop)
        redis.start()
        return {"Redis": {"server": "127.0.0.1", "port": redis.port}}


class SenderTests(LimitedCase):
    def test_a_sender_who_did_not_log_in_is_refused_at_data(self) -> None:
        self.run_both(["DATA"], {"strangers": {"per": "sender", "match": "sasl_username:empty", "action": "refuse"}})
        self.assertEqual([self.send(f"192.0.2.{host}").delivered for host in (1, 2)], [1, 1])
        third = self.send("192.0.2.3", sender="Carl@Example.NET")
        assert third.data
        self.assertEqual(third.data[0], REFUSED)
        self.assertIn("Rate limit exceeded", third.data[1])
        self.assertEqual(self.send("192.0.2.3", sender="dora@example.net").delivered, 1)
        self.assertEqual(self.send("192.0.2.3", login="ann").delivered, 1)

    def test_a_sender_is_limited_in_bytes_at_the_end_of_the_message(self) -> None:
        self.run_both(["RCPT", "END-OF-MESSAGE"], {"big": {"per": "sender", "unit": "bytes", "amount": 5000}})
        text = "Subject: test\r\n\r\n" + 30 * (98 * "x" + "\r\n")
        self.assertEqual(self.send(text=text).delivered, 1)
        second = self.send(text=text)
        assert second.end
        self.assertEqual(second.end[0], DEFERRED)
        self.assertEqual(self.send(text="Subject: short\r\n\r\nHello\r\n").delivered, 1)


class EverybodyTests(LimitedCase):
    def test_what_exceeds_a_limit_of_everybody_is_held(self) -> None:
        self.run_both(["DATA"], {"all": {"per": "everybody", "action": "hold"}})
        clients = ("192.0.2.1", "198.51.100.2", "203.0.113.3")
        self.assertEqual([self.send(client).delivered for client in clients], [1, 1, 1])
        self.assertEqual(len(self.postfix.delivered(2)), 2)
        wait_until(lambda: self.held == 1, "the third message on hold")
        self.assertEqual(self.use("all", "everybody")["used"], 2)

    def test_a_whole_answer_is_what_the_client_is_told(self) -> None:
        action = "451 4.7.1 {limit_name}: come back in {retry_in}"
        self.run_both(["RCPT"], {"all": {"per": "everybody", "amount": 0, "action": action}})
        self.assertEqual(self.send().recipients[0][0], 451)
        self.assertIn("4.7.1", self.send().recipients[0][1])

    def test_a_limit_in_shadow_mode_stops_nothing_and_is_in_the_decision_log(self) -> None:
        self.run_both(["RCPT"], {"all": {"per": "everybody", "mode": "shadow"}})
        self.assertEqual([self.send().delivered for _ in range(4)], [1] * 4)
        wait_until(lambda: "rate_limited" in self.service.decisions(), "the decision in the log")

    def test_a_message_that_is_given_up_after_its_recipients_costs_nothing_where_data_is_asked_about(self) -> None:
        self.run_both(["RCPT", "DATA"], {"all": {"per": "everybody", "amount": 9}})
        self.service.write_config({"RateLimitPolicy": {"reservation_ttl": 1}})
        self.service.stop()
        self.service.start().wait_ready()
        self.assertEqual(self.send().delivered, 1)
        with SMTPClient(self.postfix.port) as client:
            client.command(f"MAIL FROM:<{STRANGER}>")
            self.assertEqual(client.command(f"RCPT TO:<{BOX}>")[0], 250)
        wait_until(lambda: self.use("all", "everybody")["used"] == 1, "the cost given back")


if __name__ == "__main__":
    unittest.main()
