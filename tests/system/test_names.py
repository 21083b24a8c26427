"""However a login or an address is spelled, it is one: over the policy port and over HTTP, on each store."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar
from urllib.parse import quote

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from chapps_tw.config.settings import PolicyConfigAdapter
from tests.integration.test_migrations import revise
from tests.integration.test_name_migration import BEFORE
from tests.support.api_case import APITestCase, Database
from tests.support.book_case import engine_for
from tests.support.policy_client import outbound
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import MariaDB, PostgreSQL

LOGIN = "alice@example.org"
SPELLINGS = (LOGIN, "Alice@example.org", "alice@EXAMPLE.ORG", "ALICE@Example.Org.")
# How a name is written into a path or a query: nothing in it may be taken for something else.
QUOTED = [quote(login, safe="") for login in SPELLINGS]


class OneNameCase(APITestCase):
    """A service with alice, who may send ten and is linked to example.org and to an address elsewhere."""

    __test__ = False

    kind: ClassVar[type[PostgreSQL] | type[MariaDB] | None] = None
    with_redis: ClassVar[bool] = False

    service: ClassVar[Service]
    url: ClassVar[str]
    alice: ClassVar[int]

    @classmethod
    def setUpClass(cls) -> None:
        options: Options = {**PATIENT, "OutboundQuotaPolicy": {"margin": 0}}
        database = Database(cls.kind) if cls.kind else None
        stores = [database.options] if database else []
        if cls.with_redis:
            stores.append({"Redis": {"server": "127.0.0.1", "port": cls.run_redis().port}})
        cls.service = cls.run_service(options, *stores, set_up=bool(database))
        cls.url = database.url if database else cls.service.database

    def setUp(self) -> None:
        self.client = self.service.client()
        self.addCleanup(self.client.close)
        self.addCleanup(self.empty)
        quota = self.create(self.service, "quotas", name="ten", quota=10)
        domain = self.create(self.service, "domains", name="Example.ORG")
        friend = self.create(self.service, "emails", name="Friend@Elsewhere.Example")
        links = {"quota": quota, "domains": [domain], "emails": [friend]}
        self.user = self.create(self.service, "users", name="Alice@Example.org", **links)

    def empty(self) -> None:
        for login in QUOTED[:1]:
            self.ask("DELETE", f"/live/quota/0?name={login}", status=None)
        for kind in ("users", "domains", "emails", "quotas"):
            there = self.ask("GET", f"/{kind}/")["response"]
            self.ask("DELETE", f"/{kind}/", [each["id"] for each in there])

    def ask(self, method: str, path: str, body: Any = None, status: int | None = 200) -> Any:
        found, answer = self.service.http(path, method, body)
        if status is not None:
            self.assertEqual(found, status, (method, path, answer))
        return answer

    def sent(self, login: str, sender: str = LOGIN, **changes: str) -> str:
        return self.client.ask(outbound(sasl_username=login, sender=sender, **changes)).split()[0]

    def behind_its_back(self, statement: str, **values: object) -> None:
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    def test_all_spellings_of_a_login_share_one_count(self) -> None:
        for login in SPELLINGS:
            self.assertEqual([self.sent(login), self.sent(login)], ["DUNNO", "DUNNO"], login)
        for login in QUOTED:
            self.assertEqual(self.service.remaining(login), 2)
        self.assertEqual([self.sent(login) for login in SPELLINGS], ["DUNNO", "DUNNO", "REJECT", "REJECT"])
        self.assertEqual(self.ask("DELETE", f"/live/quota/0?name={QUOTED[2]}")["response"], 10)
        self.assertEqual(self.ask("POST", f"/live/quota/0?name={QUOTED[1]}")["response"], 10)
        self.assertEqual(self.sent(SPELLINGS[3]), "DUNNO")

    def test_the_api_finds_the_user_by_any_spelling_and_shows_one(self) -> None:
        shown = self.ask("GET", f"/users/{self.user}/")
        self.assertEqual(shown["response"], {"id": self.user, "name": LOGIN})
        self.assertEqual([each["name"] for each in shown["emails"]], ["friend@elsewhere.example"])
        self.sent(SPELLINGS[1], "x@example.org")
        for login in QUOTED:
            self.assertEqual(self.ask("GET", f"/live/sda/example.org/for/{login}")["response"], "AUTHORIZED")
            decisions = self.ask("GET", f"/live/decisions/?user={login}&sender=x%40example.org&limit=1")["response"]
            self.assertEqual([each["user"] for each in decisions], [LOGIN])
        asked = {"protocol_state": "RCPT", "sasl_username": SPELLINGS[3], "sender": "Friend@ELSEWHERE.example"}
        explained = self.ask("POST", "/live/explain/", asked)["response"]
        self.assertEqual([each["reason"] for each in explained], ["authorized_email", "within_quota"])

    def test_a_second_user_or_address_that_differs_in_case_alone_is_refused(self) -> None:
        for login in SPELLINGS:
            answer = self.ask("POST", "/users/", {"name": login}, status=409)
            self.assertEqual(answer["detail"], "Unique key conflict creating user.")
        bob = self.create(self.service, "users", name="bob")
        self.ask("PUT", "/users/", {"user": {"id": bob, "name": SPELLINGS[1]}}, status=409)
        for name in ("friend@elsewhere.example", "FRIEND@elsewhere.example", "Friend@Elsewhere.Example."):
            self.ask("POST", "/emails/", {"name": name}, status=409)
        self.ask("PUT", "/users/", {"user": {"id": self.user, "name": SPELLINGS[3]}})

    def test_a_linked_address_covers_its_spellings_and_sub_addresses(self) -> None:
        for sender in (
            *("friend@elsewhere.example", "Friend@Elsewhere.Example", "FRIEND@ELSEWHERE.EXAMPLE"),
            *("friend+shop@elsewhere.example", "Friend+Shop+2@elsewhere.example"),
        ):
            self.assertEqual(self.sent("ALICE@example.org", sender), "DUNNO", sender)
        for sender in ("friends@elsewhere.example", "a+friend@elsewhere.example", "friend-x@elsewhere.example"):
            self.assertEqual(self.sent(LOGIN, sender), "REJECT", sender)
        path = f"/live/sda/{quote('Friend+Shop@elsewhere.example')}/for/{QUOTED[1]}"
        self.assertEqual(self.ask("GET", path)["response"], "AUTHORIZED")
        emails = [each["id"] for each in self.ask("GET", "/emails/")["response"]]
        self.ask("DELETE", f"/users/{self.user}/emails/", emails)
        for sender in ("Friend@Elsewhere.Example", "friend+shop@elsewhere.example"):
            self.assertEqual(self.sent(LOGIN, sender), "REJECT", sender)
        self.assertEqual(self.ask("GET", path)["response"], "PROHIBITED")

    def test_the_domain_is_what_follows_the_last_at_sign(self) -> None:
        for sender, answer in (
            *(("x@y@example.org", "DUNNO"), ("x@Example.net@EXAMPLE.ORG", "DUNNO"), ("@example.org", "DUNNO")),
            *(("x@example.org@evil.example", "REJECT"), ("friend@elsewhere.example@evil.example", "REJECT")),
            ("x@y@elsewhere.example", "REJECT"),
        ):
            self.assertEqual(self.sent(LOGIN, sender), answer, sender)
        linked = self.create(self.service, "emails", name='"X@y"@elsewhere.example', users=[self.user])
        self.assertEqual(self.ask("GET", f"/emails/{linked}/")["response"]["name"], "x@y@elsewhere.example")
        self.assertEqual(self.sent(LOGIN, "x@y@Elsewhere.example"), "DUNNO")

    def test_a_user_whose_name_is_the_word_none_is_one(self) -> None:
        quota, domain = (self.ask("GET", f"/{kind}/")["response"][0]["id"] for kind in ("quotas", "domains"))
        self.create(self.service, "users", name="None", quota=quota, domains=[domain])
        self.assertEqual([self.sent("None", "x@example.org"), self.sent("none", "x@example.org")], ["DUNNO"] * 2)
        self.assertEqual(self.service.remaining("None"), 8)

    def test_quotas_of_less_than_nothing_are_nothing_and_that_is_told_once(self) -> None:
        quota, domain = (self.ask("GET", f"/{kind}/")["response"][0]["id"] for kind in ("quotas", "domains"))
        carol = self.create(self.service, "users", name="carol", quota=quota, domains=[domain])
        reasons = []
        for number in (-1, -2, -7):
            self.behind_its_back("UPDATE quotas SET quota = :number", number=number)
            self.ask("POST", f"/live/quota/{carol}")
            self.assertEqual(self.sent("carol", "x@example.org"), "REJECT")
            reasons += self.ask("GET", "/live/decisions/?user=carol&limit=1")["response"]
            left = self.ask("GET", f"/live/quota/{carol}")
            self.assertEqual(left["response"], 0)
            self.assertNotIn("-", "".join(left["remarks"][1:]))
        self.assertEqual([each["reason"] for each in reasons], ["quota_exceeded"] * 3)
        self.assertEqual([each["figures"]["limit"] for each in reasons], [0] * 3)
        self.assertEqual(self.service.log("A negative quota counts").count("A negative quota counts as 0"), 1)

    def test_a_user_whom_another_program_wrote_in_capitals_is_found(self) -> None:
        self.behind_its_back("UPDATE users SET name = 'ALICE@Example.ORG'")
        self.ask("POST", f"/live/quota/{self.user}")
        self.assertEqual([self.sent(login) for login in SPELLINGS], ["DUNNO"] * 4)
        self.assertEqual(self.service.remaining(LOGIN), 6)
        self.assertEqual(self.ask("GET", f"/live/quota/{self.user}")["response"], 6)
        self.ask("POST", "/users/", {"name": LOGIN}, status=409)
        quota = self.ask("GET", "/quotas/")["response"][0]["id"]
        self.ask("PUT", "/quotas/", {"quota": {"id": quota, "quota": 4}})
        self.assertEqual(self.sent(LOGIN), "REJECT")


class StartTests(unittest.TestCase):
    """A service that is started on an SQLite file from before names had one form."""

    def setUp(self) -> None:
        self.service = Service(PATIENT, first_start=True)
        self.addCleanup(self.service.remove)
        engine = engine_for(PolicyConfigAdapter(db_name=str(self.service.directory / "chapps.sqlite3")))
        self.addCleanup(engine.dispose)
        revise(engine, BEFORE)
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO domains (id, name) VALUES (1, 'Example.org')"))
            connection.execute(text("INSERT INTO quotas (id, name, quota) VALUES (1, 'ten', 10), (2, 'twenty', 20)"))
            for id in range(1, 26):
                rows = [{"id": 2 * id, "name": f"User{id}"}, {"id": 2 * id + 1, "name": f"user{id}"}]
                connection.execute(text("INSERT INTO users (id, name) VALUES (:id, :name)"), rows)
            for statement in (
                "INSERT INTO users (id, name) VALUES (1, 'Alice@Example.org')",
                "INSERT INTO domain_user (user_id, domain_id) SELECT id, 1 FROM users",
                "INSERT INTO quota_user (user_id, quota_id) SELECT id, 1 + id % 2 FROM users",
            ):
                connection.execute(text(statement))

    def test_it_finds_everybody_and_logs_what_was_done_about_names(self) -> None:
        self.service.start().wait_ready()
        log = self.service.log("more messages are not shown")
        self.assertIn("Database: Names of domains normalized: 1.", log)
        self.assertIn("'user1' (id 3), 'User1' (id 2). A login by any of these names is id 3", log)
        self.assertEqual(log.count("A login by any"), 18)
        self.assertIn("7 more messages are not shown: run 'chapps-cli admin db-setup'", log)
        with self.service.client() as client:
            for login in SPELLINGS:
                answer = client.ask(outbound(sasl_username=login, sender="x@example.org"))
                self.assertEqual(answer, "DUNNO", login)
        self.assertEqual(self.service.remaining(LOGIN), 16)
        self.service.stop()
        self.service.start().wait_ready()
        listening = f":{self.service.ports['api']}:"
        self.assertEqual(self.service.log(listening, 2).count("A login by any"), 18)


class OneNameOnSqlite(OneNameCase):
    __test__ = True


class OneNameOnRedisAndPostgreSQL(OneNameCase):
    __test__ = True
    kind = PostgreSQL
    with_redis = True


class OneNameOnRedisAndMariaDB(OneNameCase):
    __test__ = True
    kind = MariaDB
    with_redis = True
