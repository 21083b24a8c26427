"""The history of running services."""

from __future__ import annotations

from typing import Any

from chapps_tw.history.writer import MAX_WAITING
from tests.support.api_case import APITestCase, Database
from tests.support.policy_client import outbound
from tests.support.rest_client import ask
from tests.support.servers.common import wait_until
from tests.support.servers.service import PATIENT, Options, Service
from tests.support.servers.sql import PostgreSQL, running


def named(node: str) -> Options:
    return {"CHAPPS": {**PATIENT["CHAPPS"], "node": node}}


class HistoryTestCase(APITestCase):
    def found(self, service: Service, query: str) -> Any:
        return self.expect(200, service, "GET", f"/history/?{query}")["response"]

    def metric(self, service: Service, name: str) -> int:
        text = ask(service.ports["api"], "GET", "/metrics", token=service.token).body.decode()
        [value] = [line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")]
        return int(float(value))

    def refuse(self, service: Service, queue_id: str) -> None:
        with service.client() as client:
            answer = client.ask(outbound(sasl_username="nobody", queue_id=queue_id))
        self.assertTrue(answer.startswith("REJECT"), answer)


class TwoNodesTests(HistoryTestCase):
    def test_what_one_node_refused_is_found_at_the_other_and_after_a_restart_of_both(self) -> None:
        shared = Database(PostgreSQL).options
        first, second = (self.run_service(shared, named(name), set_up=name == "mx1") for name in ("mx1", "mx2"))
        self.refuse(first, "AAA1")
        self.wait_for("the decision at the other node", lambda: self.found(second, "queue_id=AAA1"))
        self.refuse(second, "AAA2")
        self.wait_for("the decision at the other node", lambda: self.found(first, "queue_id=AAA2"))
        [decision] = self.found(first, "queue_id=AAA2")
        self.assertEqual([decision["node"], decision["user"], decision["refused"]], ["mx2", "nobody", True])
        for node in (first, second):
            node.stop()
            node.start().wait_ready()
        for node in (first, second):
            self.assertEqual([each["node"] for each in self.found(node, "refused=1&user=nobody")], ["mx2", "mx1"])


class OneNodeTests(HistoryTestCase):
    def test_decisions_are_kept_over_a_restart_and_the_last_are_written_at_the_stop(self) -> None:
        service = self.run_service(named("mx1"))
        for number in range(3):
            self.refuse(service, f"AAA{number}")
        service.stop()
        self.assertTrue((service.directory / "chapps-history.sqlite3").exists())
        service.start().wait_ready()
        found = self.found(service, "refused=1")
        self.assertEqual([each["queue_id"] for each in found], ["AAA2", "AAA1", "AAA0"])
        [user] = self.expect(200, service, "GET", "/history/counts/?by=user")["response"]
        self.assertEqual((user["key"], user["decisions"], user["refused"]), ("nobody", 3, 3))

    def test_none_are_kept_on_request(self) -> None:
        options: Options = {**PATIENT, "History": {"record": "none"}}
        service = self.run_service(options)
        self.refuse(service, "AAA1")
        service.stop()
        service.start().wait_ready()
        self.assertEqual(self.found(service, ""), [])

    def test_while_the_database_is_away_mail_goes_on_and_the_history_after_it(self) -> None:
        with running(PostgreSQL) as server:
            where = {"db_host": "127.0.0.1", "db_port": server.port, "db_name": server.new_database()}
            service = self.run_service(
                PATIENT, {"PolicyConfigAdapter": {"adapter": "postgresql", "db_pass": "secret", **where}}, set_up=True
            )
            self.refuse(service, "BEFORE")
            self.wait_for("the decision", lambda: self.found(service, "queue_id=BEFORE"))
            server.kill()
            self.refuse(service, "FIRST")
            service.log("The history cannot be written")
            with service.client() as client:
                for number in range(2 * MAX_WAITING + 1000):
                    client.ask(outbound(sasl_username="nobody", queue_id=f"N{number}"))
            detail = self.expect(503, service, "GET", "/history/")["detail"]
            self.assertRegex(detail, "^The history is unavailable: ")
            lost = self.metric(service, "chapps_history_lost_total")
            self.assertTrue(0 < lost <= 1100, lost)
            server.start()
            wait_until(
                lambda: self.metric(service, "chapps_history_written_total") >= 2 * MAX_WAITING, "the decisions written"
            )
            service.log(f"The history is written again; {lost} decisions were lost")
            self.refuse(service, "AFTER")
            self.wait_for("the next decision", lambda: self.found(service, "queue_id=AFTER"))
            self.assertEqual(len(self.found(service, "queue_id=FIRST")), 1)
            self.assertEqual(self.metric(service, "chapps_history_lost_total"), lost)
