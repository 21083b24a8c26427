"""Which scope of a token each route needs."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from chapps_tw.rest.openapi import operation_id
from chapps_tw.rest.routers.kinds import KINDS
from chapps_tw.rest.routing import Route
from chapps_tw.security.tokens import Scope
from tests.support.rest_client import Node

# All routes that are not GET: what is decided for a new one is written here.
READ = {"POST /live/explain/"}
OPERATOR = {
    "DELETE /live/quota/{user_id}",
    "POST /live/quota/{user_id}",
    "DELETE /live/limits/{user}",
    "DELETE /live/pools/{domain}",
    "DELETE /live/sda/",
    "DELETE /live/sda/{source}/for/{user}",
    "DELETE /live/grl/tally/{client_address}",
    "POST /live/grl/tuple/",
    "DELETE /live/grl/option_cache/{domain}",
    "DELETE /live/spf/option_cache/{domain}",
    "DELETE /live/rate-limits/{name}/{what}",
    "POST /overrides/",
    "DELETE /overrides/",
    "PUT /overrides/{id}/",
    "DELETE /overrides/{id}/",
    "POST /exemptions/",
    "DELETE /exemptions/",
    "PUT /exemptions/{id}/",
    "DELETE /exemptions/{id}/",
}
FULL = {
    *(f"{method} /{kind}/" for method in ("POST", "PUT", "DELETE") for kind in KINDS),
    *(f"DELETE /{kind}/{{id}}/" for kind in KINDS),
    *(f"{method} /users/{{id}}/{other}/" for method in ("PUT", "DELETE") for other in ("domains", "emails")),
    *(f"{method} /{kind}/{{id}}/users/" for method in ("PUT", "DELETE") for kind in ("domains", "emails")),
    "PUT /users/{id}/quota/{quota_id}/",
    "DELETE /users/{id}/quota/",
    "POST /quotas/{id}/limits/",
    "DELETE /limits/",
    "PUT /limits/{id}/",
    "DELETE /limits/{id}/",
    "POST /live/config/reload/",
    "POST /live/config/write/",
    "POST /import/",
    "POST /notify/test/",
}

# Values of parameters in paths.
PATH = {"id": "1", "quota_id": "1", "user_id": "1", "domain": "example.com", "source": "example.com", "user": "alice"}
PATH |= {"client_address": "192.0.2.1", "name": "alice", "what": "alice"}


def decided(route: Route[Any]) -> Scope | None:
    """Return the scope that is decided for a route, ``None`` if nothing is."""
    name = f"{route.method} {route.path}"
    if route.method == "GET" or name in READ:
        return Scope.READ
    return Scope.OPERATOR if name in OPERATOR else Scope.FULL if name in FULL else None


class ScopeTests(TestCase):
    def setUp(self) -> None:
        self.node = Node()
        self.node.start()
        self.addCleanup(self.node.stop)

    def test_the_scope_of_every_route_is_decided(self) -> None:
        routes = self.node.api.routes
        found = {f"{route.method} {route.path}": route.scope for route in routes}
        self.assertEqual(found, {f"{route.method} {route.path}": decided(route) for route in routes})
        self.assertEqual((READ | OPERATOR | FULL) - found.keys(), set())

    async def test_a_token_is_refused_by_the_routes_that_need_more_than_its_scope(self) -> None:
        tokens = {scope: self.node.tokens.create(scope, scope, 1.0) for scope in Scope}
        for route in self.node.api.routes:
            needed = decided(route)
            assert needed is not None
            for scope, token in tokens.items():
                answer = await self.node.ask(route.method, route.path.format(**PATH), token=token)
                if scope.includes(needed):
                    self.assertNotEqual(answer.status, 403, (route.method, route.path, scope))
                else:
                    self.assertEqual(answer.status, 403, (route.method, route.path, scope))
                    wanted = f"This needs a token with scope {needed}; the scope of this one is {scope}."
                    self.assertEqual(answer.detail, wanted)

    async def test_an_operator_does_what_a_help_desk_does(self) -> None:
        token = self.node.tokens.create("desk", "operator", 1.0)
        user = (await self.node.ask("POST", "/users/", {"name": "alice"})).response["id"]
        suspension = {"user": "alice", "kind": "suspended", "until": "1d"}
        exemption = {"kind": "client", "value": "192.0.2.1", "scope": "spf", "until": "1d"}
        for method, path, body, status in (
            ("GET", f"/users/{user}", None, 200),
            ("DELETE", f"/live/quota/{user}", None, 200),
            ("POST", "/overrides/", suspension, 201),
            ("PUT", "/overrides/1", {"until": "2d"}, 200),
            ("DELETE", "/overrides/1", None, 200),
            ("POST", "/exemptions/", exemption, 201),
            ("DELETE", "/exemptions/1", None, 200),
            ("PUT", "/users/", {"id": user, "name": "bob"}, 403),
            ("DELETE", f"/users/{user}", None, 403),
        ):
            answer = await self.node.ask(method, path, body, token=token)
            self.assertEqual(answer.status, status, (method, path, answer.body))

    async def test_the_document_shows_the_scope_that_is_needed(self) -> None:
        paths = (await self.node.ask("GET", "/openapi.json")).json["paths"]
        found = {each["operationId"]: each["security"] for path in paths.values() for each in path.values()}
        shown = [route for route in self.node.api.routes if not route.hidden]
        wanted = {operation_id(each): [] if each.open else [{"token": [each.scope]}] for each in shown}
        self.assertEqual(found, wanted)
        self.assertIn("Needs a token with scope `full`.", paths["/users/"]["post"]["description"])
