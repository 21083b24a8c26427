"""Limits, overrides, exemptions and the audit trail over HTTP, with every combination of stores."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.support.policy_client import inbound, outbound
from tests.support.rows_case import RowsCase

_numbers = count(1)

BODY = {"protocol_state": "DATA", "recipient": "", "recipient_count": "1"}


class RuleRows(RowsCase):
    """What is in force until a date, and the limits of quotas, domains and ``[Limit NAME]``."""

    def rule_rows(self) -> None:
        quota = self.create("quotas", name="small", quota=1000)
        pool = self.create("quotas", name="together", quota=2000)
        domain = self.create("domains", name="ruled.example", each_quota=quota, pool_quota=pool)
        self.create("users", name="rae@ruled.example", domains=[domain])
        self.limit_rows(quota)
        self.live_limit_rows()
        self.override_rows()
        self.exemption_rows()
        self.rate_limit_rows()
        newest = self.send("GET", "/audit/", query="limit=1")["response"]
        self.assertEqual((newest[0]["action"], newest[0]["author"]), ("delete", "first"))

    def limit_rows(self, quota: int) -> None:
        route = "/quotas/{id}/limits/"
        hour = self.send("POST", route, {"name": "hour", "amount": 3, "window": "1h"}, 201, id=quota)["response"]
        bulk = {"name": "bulk", "unit": "bytes", "amount": 10**6, "window": "1d", "action": "defer"}
        day = self.send("POST", route, bulk, 201, id=quota)["response"]
        self.assertEqual(self.get(route, id=quota)["response"], [hour, day])
        self.assertEqual(self.send("GET", "/limits/")["response"], [hour, day])
        changed = self.send("PUT", "/limits/{id}/", {"amount": 4}, id=hour["id"])["response"]
        self.assertEqual(changed, {**hour, "amount": 4})
        self.assertEqual(self.get("/limits/{id}/", id=hour["id"])["response"], changed)
        self.send("POST", route, bulk, 409, id=quota)
        again = self.send("POST", route, {**bulk, "name": "again"}, 201, id=quota)["response"]
        self.send("DELETE", "/limits/{id}/", id=again["id"])
        self.send("DELETE", "/limits/", [day["id"]])
        self.assertEqual(self.send("GET", "/limits/")["response"], [changed])

    def live_limit_rows(self) -> None:
        """Four messages in an hour; all limits count them, and the events tell that the smallest is reached."""
        answers = [self.mailed("rae@ruled.example") for _ in range(5)]
        self.assertEqual([answer[:5] for answer in answers], ["DUNNO"] * 4 + ["REJEC"])
        of_user = self.get("/live/limits/{user}", user="rae@ruled.example")["response"]
        used = [(limit["level"], limit["name"], limit["used"], limit["left"]) for limit in of_user["limits"]]
        self.assertEqual(used, [("domain", "", 4, 996), ("domain", "hour", 4, 0), ("domain pool", "", 4, 1996)])
        self.assertEqual(self.get("/live/pools/{domain}", domain="ruled.example")["response"]["limits"][0]["used"], 4)
        self.wait_for("the event", lambda: self.events())
        [near] = self.send("GET", "/users/", query="near=100&q=ruled.example")["response"]
        self.assertEqual((near["name"], near["limits"]), ("rae@ruled.example", [of_user["limits"][1]]))
        self.assertEqual(self.send("DELETE", "/live/limits/{user}", user="rae@ruled.example")["response"], 4)
        self.assertEqual(self.send("DELETE", "/live/pools/{domain}", domain="ruled.example")["response"], 4)
        self.assertEqual(self.mailed("rae@ruled.example"), "DUNNO")

    def events(self) -> list[dict[str, Any]]:
        found = self.send("GET", "/live/events/", query="kind=at_limit")["response"]
        return [event for event in found if (event["account"], event["limit"]) == ("rae@ruled.example", "hour")]

    def override_rows(self) -> None:
        wanted = {"user": "rae@ruled.example", "kind": "suspended", "until": "1d", "reason": "until Monday"}
        suspended = self.send("POST", "/overrides/", wanted, 201)["response"]
        self.assertIn("until Monday", self.mailed("rae@ruled.example"))
        self.assertEqual(self.get("/overrides/{id}/", id=suspended["id"])["response"], suspended)
        self.assertEqual(self.send("GET", "/overrides/", query="user=rae@ruled.example")["response"], [suspended])
        self.send("PUT", "/overrides/{id}/", {"reason": "until Tuesday"}, id=suspended["id"])
        self.assertIn("until Tuesday", self.mailed("rae@ruled.example"))
        self.send("DELETE", "/overrides/{id}/", id=suspended["id"])
        self.assertEqual(self.mailed("rae@ruled.example"), "DUNNO")
        happened = self.send("GET", "/events/", query="name=rae@ruled.example&limit=3")["response"]
        self.assertEqual([event["kind"] for event in happened], ["released", "suspended", "suspended"])
        more = {"domain": "ruled.example", "kind": "extra", "value": 5, "until": "1h"}
        self.send("DELETE", "/overrides/", [self.send("POST", "/overrides/", more, 201)["response"]["id"]])

    def exemption_rows(self) -> None:
        request = inbound(recipient="bob@nearby.example", client_address="198.51.100.7", instance="exempt")
        self.create("domains", name="nearby.example", greylist=True)
        self.assertTrue(self.clients["greylisting"].ask(request).startswith("DEFER_IF_PERMIT"))
        wanted = {"kind": "client", "value": "198.51.100.0/24", "scope": "greylisting", "until": "1h"}
        made = self.send("POST", "/exemptions/", wanted, 201)["response"]
        self.assertEqual(self.clients["greylisting"].ask(request), "DUNNO")
        self.assertEqual(self.get("/exemptions/{id}/", id=made["id"])["response"], made)
        changed = self.send("PUT", "/exemptions/{id}/", {"reason": "our partner"}, id=made["id"])["response"]
        self.assertEqual(changed, {**made, "reason": "our partner"})
        self.assertEqual(self.send("GET", "/exemptions/")["response"], [changed])
        self.send("DELETE", "/exemptions/{id}/", id=made["id"])
        other = {**request, "recipient": "carol@nearby.example"}
        self.assertTrue(self.clients["greylisting"].ask(other).startswith("DEFER_IF_PERMIT"))
        self.send("DELETE", "/exemptions/", [self.send("POST", "/exemptions/", wanted, 201)["response"]["id"]])

    def rate_limit_rows(self) -> None:
        [flood] = self.send("GET", "/live/rate-limits/")["response"]
        self.assertEqual((flood["name"], flood["per"], flood["amount"]), ("flood", "client", 2))
        for instance in ("one", "two", "three"):
            request = outbound(client_address="198.51.100.9", instance=instance, **BODY)
            answer = self.clients["limits"].ask(request)
        self.assertTrue(answer.startswith("DEFER_IF_PERMIT Rate limit exceeded"), answer)
        one: dict[str, Any] = {"name": "flood", "what": "198.51.100.9"}
        use = self.get("/live/rate-limits/{name}/{what}", **one)["response"]
        self.assertEqual((use["used"], use["left"]), (2, 0))
        self.assertEqual(self.send("DELETE", "/live/rate-limits/{name}/{what}", **one)["response"], 2)
        self.assertEqual(self.clients["limits"].ask(request), "DUNNO")

    def mailed(self, user: str) -> str:
        """Send a message; return the answer."""
        request = outbound(sasl_username=user, sender=user, instance=f"{user}.{next(_numbers)}", **BODY)
        return self.clients["outbound"].ask(request)
