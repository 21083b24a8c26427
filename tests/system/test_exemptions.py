"""A partner's network is exempt from SPF and greylisting until a date: for the next mail, on every node."""

from __future__ import annotations

import time
from typing import Any

from tests.support.api_case import APITestCase
from tests.support.policy_client import encode, inbound
from tests.support.rest_client import ask
from tests.support.servers.common import wait_until
from tests.support.servers.dns import DnsServer, txt
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.smtp_client import SMTPClient

PARTNER, STRANGER = "203.0.113.5", "198.51.100.5"
SENDER, RECIPIENT = "orders@partner.example", "bob@ours.example"
PASSED = "DUNNO"
GREYLISTED = "DEFER_IF_PERMIT Service temporarily unavailable - greylisted"
SPF_FAILED = "550 5.7.1 SPF check failed"


class ExemptionTests(APITestCase):
    def setUp(self) -> None:
        dns = DnsServer({"partner.example": [txt("v=spf1 -all")]})
        self.addCleanup(dns.stop)
        options: Options = {**PATIENT, "SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"}}
        self.first, self.second = self.start_nodes(options)
        self.create(self.first, "domains", name="ours.example", greylist=True, check_spf=True)
        self.client = self.second.client("inbound")
        self.addCleanup(self.client.close)

    def start_nodes(self, options: Options) -> tuple[Service, Service]:
        return self.run_nodes(self.run_redis(), options)

    def check(self, answer: str, client: str = PARTNER) -> None:
        """Check what the second node answers to mail from a client."""
        self.assertTrue(self.ask(client).startswith(answer))

    def ask(self, client: str) -> str:
        return self.client.ask(inbound(client_address=client, sender=SENDER, recipient=RECIPIENT))

    def exempt(self, scope: str, **fields: Any) -> int:
        partner = {"kind": "client", "value": "203.0.113.0/24", "until": "30d", "reason": "our partner"}
        fields = {"scope": scope, **partner, **fields}
        return int(self.expect(201, self.first, "POST", "/exemptions/", fields)["response"]["id"])

    def explain(self, client: str) -> list[tuple[str, str]]:
        """Return the reason and the detail of each policy's decision, by the first node."""
        request = encode(inbound(client_address=client, sender=SENDER, recipient=RECIPIENT))
        headers = {"Content-Type": "text/plain"}
        answer = ask(self.first.ports["api"], "POST", "/live/explain/", request, headers, self.first.token)
        self.assertEqual(answer.status, 200, answer.body)
        return [(each["reason"], each["detail"]) for each in answer.response]

    def test_a_partner_is_exempt_until_the_end(self) -> None:
        self.check(SPF_FAILED)
        spf = self.exempt("spf")
        self.check(GREYLISTED)
        greylisting = self.exempt("greylisting")
        self.check(PASSED)
        self.check(SPF_FAILED, STRANGER)
        self.check_what_is_told(spf, greylisting)
        until = time.time() + 2
        self.expect(200, self.first, "PUT", f"/exemptions/{spf}/", {"until": until})
        wait_until(lambda: self.ask(PARTNER).startswith(SPF_FAILED), "the end of the exemption")
        self.assertGreaterEqual(time.time(), until)

    def check_what_is_told(self, spf: int, greylisting: int) -> None:
        """Both nodes tell which exemptions apply: one explains, the other has decided."""
        told = [("exempted", f"exemption {id}: our partner") for id in (spf, greylisting)]
        self.assertEqual(self.explain(PARTNER), told)
        self.assertEqual([reason for reason, _ in self.explain(STRANGER)], ["spf_fail", "greylist_first"])
        found = self.expect(200, self.second, "GET", f"/live/decisions/?client={PARTNER}&limit=1")["response"]
        self.assertEqual([(each["reason"], each["detail"]) for each in found], told[-1:])
        self.assertEqual(found[0]["also"], "SPFEnforcementPolicy:exempted")

    def test_mail_of_a_partner_is_accepted_by_postfix_until_the_end(self) -> None:
        postfix = Postfix({"RCPT": [self.second.endpoint("inbound")]}, ("ours.example",))
        self.addCleanup(postfix.stop)

        def send(client: str) -> int:
            with SMTPClient(postfix.port) as smtp:
                smtp.xclient(ADDR=client, NAME="mail.partner.example")
                return smtp.message(SENDER, [RECIPIENT]).codes[0]

        self.assertEqual(send(PARTNER), 550)
        exemptions = [self.exempt(scope) for scope in ("spf", "greylisting")]
        self.assertEqual((send(PARTNER), send(STRANGER)), (250, 550))
        self.assertEqual(len(postfix.delivered(1)), 1)
        until = time.time() + 2
        for each in exemptions:
            self.expect(200, self.first, "PUT", f"/exemptions/{each}/", {"until": until})
        wait_until(lambda: send(PARTNER) == 550, "the end of the exemptions")
        self.assertGreaterEqual(time.time(), until)

    def test_an_exemption_that_is_deleted_ends_at_once(self) -> None:
        scopes = ("spf", "greylisting")
        exemptions = [self.exempt(scope, kind="sender_domain", value="partner.example") for scope in scopes]
        self.check(PASSED)
        self.expect(200, self.first, "DELETE", "/exemptions/", exemptions)
        self.check(SPF_FAILED)


class OneNodeTests(ExemptionTests):
    """With everything in one process."""

    def start_nodes(self, options: Options) -> tuple[Service, Service]:
        service = self.run_service(options)
        return service, service
