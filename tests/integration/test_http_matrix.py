"""Every route over HTTP, on each kind of database with each kind of state store.

What each route is asked for is what happened before: over HTTP, in policy requests, or behind the
service's back. Every answer is held against the OpenAPI document of the service that gives it.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import urlencode

from chapps_tw.config.load import load
from chapps_tw.config.write import EDITED
from chapps_tw.mail.addresses import normal_domain
from tests.support.policy_client import encode, inbound, outbound
from tests.support.rest_client import PASSCODE
from tests.support.rows_case import DEFERRAL, OVER_QUOTA, RowsCase
from tests.support.rule_rows import RuleRows
from tests.support.servers.sql import MariaDB, PostgreSQL

NO_QUOTA = "REJECT Rejected - ann has no quota for outgoing mail; ask your provider"
NOT_ALLOWED = "REJECT Rejected - ann is not allowed to send mail as me@other.example"
GREYLISTED = "DEFER_IF_PERMIT Service temporarily unavailable - greylisted"

Names = dict[str, Any]

# Each kind: plural, singular, fields of two entries, and the changes to the first.
KINDS: tuple[tuple[str, str, dict[str, Any], dict[str, Any], dict[str, Any]], ...] = (
    ("users", "user", {"name": "one"}, {"name": "two"}, {"name": "uno"}),
    (
        "domains",
        "domain",
        {"name": "one.example", "greylist": False, "check_spf": True},
        {"name": "two.example", "greylist": True, "check_spf": False},
        {"greylist": True},
    ),
    ("emails", "email", {"name": "a@one.example"}, {"name": "a@two.example"}, {"name": "b@one.example"}),
    ("quotas", "quota", {"name": "one", "quota": 1}, {"name": "two", "quota": 2}, {"quota": 0}),
)

ODD_NAMES = (
    *("a/b", "50%", "%2F", "two words", "Jürgen", "名前", "12345", "0", "a+b@example.com", "x?y#z", "quo\"te'"),
    *("..", "&=;", "for", "for/for", "\\", "🦉"),
)
ODD_EMAILS = (
    *("a/b@example.org", "50%@example.org", "%2F@example.org", "two words@example.org", "jürgen@example.org"),
    *("名前@bücher.example", "12345@1.example", "a+b@example.org", "for@for", "/@example.org", "?#@example.org"),
)
ODD_DOMAINS = ("1.example", "1.2.example", "bücher.example", "ПРИМЕР.example", "_x.example", "for", "EXAMPLE.Net.")


class BookRows(RowsCase):
    """Users, domains, emails, quotas."""

    def book_rows(self) -> None:
        for plural, singular, one, two, change in KINDS:
            with self.subTest(plural):
                self.object_rows(f"/{plural}/", singular, one, two, change)
        self.association_rows()
        self.link_rows()
        self.map_rows()
        self.import_rows()

    def object_rows(
        self, path: str, singular: str, one: Mapping[str, Any], two: Mapping[str, Any], change: Mapping[str, Any]
    ) -> None:
        self.assertEqual(self.get(path)["response"], [])
        first = self.send("POST", path, {singular: one}, 201)["response"]
        second = self.send("POST", path.rstrip("/"), two, 201)["response"]
        added = dict.fromkeys(("each_quota", "pool_quota")) if singular == "domain" else {}
        expected = [{"id": entry["id"], **fields, **added} for entry, fields in ((first, one), (second, two))]
        self.assertEqual([first, second], expected)
        self.assertEqual(self.get(path)["response"], [first, second])
        for query, listed in (("q=tw", [second]), ("q=none", []), ("skip=1", [second]), ("limit=1", [first])):
            self.assertEqual(self.send("GET", path, query=query)["response"], listed)
        self.assertEqual(self.get(path + "{id}", id=first["id"])["response"], first)
        self.assertEqual(self.get(path + "by-name/{name}", name=first["name"])["response"], first)
        self.send(
            "GET", path + "by-name/{name}", status=404, name="none@none.example" if singular == "email" else "none"
        )
        for body in ({singular: {"id": first["id"], **change}}, {"id": first["id"], **change}):
            self.assertEqual(self.send("PUT", path, body)["response"], {**first, **change})
        self.assertEqual(self.send("POST", path, two, 409)["detail"], f"Unique key conflict creating {singular}.")
        self.send("GET", path + "{id}", status=404, id=2**31 - 1)
        self.assertEqual(self.send("DELETE", path, [first["id"]])["response"], "deleted")
        self.assertEqual(self.get(path)["response"], [second])
        self.assertEqual(self.send("DELETE", path, query=f"{singular}_ids={second['id']}")["response"], "deleted")
        self.assertEqual(self.get(path)["response"], [])
        third = self.send("POST", path, one, 201)["response"]
        self.assertEqual(self.send("DELETE", path + "{id}/", id=third["id"])["response"], "deleted")
        self.send("DELETE", path + "{id}/", status=404, id=third["id"])

    def association_rows(self) -> None:
        """Linked entries in the answers."""
        quota, domain, email = (
            self.send("POST", f"/{kind}/", fields, 201)["response"]
            for kind, fields in (
                ("quotas", {"name": "beside", "quota": 11}),
                ("domains", {"name": "beside.example"}),
                ("emails", {"name": "beside@elsewhere.example"}),
            )
        )
        # As a client of CHAPPS knows it.
        plain = {key: value for key, value in domain.items() if not key.endswith("_quota")}
        links = {"quota": quota["id"], "domains": [domain["id"]], "emails": [email["id"]]}
        created = self.send("POST", "/users/", {"user": {"name": "beside"}, **links}, 201)
        user = created["response"]
        for answer in (created, self.get("/users/{id}/", id=user["id"])):
            self.assertEqual([answer[key] for key in links], [quota, [plain], [email]])
        for kind, other in (("domains", domain), ("emails", email)):
            self.assertEqual(self.get(f"/{kind}/{{id}}/", id=other["id"])["users"], [user])
        self.assertEqual(self.get("/quotas/{id}/users/", id=quota["id"])["response"], [user])
        nested = {"quota": quota, "domains": [plain], "emails": [email]}
        self.assertEqual(
            self.send("GET", "/users/", query="with=quota,domains,emails")["response"], [{**user, **nested}]
        )
        changed = self.send("PUT", "/users/", {"user": {"id": user["id"]}, "domains": []})
        self.assertEqual([changed[key] for key in links], [None, None, None])
        self.assertEqual(self.get("/users/{id}/", id=user["id"])["domains"], [plain])
        for kind, singular, other in (("domains", "domain", domain), ("emails", "email", email)):
            changed = self.send("PUT", f"/{kind}/", {singular: {"id": other["id"]}, "users": [user["id"]]})
            self.assertEqual(changed["users"], [user])
        self.assertEqual(self.get("/users/{id}/", id=user["id"])["domains"], [plain])

    def link_rows(self) -> None:
        user = self.create("users", name="linked")
        for other, names in (("domains", ("x.example", "y.example")), ("emails", ("x@x.example", "y@x.example"))):
            first, second = (self.create(other, name=name) for name in names)
            mine, its = f"/users/{{id}}/{other}/", f"/{other}/{{id}}/users/"
            for _ in range(2):
                self.assertEqual(self.send("PUT", mine, [first, second], id=user)["response"], "Updated.")
            self.assertEqual([each["id"] for each in self.get(mine, id=user)["response"]], [first, second])
            for query, listed in (("q=y", [second]), ("skip=1", [second]), ("limit=1", [first])):
                if query == "q=y":
                    query += names[1][1]
                found = self.send("GET", mine, query=query, id=user)["response"]
                self.assertEqual([each["id"] for each in found], listed)
            self.assertEqual(self.get(its, id=first)["response"], [{"id": user, "name": "linked"}])
            self.send("DELETE", mine, [first], id=user)
            self.send("DELETE", its, query=f"user_ids={user}", id=second)
            self.assertEqual(self.get(mine, id=user)["response"], [])
            self.assertEqual(self.send("PUT", its, [user], id=second)["response"], "Updated.")
            self.assertEqual([each["id"] for each in self.get(mine, id=user)["response"]], [second])
        quota = self.create("quotas", name="linked", quota=12)
        put = self.send("PUT", "/users/{id}/quota/{quota_id}", id=user, quota_id=quota)
        self.assertEqual(put["response"], "Updated.")

    def import_rows(self) -> None:
        """Permissions and quotas by many lines."""
        user, quota = self.create("users", name="carol"), self.create("quotas", name="q", quota=5)
        lines = b"# new\nallow:carol:import.example\nquota:carol:q\n"
        told = ["line 2: there is no domain named import.example"]
        self.assertEqual(self.send("POST", "/import/", lines, 409)["remarks"], told)
        [fault] = self.send("POST", "/import/", b"\nnonsense", 422)["detail"]
        self.assertEqual(fault["loc"], ["body", "line 2"])
        done = self.send("POST", "/import", lines, query="create=1")["response"]
        self.assertEqual(done, {"lines": 2, "allowed": 1, "denied": 0, "quotas": 1, "created": 1})
        self.assertEqual(self.send("POST", "/import/", "deny:carol:import.example")["response"]["denied"], 1)
        self.assertEqual(self.send("GET", "/users/{id}/", id=user)["quota"]["id"], quota)
        self.send("DELETE", "/users/", [user])
        self.send("DELETE", "/quotas/", [quota])
        found = self.send("GET", "/domains/", query="q=import.example")["response"]
        self.send("DELETE", "/domains/", [each["id"] for each in found])

    def map_rows(self) -> None:
        users = {each["name"]: each["id"] for each in self.get("/users/")["response"]}
        for other, key in (("quotas", "quota_id"), ("domains", "domain_ids"), ("emails", "email_ids")):
            found = self.get(f"/users/{other}/", {"user_ids": list(users.values())}, "user_ids")["response"]
            self.assertEqual([each["user_name"] for each in found], list(users))
            for each in found:
                shown = self.get("/users/{id}/", id=users[each["user_name"]])
                ids = shown["quota"]["id"] if other == "quotas" else [linked["id"] for linked in shown[other]]
                self.assertEqual(each[key], ids)


class LiveRows(RowsCase):
    """Live state after some mail of ann, who may send ten transmissions as ann.example."""

    def live_rows(self) -> None:
        self.quota = self.create("quotas", name="ten", quota=10)
        self.domain = self.create("domains", name="ann.example")
        self.ann = self.create("users", name="ann", quota=self.quota, domains=[self.domain])
        self.bob = self.create("users", name="bob")
        for _ in range(3):
            self.assertEqual(self.sent(sender="me@ann.example"), "DUNNO")
        self.assertEqual(self.sent(sender="me@other.example"), NOT_ALLOWED)
        self.quota_rows()
        self.no_quota_rows()
        self.sender_rows()
        self.greylisting_rows()
        self.option_cache_rows()

    def quota_rows(self) -> None:
        several = self.get("/live/quota/", {"user_ids": [self.ann, self.bob]}, "user_ids")
        named = self.get("/live/quota/by-name/", {"names": ["ann", "bob"]}, "names")
        self.assertEqual(named["response"], several["response"])
        self.assertEqual([each["user_name"] for each in several["response"]], ["ann", "bob"])
        self.assertEqual([each["quota_avail"] for each in several["response"]], [7, 0])
        one = "/live/quota/{user_id}"
        for found in (self.get(one, user_id=self.ann), self.get(one, {"name": "ann"}, "name", user_id=0)):
            self.assertEqual(found["response"], 7)
            self.assertRegex(found["remarks"][0], "^The last attempt was at ")
        self.assertEqual(self.send("GET", one, {"name": "ann"}, user_id=0)["response"], 7)
        self.send("GET", one, status=400, user_id=0)
        self.send("GET", one, "nobody", status=404, user_id=0)
        self.assertEqual(self.send("DELETE", one, "ann", user_id=0)["response"], 3)
        self.assertEqual(self.send("DELETE", one, user_id=self.ann)["response"], 0)
        self.behind_its_back("UPDATE quotas SET quota = 2 WHERE id = :id", id=self.quota)
        self.assertEqual([self.sent(sender="me@ann.example") for _ in range(2)], ["DUNNO"] * 2)
        self.assertEqual(self.send("POST", one, user_id=self.ann)["response"], 0)
        self.assertEqual(self.sent(sender="me@ann.example"), OVER_QUOTA)
        self.assertEqual(self.send("POST", one, query="name=ann", user_id=0)["response"], 0)
        self.send("POST", one, status=404, user_id=self.bob)

    def no_quota_rows(self) -> None:
        self.send("PUT", "/quotas/", {"id": self.quota, "quota": 100})
        self.assertEqual(self.sent(sender="me@ann.example"), "DUNNO")
        taken = self.send("DELETE", "/users/{id}/quota/", id=self.ann)
        self.assertEqual((taken["response"], taken["remarks"]), ("Updated.", []))
        self.assertEqual(self.sent(sender="me@ann.example"), NO_QUOTA)
        [decided] = self.send("GET", "/live/decisions/", query="user=ann&limit=1")["response"]
        self.assertEqual(decided["reason"], "no_quota")
        left = self.get("/live/quota/{user_id}", user_id=self.ann)
        self.assertEqual(left["response"], 0)
        self.assertIn("User ann has no quota.", left["remarks"])
        again = self.send("DELETE", "/users/{id}/quota", id=self.ann)
        self.assertEqual((again["response"], again["remarks"]), ("Updated.", ["User ann had no quota."]))
        self.send("DELETE", "/users/{id}/quota/", status=404, id=2**31 - 1)
        self.send("PUT", "/users/{id}/quota/{quota_id}", id=self.ann, quota_id=self.quota)
        self.assertEqual(self.sent(sender="me@ann.example"), "DUNNO")

    def sender_rows(self) -> None:
        other = self.create("domains", name="other.example")
        email = self.create("emails", name="me@elsewhere.example")
        given = {"user_ids": [self.ann, self.bob], "domain_ids": [self.domain, other], "email_ids": [email]}
        self.assertEqual(
            self.get("/live/sda/", given)["response"],
            {
                "ann.example": {"ann": "AUTHORIZED", "bob": "NOT CACHED"},
                "other.example": {"ann": "PROHIBITED", "bob": "NOT CACHED"},
                "me@elsewhere.example": {"ann": "NOT CACHED", "bob": "NOT CACHED"},
            },
        )
        self.send("GET", "/live/sda/", {"user_ids": [self.ann]}, 400)
        self.assertEqual(self.send("DELETE", "/live/sda/", given)["response"], "cleared 2 of 6")
        self.assertEqual(self.send("DELETE", "/live/sda/", query=urlencode(given, True))["response"], "cleared 0 of 6")
        one = "/live/sda/{source}/for/{user}"
        for source, status in (("ann.example", "AUTHORIZED"), ("other.example", "PROHIBITED")):
            names: Names = {"source": source, "user": "ann"}
            self.assertEqual(self.get(one, **names)["response"], "NOT CACHED")
            self.sent(sender=f"me@{source}")
            self.assertEqual(self.get(one, **names)["response"], status)
            self.assertEqual(self.send("DELETE", one, **names)["response"], status)
            self.assertEqual(self.get(one, **names)["response"], "NOT CACHED")

    def greylisting_rows(self) -> None:
        self.create("domains", name="grey.example", greylist=True)
        for number, client in enumerate(("198.51.100.7", "2001:db8::7")):
            mail = {"sender": "carl@example.net", "recipient": "bob@grey.example"}
            known, tally = {"client_address": client, **mail}, "/live/grl/tally/{client_address}"
            self.assertEqual(self.get("/live/grl/tuple/", known)["response"], 0.0)
            self.assertTrue(self.received("greylisting", **known).startswith(GREYLISTED))
            self.assertAlmostEqual(self.get("/live/grl/tuple/", known)["response"], time.time(), delta=30)
            self.assertEqual(self.get(tally, client_address=client)["response"], [])
            time.sleep(DEFERRAL)
            self.assertEqual(self.received("greylisting", instance=f"grey.{number}", **known), "DUNNO")
            [[instance, passed]] = self.get(tally, client_address=client)["response"]
            self.assertEqual(instance, f"grey.{number}")
            self.assertAlmostEqual(passed, time.time(), delta=30)
            helped = {**known, "sender": "dora@example.net"}
            self.assertTrue(self.received("greylisting", **helped).startswith(GREYLISTED))
            self.assertEqual(self.send("POST", "/live/grl/tuple/", helped)["response"], "passes")
            self.assertEqual(self.received("greylisting", **helped), "DUNNO")
            self.assertEqual(self.send("DELETE", tally, client_address=client)["response"], "deleted")
            self.assertEqual(self.get(tally, client_address=client)["response"], [])

    def option_cache_rows(self) -> None:
        for policy, flag, listener, off, on in (
            ("grl", "greylist", "greylisting", "DUNNO", GREYLISTED),
            ("spf", "check_spf", "inbound", "PREPEND Received-SPF: fail", "550 5.7.1 SPF check failed"),
        ):
            domain = f"{policy}.example"
            id = self.create("domains", name=domain)
            self.assertTrue(self.received(listener, recipient=f"bob@{domain}").startswith(off))
            self.behind_its_back(f"UPDATE domains SET {flag} = :on WHERE id = :id", on=True, id=id)
            self.assertTrue(self.received(listener, recipient=f"bob@{domain}").startswith(off))
            route = f"/live/{policy}/option_cache/{{domain}}"
            self.assertEqual(self.send("DELETE", route, domain=domain)["response"], "deleted")
            self.assertTrue(self.received(listener, recipient=f"bob@{domain}").startswith(on))


class InsightRows(RowsCase):
    """Health, decisions and explanations. eve sends two transmissions, and may send one."""

    def insight_rows(self) -> None:
        self.assertEqual(self.get("/health")["response"], "alive")
        self.assertIn("[Notify]", self.send("POST", "/notify/test/", status=409)["detail"])
        parts = self.send("GET", "/ready")["response"]
        self.assertEqual([(part["name"], part["up"]) for part in parts], [("state", True), ("database", True)])
        self.assertEqual([node["this"] for node in self.get("/nodes/")["response"]], [True])
        one = self.create("quotas", name="one", quota=1)
        domain = self.create("domains", name="eve.example")
        self.create("users", name="eve", quota=one, domains=[domain])
        eve = {"sasl_username": "eve", "sender": "me@eve.example"}
        self.assertEqual([self.sent(**eve) for _ in range(2)], ["DUNNO", OVER_QUOTA])
        [outbound] = [
            each for each in self.send("GET", "/live/listeners/")["response"] if each["listener"] == "outbound"
        ]
        self.assertGreaterEqual(outbound["stages"][0]["with_login"], 2)
        self.assertEqual([each["peer"] for each in outbound["peers"]], ["127.0.0.1"])
        self.explain_rows(eve)
        self.decision_rows(eve["sender"])
        self.history_rows(eve["sender"])
        self.why_rows()
        self.assertRegex(self.send("GET", "/metrics"), r'(?m)^chapps_decisions_total{action="REJECT",.* [1-9]')
        self.assertEqual(self.send("GET", "/openapi.json"), self.document)
        self.assertIn("<title>CHAPPS-TW</title>", self.send("GET", "/docs"))
        self.assertEqual(self.send("GET", "/", status=307)["response"], "/docs")
        self.config_rows()

    def explain_rows(self, eve: Mapping[str, str]) -> None:
        request = outbound(**eve)
        for body in (request, encode(request), encode(request).replace(b"\n", b"\r\n")):
            for query in ("", "listener=outbound"):
                explained = self.send("POST", "/live/explain/", body, query=query)
                allowed, refused = explained["response"]
                self.assertEqual((explained["answer"], explained["remarks"]), (refused, []))
                self.assertEqual((allowed["policy"], allowed["action"]), ("SenderDomainAuthPolicy", "DUNNO"))
                self.assertEqual((refused["reason"], refused["action"]), ("quota_exceeded", OVER_QUOTA))
                self.assertEqual((refused["figures"]["limit"], refused["figures"]["used"]), (1, 1))
        self.send("POST", "/live/explain/", request, 404, query="listener=nowhere")

    def decision_rows(self, sender: str) -> None:
        newest, oldest = self.get_decisions(user="eve")
        self.assertEqual([oldest["action"], newest["action"]], ["DUNNO", OVER_QUOTA])
        instance = newest["instance"]
        for given in ({"sender": sender, "limit": 1}, {"instance": instance}, {"user": "eve", "instance": instance}):
            self.assertEqual(self.get_decisions(**given), [newest])
        for name in ("user", "sender", "recipient", "instance", "queue_id"):
            self.assertEqual(self.get_decisions(**{name: "nobody's"}), [])
        self.assertEqual(self.get_decisions(client="192.0.2.77"), [])

    def history_rows(self, sender: str) -> None:
        """The history has the same decisions."""
        given = {"user": "Eve", "sender": sender, "client": "203.0.113.0/24", "listener": "outbound"}
        query = urlencode(given)

        def found() -> Any:
            return self.send("GET", "/history/", query=query)["response"]

        self.wait_for("the decisions in the history", lambda: len(found()) == 2)
        for kept, decided in zip(found(), self.get_decisions(user="eve"), strict=True):
            self.assertEqual([kept[name] for name in decided if name != "sequence"], list(decided.values())[1:])
        [eve] = self.send("GET", "/history/counts/", query=query + "&by=user")["response"]
        self.assertEqual([eve[name] for name in ("key", "decisions", "refused", "senders")], ["eve", 2, 1, 1])
        [hour] = self.send("GET", "/history/counts/", query=query + "&by=hour&since=1h&limit=1")["response"]
        self.assertGreater(hour["decisions"], 0)

    def why_rows(self) -> None:
        """The log line, the decision and the explanation give the same reason for greylisting."""
        self.create("domains", name="wary.example", greylist=True, check_spf=True)
        by_spf = "by SPFEnforcementPolicy"
        for sender, detail in (
            (
                "carl@soft.example",
                f"client 203.0.113.0/24; asked for {by_spf} (spf_softfail: mailfrom soft.example ~all)",
            ),
            ("carl@passes.example", f"client passes.example, {by_spf}"),
        ):
            request = inbound(sender=sender, recipient="bob@wary.example", client_address="203.0.113.9")
            explained = self.send("POST", "/live/explain/", request)["answer"]
            self.assertTrue(self.clients["inbound"].ask(request).startswith(GREYLISTED))
            [decided] = self.get_decisions(sender=sender.upper(), instance=request["instance"])
            same = ("listener", "policy", "action", "reason", "figures", "detail", "stage", "client")
            self.assertEqual([explained[name] for name in same], [decided[name] for name in same])
            self.assertEqual((decided["reason"], decided["detail"]), ("greylist_first", detail))
            line = f'instance={request["instance"]} queue_id= stage=RCPT detail="{detail}"'
            self.wait_for("the line in the log", partial(self.is_logged, line))
            names = ("client_address", "sender", "recipient")
            known = {name: request[name] for name in names}
            self.assertAlmostEqual(self.get("/live/grl/tuple/", known)["response"], time.time(), delta=30)

    def is_logged(self, text: str) -> bool:
        return text in self.service.decisions()

    def get_decisions(self, **given: object) -> Any:
        return self.send("GET", "/live/decisions/", query=urlencode(given))["response"]

    def config_rows(self) -> None:
        config = self.service.config
        before = load(str(config), {})
        self.send("POST", "/live/config/write/", "guess", 401)
        self.assertEqual(load(str(config), {}), before)
        written = self.send("POST", "/live/config/write/", PASSCODE)
        self.assertEqual((written["response"], written["remarks"]), (str(config), []))
        config.write_text(config.read_text() + "# by hand\n")
        for remarks in ([EDITED], []):
            self.assertEqual(self.send("POST", "/live/config/write/", PASSCODE)["remarks"], remarks)
        self.assertEqual(load(str(config), {}), before)
        self.assertEqual(stat.S_IMODE(config.stat().st_mode), 0o600)
        self.assertIn("[PostfixSPFActions]", config.read_text())
        self.assertEqual(self.send("POST", "/live/config/reload/")["response"]["changed"], [])
        config.write_text("[Redis]\nport = x\n")
        self.send("POST", "/live/config/reload/", None, 409)


class EmbeddedAndSqliteTests(BookRows, LiveRows, RuleRows, InsightRows):
    def test_every_route_answers_as_the_tables_say(self) -> None:
        self.book_rows()
        self.live_rows()
        self.rule_rows()
        self.insight_rows()
        paths = self.document["paths"].items()
        self.assertEqual(self.asked, {(method.upper(), path) for path, methods in paths for method in methods})

    def test_odd_names_of_users_and_quotas(self) -> None:
        domain = self.create("domains", name="odd.example")
        for number, name in enumerate(ODD_NAMES):
            with self.subTest(name):
                quota = self.create("quotas", name=name, quota=100 + number)
                self.assertEqual(self.get("/quotas/{id}", id=quota)["response"]["name"], name)
                user = self.create("users", name=name, quota=quota, domains=[domain])
                self.check_user(name, user, 100 + number)
                renamed = self.send("PUT", "/users/", {"user": {"id": user, "name": f"new {name}"}})
                self.assertEqual(renamed["response"]["name"], f"new {name.lower()}")

    def check_user(self, name: str, user: int, limit: int) -> None:
        """Users are found by name in a query, in bodies and in a path, as by policies."""
        listed = self.send("GET", "/users/", query=urlencode({"q": name}))["response"]
        self.assertIn({"id": user, "name": name.lower()}, listed)
        request = outbound(sasl_username=name, sender="me@odd.example")
        self.assertEqual(self.clients["outbound"].ask(request), "DUNNO")
        quota = "/live/quota/{user_id}"
        verdict: Names = {"source": "odd.example", "user": name}
        self.assertEqual(self.get(quota, {"name": name}, "name", user_id=0)["response"], limit - 1)
        self.assertEqual(self.send("GET", quota, {"name": name}, user_id=0)["response"], limit - 1)
        self.assertEqual(self.get("/live/sda/{source}/for/{user}", **verdict)["response"], "AUTHORIZED")
        self.assertEqual(self.send("DELETE", "/live/sda/{source}/for/{user}", **verdict)["response"], "AUTHORIZED")
        explained = self.send("POST", "/live/explain/", encode(request))["response"]
        self.assertEqual([each["user"] for each in explained], [name.lower()] * 2)
        decided = self.send("GET", "/live/decisions/", query=urlencode({"user": name}))["response"]
        self.assertEqual([each["user"] for each in decided], [name.lower()])
        self.assertEqual(self.send("DELETE", quota, name, user_id=0)["response"], 1)

    def test_odd_addresses(self) -> None:
        user = self.create("users", name="addressed", quota=self.create("quotas", name="addressed", quota=1000))
        for address in ODD_EMAILS:
            with self.subTest(address):
                created = self.send("POST", "/emails/", {"name": address, "users": [user]}, 201)
                local, _, domain = address.partition("@")
                self.assertEqual(created["response"]["name"], f"{local.lower()}@{normal_domain(domain)}")
                self.assertEqual(self.sent(sasl_username="addressed", sender=address), "DUNNO")
                given: Names = {"source": address, "user": "addressed"}
                self.assertEqual(self.get("/live/sda/{source}/for/{user}", **given)["response"], "AUTHORIZED")

    def test_odd_domains(self) -> None:
        user = self.create("users", name="rooted", quota=self.create("quotas", name="rooted", quota=1001))
        for domain in ODD_DOMAINS:
            with self.subTest(domain):
                created = self.send("POST", "/domains/", {"name": domain, "users": [user], "greylist": True}, 201)
                self.assertEqual(created["response"]["name"], normal_domain(domain))
                self.assertEqual(self.sent(sasl_username="rooted", sender=f"me@{domain}"), "DUNNO")
                given: Names = {"source": domain, "user": "rooted"}
                self.assertEqual(self.get("/live/sda/{source}/for/{user}", **given)["response"], "AUTHORIZED")
                self.assertTrue(self.received("greylisting", recipient=f"bob@{domain}").startswith(GREYLISTED))
                for policy in ("grl", "spf"):
                    self.send("DELETE", f"/live/{policy}/option_cache/{{domain}}", domain=domain)

    def test_what_is_no_domain_is_refused_and_not_taken_for_another_path(self) -> None:
        for name in ("a/b", "%2F", "50%", "two words", "a@b", "名前/", "..", " "):
            self.send("POST", "/domains/", {"name": name}, 422)
            self.send("DELETE", "/live/grl/option_cache/{domain}", status=422, domain=name)
            self.send("GET", "/live/grl/tally/{client_address}", status=422, client_address=name)


# State stores and databases are independent, so that each needs testing with only one of the others.
class RedisAndPostgreSQLTests(EmbeddedAndSqliteTests):
    kind = PostgreSQL
    with_redis = True


class RedisAndMariaDBTests(EmbeddedAndSqliteTests):
    kind = MariaDB
    with_redis = True
