"""What a site decides about SPF, in the running service."""

from __future__ import annotations

import unittest

from tests.support.policy_client import inbound
from tests.support.servers.common import wait_until
from tests.support.servers.dns import SERVFAIL, DnsServer, addresses, txt
from tests.support.servers.service import Service

CHECKED = "bob@checked.example"


class SpfOptionTests(unittest.TestCase):
    dns: DnsServer
    service: Service

    @classmethod
    def setUpClass(cls) -> None:
        voids = "v=spf1 a:v1.example a:v2.example a:v3.example "
        cls.dns = DnsServer(
            {
                "three.example": [txt(voids + "+all")],
                "four.example": [txt(voids + "a:v4.example +all")],
                "long.example": [txt("v=spf1 ", *["ip4:198.51.100.1 " * 10] * 4, "+all")],
                "many.example": [txt("v=spf1 a -all"), *addresses(*[f"198.51.100.{number}" for number in range(20)])],
                "exp.example": [txt("v=spf1 -all exp=why.example")],
                "why.example": [txt("%{r} says so")],
            },
            {"sick.example": SERVFAIL},
        )
        cls.addClassCleanup(cls.dns.stop)
        options = {
            "nameservers": f"127.0.0.1:{cls.dns.port}",
            "receiver": "MX.Bücher.example",
            "void_lookup_limit": 3,
            "record_size_limit": 512,
            "answer_record_limit": 16,
        }
        cls.service = Service({"SPFEnforcementPolicy": options})
        cls.addClassCleanup(cls.service.remove)
        cls.service.start().wait_ready()
        cls.service.add_domain("checked.example", check_spf=True)

    def answer(self, domain: str) -> str:
        with self.service.client("inbound") as client:
            return client.ask(inbound(sender=f"carl@{domain}", recipient=CHECKED, helo_name="mail"))

    def test_the_receiver_is_named_in_the_header_and_in_explanations(self) -> None:
        self.assertIn("; receiver=mx.xn--bcher-kva.example", self.answer("three.example"))
        self.assertIn("exp.example explains: mx.xn--bcher-kva.example says so", self.answer("exp.example"))

    def test_the_limits_are_those_of_the_configuration(self) -> None:
        self.assertTrue(self.answer("three.example").startswith("PREPEND Received-SPF: pass "))
        self.assertIn("Void lookup limit of 3 exceeded", self.answer("four.example"))
        self.assertIn("SPF record of more than 512 octets", self.answer("long.example"))
        self.assertIn("A of many.example: no usable response from any DNS server", self.answer("many.example"))

    def test_which_servers_were_asked_is_told_in_the_log_and_to_no_sender(self) -> None:
        self.assertEqual(
            self.answer("sick.example"),
            "451 4.4.3 SPF record(s) temporarily unavailable: "
            "sick.example: TXT of sick.example: no usable response from any DNS server",
        )
        told = f"(127.0.0.1:{self.dns.port} answered SERVFAIL)"
        wait_until(lambda: told in self.service.decisions(), "that the log names the servers")
