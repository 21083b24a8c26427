"""Events of running services: found on every node, told once."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.support.api_case import APITestCase, Database
from tests.support.policy_client import inbound
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.receivers import WebhookReceiver
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import PostgreSQL, running

KEY = "a key of sixteen or more"


def named(node: str) -> Options:
    return {"CHAPPS": {**PATIENT["CHAPPS"], "node": node}}


class EventsCase(APITestCase):
    def events(self, service: Service, query: str = "") -> list[dict[str, Any]]:
        return list(self.expect(200, service, "GET", f"/events/?{query}")["response"])

    def kinds(self, service: Service, query: str) -> list[str]:
        return [event["kind"] for event in self.events(service, query)]


class TwoNodesTests(EventsCase):
    def test_a_dependency_that_both_nodes_lose_is_told_once_and_nodes_that_start_and_stop(self) -> None:
        redis, webhook = self.run_redis(), WebhookReceiver()
        self.addCleanup(webhook.stop)
        kinds = "dependency_away dependency_back node_stopped suspended"
        shared = (
            Database(PostgreSQL).options,
            {"Redis": {"server": "127.0.0.1", "port": redis.port}},
            {"Notify": {"webhook": webhook.url, "webhook_secret": KEY, "webhook_events": kinds, "retry_after": 0.5}},
        )
        first, second = (self.run_service(*shared, named(name), set_up=name == "mx1") for name in ("mx1", "mx2"))
        redis.kill()
        for node in (first, second):
            self.wait_for("Redis away", lambda node=node: node.http("/ready")[0] == 503)  # type: ignore[misc]
        self.wait_for("the event", lambda: self.kinds(first, "name=state") == ["dependency_away"])
        redis.start()
        self.wait_for("the event", lambda: self.kinds(first, "name=state") == ["dependency_back", "dependency_away"])
        for node in (first, second):
            node.wait_ready()
        self.create(first, "users", name="ann")
        new = {"user": "ann", "kind": "suspended", "until": "1h", "reason": "password stolen"}
        self.expect(201, first, "POST", "/overrides/", new)
        first.stop()
        [stopped] = self.events(second, "kind=node_stopped")
        self.assertEqual((stopped["name"], stopped["node"]), ("mx1", "mx1"))
        started = [event["name"] for event in self.events(second, "kind=node_started")]
        self.assertEqual(started, ["mx2", "mx1"])
        self.assertEqual(self.kinds(second, "name=state"), ["dependency_back", "dependency_away"])
        wait_until(lambda: len(webhook.posts) >= 4, "all notices")
        second.stop()
        told = sorted((post["kind"], post["name"]) for post in map(json.loads, (each.body for each in webhook.posts)))
        once = [("dependency_away", "state"), ("dependency_back", "state"), ("node_stopped", "mx1")]
        self.assertEqual(told, [*once, ("suspended", "ann")])


class OneNodeTests(EventsCase):
    def test_a_database_that_was_away_is_an_event_when_it_is_back(self) -> None:
        with running(PostgreSQL) as server:
            where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": server.new_database()}
            adapter = {"adapter": "postgresql", "db_pass": "secret", **where}
            service = self.run_service(PATIENT, {"PolicyConfigAdapter": adapter}, set_up=True)
            server.kill()
            service.log("The database is unavailable")
            gone = time.monotonic()
            # What is away for less than a second is no event.
            wait_until(lambda: time.monotonic() - gone > 3, "some seconds without it")
            server.start()
            service.wait_ready()
            self.wait_for("both events", lambda: len(self.kinds(service, "name=database")) == 2)
            self.assertEqual(self.kinds(service, "name=database"), ["dependency_back", "dependency_away"])
            [away] = self.events(service, "name=database&kind=dependency_away")
            self.assertIn("The database is unavailable", away["detail"])

    def test_name_servers_that_do_not_answer_are_an_event(self) -> None:
        spf = {"nameservers": f"127.0.0.1:{free_port()}", "spf_query_timeout": 1}
        service = self.run_service(PATIENT, {"SPFEnforcementPolicy": spf})
        domain = self.create(service, "domains", name="checked.example", check_spf=True)
        self.assertTrue(domain)
        with service.client("inbound") as client:
            for number in range(6):
                client.ask(inbound(sender=f"a@d{number}.example", recipient="bob@checked.example"))
        self.wait_for("the event", lambda: self.kinds(service, "name=dns") == ["dependency_away"])
