"""Two nodes with one Redis and one PostgreSQL: a customer made on one sends mail through the other."""

from __future__ import annotations

from typing import Any

from tests.support.api_case import APITestCase
from tests.support.policy_client import encode, outbound
from tests.support.rest_client import ask
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import PATIENT
from tests.support.smtp_client import Replies, SMTPClient

SENDER = "sales@customer.example"
REFUSED = 554


class CustomerTests(APITestCase):
    def setUp(self) -> None:
        self.first, self.second = self.run_nodes(self.run_redis(), {"OutboundQuotaPolicy": {"margin": 0}, **PATIENT})
        self.postfix = Postfix({stage: [self.second.endpoint()] for stage in ("RCPT", "DATA", "END-OF-MESSAGE")})
        self.addCleanup(self.postfix.stop)

    def send(self, recipients: int) -> Replies:
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="203.0.113.5", NAME="laptop.example.net", LOGIN="customer")
            return client.message(SENDER, [f"r{number}@example.net" for number in range(recipients)])

    def explain(self) -> Any:
        """What the first node would answer to a request of the customer's, as the text that Postfix sends."""
        request = encode(outbound(sasl_username="customer", sender=SENDER))
        headers = {"Content-Type": "text/plain"}
        answer = ask(self.first.ports["api"], "POST", "/live/explain/", request, headers, self.first.token)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.response

    def test_a_new_customer_sends_and_is_told_everywhere_what_is_left(self) -> None:
        self.assertEqual(self.send(1).codes, [REFUSED])
        quota = self.create(self.first, "quotas", name="seven a day", quota=7)
        domain = self.create(self.first, "domains", name="customer.example")
        user = self.create(self.first, "users", name="customer", quota=quota, domains=[domain])
        self.assertEqual([self.send(3).delivered for _ in range(2)], [3, 3])
        self.assertEqual(len(self.postfix.delivered(6)), 6)
        for node in (self.first, self.second):
            left = self.expect(200, node, "GET", "/live/quota/", [user])["response"]
            self.assertEqual(left, [{"user_name": "customer", "quota_avail": 1}])
            self.assertEqual(self.expect(200, node, "GET", f"/live/quota/{user}")["response"], 1)
        self.check_explanation("within_quota")
        self.assertEqual(self.send(3).codes, [250, REFUSED, REFUSED])
        self.check_explanation("quota_exceeded")
        self.check_decisions()
        self.expect(200, self.first, "PUT", "/quotas/", {"quota": {"id": quota, "quota": 8}})
        self.assertEqual(self.send(1).delivered, 1)

    def check_explanation(self, reason: str) -> None:
        allowed, counted = self.explain()
        self.assertEqual((allowed["policy"], allowed["reason"]), ("SenderDomainAuthPolicy", "authorized_domain"))
        self.assertEqual((counted["policy"], counted["reason"]), ("OutboundQuotaPolicy", reason))
        self.assertEqual((counted["figures"]["limit"], counted["figures"]["used"]), (7, 7))

    def check_decisions(self) -> None:
        """The node that Postfix asked knows what it answered, the other does not."""
        path = "/live/decisions/?user=customer&recipient=r2%40example.net"
        decisions = self.expect(200, self.second, "GET", path)["response"]
        self.assertEqual([each["stage"] for each in decisions], ["RCPT"] * 3)
        self.assertEqual([each["action"].split()[0] for each in decisions], ["REJECT", "DUNNO", "DUNNO"])
        self.assertEqual({each["client"] for each in decisions}, {"203.0.113.5"})
        self.assertEqual(self.expect(200, self.first, "GET", path)["response"], [])
