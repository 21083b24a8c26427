"""The API against its own OpenAPI document, with what Schemathesis makes up."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_record import record_of
from chapps_tw.rest import auth
from tests.support.examples import examples
from tests.support.paths import ROOT
from tests.support.rest_client import Node

# Made up for each operation; and chains of requests that follow on answers.
EACH, CHAINS = examples(2), examples(12)
# It ends by itself; when it does not, it hangs.
SECONDS = 500 + 100 * EACH
CHECKS = ROOT / "tests" / "support" / "schemathesis_checks.py"

# All checks are on. What follows are the operations on which the contract is not what a check takes for granted.
CONFIG = """
[checks]
enabled = true

# OpenAPI 3.1 has no words for "one of these two query parameters", or for "with id 0 a name": without, it is 400.
[[operations]]
include-path-regex = "^/live/(sda/|quota/[{]user_id[}])$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]

# What was created is found by the id in the body. The check looks at parameters only, of which there are none, and
# takes every 404 for one of what was created before. ThereUntilDeleted looks at the body. Maps of users are of all ids
# in the query, which need not be those that were created.
[[operations]]
include-name = [
    "PUT /users/", "PUT /domains/", "PUT /emails/", "PUT /quotas/",
    "GET /users/quotas/", "GET /users/domains/", "GET /users/emails/",
]
checks.ensure_resource_availability.enabled = false

# JSON Schema does not know the time, nor which fields fit a kind: 422 for an end in the past, an override without an
# owner, a value that is not an address, a time before 1970. Names and reasons must be printable in any script.
[[operations]]
include-path-regex = "^/(quotas/[{]id[}]/limits|(limits|overrides|exemptions)(/[{]id[}])?|audit|events)/$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422"]

# DELETE takes members out of a list, and the list stays; or it forgets what a user sent, and the user stays. The
# check takes both for objects that have to be gone.
[[operations]]
include-name = [
    "GET /users/{id}/domains/", "GET /users/{id}/emails/", "GET /domains/{id}/users/", "GET /emails/{id}/users/",
    "GET /live/quota/{user_id}",
]
checks.use_after_free.enabled = false

# Long enough to create something, change it, delete it and ask for it again.
[phases.stateful]
max-steps = 30
"""


@pytest.mark.timeout(SECONDS + 20)
class SchemathesisTests(TestCase):
    timeout = SECONDS + 10

    def setUp(self) -> None:
        # It tries wrong tokens on every route.
        self.patch(auth, "MAX_DELAY", 0.0)
        self.node = Node()
        decision = Decision("REJECT no", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", {"limit": 5, "used": 5})
        self.node.records = [record_of("outbound", "alice", PolicyRequest({"sender": "a"}), decision, 1.5)]
        self.node.start()
        self.addCleanup(self.node.stop)

    async def test_all_checks_on_all_routes(self) -> None:
        done = await self.run_schemathesis("coverage,fuzzing", EACH)
        # It leaves out the document itself.
        documented = sum(not route.hidden for route in self.node.api.routes) - 1
        self.assertIn(f"Tested: {documented}\n", done.stdout)

    async def test_all_checks_on_what_follows_on_answers(self) -> None:
        done = await self.run_schemathesis("stateful", CHAINS, f'hooks = "{CHECKS}"')
        covered = re.search(r"API Links: +([0-9]+) covered", done.stdout)
        assert covered, done.stdout
        self.assertGreater(int(covered[1]), sum(len(route.follow) for route in self.node.api.routes))

    async def run_schemathesis(self, phases: str, count: int, settings: str = "") -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as directory:
            done = await deferToThread(self.run_command, Path(directory), phases, count, settings)
        self.assertEqual(done.returncode, 0, done.stdout[-8000:] + done.stderr[-2000:])
        self.assertEqual(self.flushLoggedErrors(), [])
        return done

    def run_command(self, directory: Path, phases: str, count: int, settings: str) -> subprocess.CompletedProcess[str]:
        config = directory / "schemathesis.toml"
        config.write_text(settings + CONFIG)
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run",
            f"http://127.0.0.1:{self.node.port}/openapi.json", "--header", f"Authorization: Bearer {self.node.token}",
            "--phases", phases, "--max-examples", str(count), "--generation-deterministic",
            "--no-color",
        ]  # fmt: skip
        return subprocess.run(
            command, cwd=directory, env={**os.environ, "PYTHONUTF8": "1"}, capture_output=True, text=True,
            timeout=SECONDS, check=False,
        )  # fmt: skip
