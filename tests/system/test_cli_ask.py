"""``chapps-cli ask`` finds a running service by its configuration, and says that the request was counted."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.servers.service import Service


def test_the_configured_listener_is_used_and_people_are_told_that_the_request_counts() -> None:
    service = Service().start()
    try:
        command = [
            sys.executable,
            "-m",
            "chapps_tw.application.admin",
            "--config",
            str(service.config),
            "ask",
            "--user",
            "ann",
        ]
        ran = subprocess.run(
            [*command, "--sender", "ann@example.com"], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
    finally:
        service.remove()
    assert (ran.returncode, ran.stdout[:13]) == (0, "action=REJECT"), ran
    assert ran.stderr == "chapps-cli: the request counts like a real message\n"
