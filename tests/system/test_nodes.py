"""Nodes that share the state know each other."""

from __future__ import annotations

import time

from tests.support.api_case import APITestCase
from tests.support.command_line import CommandLine
from tests.support.servers.service import PATIENT, Service
from tests.support.worker_pids import workers


class NodesTests(APITestCase):
    def names(self, service: Service) -> list[str]:
        return [each["name"] for each in self.expect(200, service, "GET", "/nodes/")["response"]]

    def test_nodes_list_each_other_with_their_addresses_until_they_end(self) -> None:
        redis = {"Redis": {"server": "127.0.0.1", "port": self.run_redis().port}}
        first = self.run_service(redis, {"CHAPPS": {**PATIENT["CHAPPS"], "node": "mx1"}})
        second = self.run_service(redis, {"CHAPPS": {**PATIENT["CHAPPS"], "node": "mx2", "processes": 2}})
        self.assertEqual(len(workers(second)), 2)
        found = self.expect(200, second, "GET", "/nodes/")["response"]
        self.assertEqual([each["name"] for each in found], ["mx1", "mx2"])
        self.assertEqual([each["this"] for each in found], [False, True])
        self.assertEqual([each["processes"] for each in found], [1, 2])
        self.assertEqual(found[0]["api"], f"http://127.0.0.1:{first.ports['api']}")
        cli = CommandLine(first.config, time.time())
        self.assertEqual([each["this"] for each in cli.json("nodes")], [True, False])
        self.assertEqual(cli.json("top")["nodes"], ["mx1", "mx2"])
        self.assertIn("nodes mx1, mx2", cli.ok("top", "--once"))
        second.stop()
        self.assertEqual(self.names(first), ["mx1"])

    def test_a_node_with_an_embedded_state_knows_itself(self) -> None:
        service = self.run_service({"CHAPPS": {**PATIENT["CHAPPS"], "node": "mx7"}})
        self.assertEqual(self.names(service), ["mx7"])
