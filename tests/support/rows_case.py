"""Base class for tests of the HTTP API that run with every combination of stores."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

import jsonschema_rs
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from chapps_tw.security.passcode import make_hash
from tests.support.api_case import APITestCase, Database
from tests.support.policy_client import inbound, outbound
from tests.support.rest_client import PASSCODE, ask
from tests.support.servers.dns import DnsServer, txt
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import MariaDB, PostgreSQL

DEFERRAL = 0.2

OVER_QUOTA = "REJECT Rejected - outbound quota fulfilled"


class RowsCase(APITestCase):
    """A service, and the requests to it.

    :ivar asked: method and route of every request.
    """

    kind: ClassVar[type[PostgreSQL] | type[MariaDB] | None] = None
    with_redis: ClassVar[bool] = False

    service: ClassVar[Service]
    url: ClassVar[str]

    @classmethod
    def setUpClass(cls) -> None:
        policies = {"example.net": "-all", "soft.example": "~all", "passes.example": "+all"}
        dns = DnsServer({name: [txt(f"v=spf1 {policy}")] for name, policy in policies.items()})
        cls.addClassCleanup(dns.stop)
        options: Options = {
            "CHAPPS": {**PATIENT["CHAPPS"], "password": make_hash(PASSCODE)},
            "OutboundQuotaPolicy": {"margin": 0, "rejection_message": OVER_QUOTA},
            "GreylistingPolicy": {"minimum_deferral": DEFERRAL},
            "Limit flood": {"per": "client", "amount": 2, "window": "1h"},
            "SPFEnforcementPolicy": {"nameservers": f"127.0.0.1:{dns.port}"},
        }
        database = Database(cls.kind) if cls.kind else None
        stores = [database.options] if database else []
        if cls.with_redis:
            stores.append({"Redis": {"server": "127.0.0.1", "port": cls.run_redis().port}})
        cls.service = cls.run_service(options, *stores, set_up=bool(database))
        cls.url = database.url if database else cls.service.database

    def setUp(self) -> None:
        self.asked: set[tuple[str, str]] = set()
        self.document = ask(self.service.ports["api"], "GET", "/openapi.json", token=self.service.token).json
        self.validators: dict[str, jsonschema_rs.Validator] = {}
        self.clients = {name: self.service.client(name) for name in ("outbound", "greylisting", "inbound", "limits")}
        for client in self.clients.values():
            self.addCleanup(client.close)

    def tearDown(self) -> None:
        for kind in ("user", "domain", "email", "quota"):
            there = self.send("GET", f"/{kind}s/")["response"]
            self.send("DELETE", f"/{kind}s/", [each["id"] for each in there])

    def send(self, method: str, route: str, body: Any = None, status: int = 200, query: str = "", **values: Any) -> Any:
        """Send a request; return the envelope, or the text of a response that is not JSON.

        :param route: as in the OpenAPI document, except for the final slash.
        :param values: of the path parameters.
        """
        documented = route if route in self.document["paths"] else route + "/"
        self.asked.add((method, documented))
        path = route.format_map({name: quote(str(value), safe="") for name, value in values.items()})
        headers = {"Content-Type": "text/plain"} if isinstance(body, bytes) else {}
        path += f"?{query}" if query else ""
        answer = ask(self.service.ports["api"], method, path, body, headers, self.service.token)
        self.assertEqual(answer.status, status, (method, path, body, answer.body))
        content = self.document["paths"][documented][method.lower()]["responses"][str(status)]["content"]
        self.assertEqual([answer.headers["content-type"]], list(content))
        if "application/json" not in content:
            return answer.body.decode()
        self.validate(answer.json, content["application/json"]["schema"])
        return answer.json

    def validate(self, value: Any, schema: Mapping[str, Any]) -> None:
        """Check a value against a schema of the document. Compiling a schema takes longer than the request."""
        key = json.dumps(schema)
        if key not in self.validators:
            components = self.document["components"]
            self.validators[key] = jsonschema_rs.validator_for({**schema, "components": components})
        self.validators[key].validate(value)

    def get(self, route: str, given: Mapping[str, object] | None = None, bare: str = "", **values: Any) -> Any:
        """GET in every form there is, each with the same answer; returns its envelope.

        What makes one of the forms knows nothing of the stores: with all but one combination it is one form.

        :param given: what stands in the query, or else in the body: as an object, or alone when it is ``bare``.
        """
        found = []
        every = self.kind is None and not self.with_redis
        for path in (route, route.rstrip("/")) if every else (route,):
            found.append(self.send("GET", path, query=urlencode(given or {}, doseq=True), **values))
            if given and every:
                found.append(self.send("GET", path, given[bare] if bare else given, **values))
        for each in found:
            self.assertTrue(each["version"].startswith("CHAPPS-TW v"))
            self.assertAlmostEqual(each["timestamp"], time.time(), delta=30)
            self.assertEqual(_without_time(each), _without_time(found[0]))
        return found[0]

    def create(self, kind: str, **fields: Any) -> int:  # type: ignore[override]
        return int(self.send("POST", f"/{kind}/", fields, 201)["response"]["id"])

    def behind_its_back(self, statement: str, **values: object) -> None:
        """Change the database directly."""
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.begin() as connection:
            connection.execute(text(statement), values)

    def sent(self, **changes: str) -> str:
        return self.clients["outbound"].ask(outbound(**changes))

    def received(self, listener: str, **changes: str) -> str:
        return self.clients[listener].ask(inbound(**changes))


def _without_time(envelope: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in envelope.items() if name not in ("timestamp", "timestamp_iso")}
