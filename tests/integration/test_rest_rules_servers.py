"""Limits, overrides, exemptions and the audit trail over HTTP, on the database servers, by the running service."""

from __future__ import annotations

from typing import Any

from tests.support.api_case import APITestCase, Database
from tests.support.servers.service import Service
from tests.support.servers.sql import MariaDB, PostgreSQL


class ServerCases:
    """What holds on every server."""

    class Case(APITestCase):
        server: type[PostgreSQL] | type[MariaDB]
        service: Service

        @classmethod
        def setUpClass(cls) -> None:
            cls.service = cls.run_service(Database(cls.server).options, set_up=True)

        def send(self, status: int, method: str, path: str, body: Any = None) -> Any:
            return self.expect(status, self.service, method, path, body)["response"]

        def test_rules_are_kept_listed_and_recorded_with_their_author(self) -> None:
            quota = self.create(self.service, "quotas", name="基本", quota=None)
            domain = self.create(self.service, "domains", name="example.com", each_quota=quota, pool_quota=quota)
            user = self.create(self.service, "users", name="王@example.com", quota=quota)
            big = {"name": "每日", "unit": "bytes", "amount": 2**53, "window": "366d", "action": "hold"}
            limit = self.send(201, "POST", f"/quotas/{quota}/limits/", big)
            self.assertEqual(limit, {**big, "id": limit["id"], "quota": quota, "window": 366 * 86400})
            until = {"until": "2096-10-02T15:06:40.25+08:00", "reason": "垃圾郵件" * 125}
            override = self.send(201, "POST", "/overrides/", {"user": "王@example.com", "kind": "suspended", **until})
            exemption = self.send(
                201,
                "POST",
                "/exemptions/",
                {"kind": "client", "value": "2001:db8::/32", "scope": "limit:flood", **until},
            )
            self.assertEqual(self.send(200, "GET", "/limits/"), [limit])
            self.assertEqual(self.send(200, "GET", f"/overrides/?user_id={user}&active=1"), [override])
            self.assertEqual(self.send(200, "GET", "/exemptions/?active=1"), [exemption])
            for made in (override, exemption):
                self.assertEqual(
                    [made["until"], made["reason"], made["author"]], [4e9 + 0.25, until["reason"], "first"]
                )
            shown = self.send(200, "GET", f"/domains/{domain}/")
            self.assertEqual([shown["each_quota"], shown["pool_quota"]], [quota, quota])
            self.send(200, "DELETE", f"/quotas/{quota}/")
            self.send(200, "DELETE", f"/users/{user}/")
            self.assertEqual([self.send(200, "GET", "/limits/"), self.send(200, "GET", "/overrides/")], [[], []])
            trail = self.send(200, "GET", "/audit/?author=first&since=1h")
            self.assertEqual(
                [(each["action"], each["kind"]) for each in trail],
                [
                    ("delete", "users"), ("delete", "quotas"), ("create", "exemptions"), ("create", "overrides"),
                    ("create", "limits"), ("create", "users"), ("create", "domains"), ("create", "quotas"),
                ],
            )  # fmt: skip


class PostgreSQLTests(ServerCases.Case):
    server = PostgreSQL


class MariaDBTests(ServerCases.Case):
    server = MariaDB
