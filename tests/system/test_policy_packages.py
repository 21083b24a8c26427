"""Invalid plug-ins: the service does not start, and check-config says why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.policy_package import POLICY, beside, install
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.service import Service

BROKEN = "import nothing_like_this"
WHY = "package weight 1.2: entry point WeightPolicy = weight:SPEC of chapps_tw.policies: "


@pytest.fixture
def service() -> Iterator[Service]:
    port = free_port()
    listener = {"listen": f"tcp:{port}:interface=127.0.0.1", "policies": "WeightPolicy"}
    made = Service({"Listener bulk": listener})
    made.ports["bulk"] = port
    yield made
    made.remove()


def refused(service: Service, directory: Path) -> str:
    """What a start says that fails."""
    service.launch(beside(directory))
    wait_until(lambda: service.has_ended, "the end of the start")
    assert service.stop() == 1
    return service.log()


def checked(service: Service, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(service.config), "check-config"]
    return subprocess.run(command, env={**os.environ, **beside(directory)}, capture_output=True, text=True, timeout=60)


def test_an_import_error_is_reported_at_the_start_and_by_check_config(service: Service, tmp_path: Path) -> None:
    install(tmp_path, BROKEN)
    sentence = (
        f"{WHY}cannot be imported: ModuleNotFoundError: No module named 'nothing_like_this'; "
        "fix or upgrade the package, or remove it: pip uninstall weight\n"
    )
    assert refused(service, tmp_path).endswith(sentence)
    told = checked(service, tmp_path)
    assert (told.returncode, told.stderr) == (1, f"chapps-cli: {sentence}")


def test_the_name_of_a_built_in_policy_is_rejected(service: Service, tmp_path: Path) -> None:
    install(tmp_path, POLICY.replace('"WeightPolicy"', '"OutboundQuotaPolicy"'))
    assert f"{WHY}a policy OutboundQuotaPolicy exists already, in chapps-tw" in refused(service, tmp_path)


@pytest.mark.parametrize(
    "instead, words",
    [
        ("1 / 0", "it cannot be made: ZeroDivisionError: division by zero"),
        ("object()", "what its make returned has no decide and no explain"),
    ],
)
def test_a_failing_factory_is_reported_at_the_start(service: Service, tmp_path: Path, instead: str, words: str) -> None:
    install(tmp_path, POLICY.replace("lambda use: Policy()", f"lambda use: {instead}"))
    sentence = f"chapps cannot start: package weight 1.2: policy WeightPolicy: {words}; fix or upgrade the package, or"
    assert sentence in refused(service, tmp_path)


def test_conflicting_options_of_a_plug_in_are_reported(service: Service, tmp_path: Path) -> None:
    install(tmp_path)
    service.write_config({"WeightPolicy": {"least": 7}})
    told = checked(service, tmp_path)
    assert told.returncode == 1
    assert "[WeightPolicy] least = 7: must not be more than weight" in told.stderr
    service.write_config({"WeightPolicy": {"least": 2}})
    told = checked(service, tmp_path)
    assert (told.returncode, told.stderr) == (0, "")
    assert "  WeightPolicy: of weight 1.2\n" in told.stdout
