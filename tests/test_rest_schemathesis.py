"""The API against its own OpenAPI document, with what Schemathesis makes up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.decision import Decision, Reason
from chapps_tw.decision_log import record_of
from chapps_tw.request import PostfixPolicyRequest
from chapps_tw.rest import auth
from tests.rest_client import Node

SECONDS = 45

# OpenAPI has no words for "one of these query parameters", or for "with id 0 a name".
CONFIG = """
[[operations]]
include-path-regex = "^/live/(sda/|quota/[{]user_id[}])$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"""

# Both take every path for a resource. Here DELETE takes members out of a list of links, or clears what
# is cached, and the list stays; and PUT on a collection has the id in its body, so that a 404 says
# nothing of what was created before. Other tests hold what they check.
EXCLUDED = "use_after_free,ensure_resource_availability"


class SchemathesisTests(TestCase):
    timeout = SECONDS + 100

    def setUp(self) -> None:
        # It tries wrong tokens on every route.
        self.patch(auth, "LONGEST_DELAY", 0.0)
        self.node = Node()
        decision = Decision("REJECT no", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": 5, "used": 5})
        self.node.records = [record_of("outbound", "alice", PostfixPolicyRequest({"sender": "a"}), decision, 1.5)]
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_all_checks_on_all_routes(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            done = await deferToThread(self.run_schemathesis, Path(directory))
        self.assertEqual(done.returncode, 0, done.stdout[-8000:] + done.stderr[-2000:])
        # It leaves out the document itself.
        documented = sum(not route.hidden for route in self.node.api.routes) - 1
        self.assertIn(f"Tested: {documented}\n", done.stdout)
        self.assertIn("Stateful", done.stdout)
        self.assertEqual(self.flushLoggedErrors(), [])

    def run_schemathesis(self, directory: Path) -> subprocess.CompletedProcess[str]:
        config = directory / "schemathesis.toml"
        config.write_text(CONFIG)
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
            f"http://127.0.0.1:{self.node.port}/openapi.json", "--header", f"Authorization: Bearer {self.node.token}",
            "--checks", "all", "--exclude-checks", EXCLUDED, "--phases", "coverage,fuzzing,stateful",
            "--max-examples", "10", "--max-time", str(SECONDS), "--generation-deterministic", "--no-color",
        ]  # fmt: skip
        return subprocess.run(
            command, cwd=directory, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, text=True,
            timeout=SECONDS + 90, check=False,
        )  # fmt: skip
