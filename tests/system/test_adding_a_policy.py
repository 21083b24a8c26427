"""CONTRIBUTING.md, "Adding a policy", does what it says: the package of another author, in the real service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.policy_package import beside, documented
from tests.support.servers.common import free_port, wait_until
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import PATIENT, Service
from tests.support.smtp_client import SMTPClient

REFUSED = 554


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the document."""
    directory = tmp_path_factory.mktemp("sources")
    for name, text in documented().items():
        (directory / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def environment(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """What has Python find the package of the document, built and installed as pip does, beside the service."""
    target = tmp_path_factory.mktemp("target")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(target), str(sources)], check=True, timeout=120)
    return beside(target)


@pytest.fixture
def service(environment: Mapping[str, str]) -> Iterator[Service]:
    """A service whose only listener asks the policy of the document."""
    port = free_port()
    listener = {"listen": f"tcp:{port}:interface=127.0.0.1", "policies": "RecipientLimitPolicy"}
    made = Service({**PATIENT, "RecipientLimitPolicy": {"limit": 3}, "Listener bulk": listener})
    made.ports["bulk"] = port
    try:
        yield made.start(environment).wait_ready()
    finally:
        made.remove()


@pytest.fixture
def postfix(service: Service) -> Iterator[Postfix]:
    made = Postfix({"DATA": [service.endpoint("bulk")]})
    yield made
    made.stop()


def cli(environment: Mapping[str, str], *arguments: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "chapps_tw.application.admin", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=60)


def text_of(service: Service, path: str) -> str:
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.ports['api']}{path}", headers={"Authorization": f"Bearer {service.token}"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return str(reply.read().decode())


def test_the_document_holds_the_whole_package() -> None:
    assert list(documented()) == ["chapps_recipient_limit.py", "pyproject.toml"]


def test_its_answer_reaches_the_smtp_client_and_its_reason_the_log_the_metrics_and_the_api(
    service: Service, postfix: Postfix
) -> None:
    with SMTPClient(postfix.port) as client:
        few = client.message("ann@example.net", [f"r{number}@example.com" for number in range(3)])
        many = client.message("ann@example.net", [f"r{number}@example.com" for number in range(4)])
    assert few.delivered == 3
    assert many.data is not None
    assert (many.data[0], "4 recipients, 3 are allowed" in many.data[1]) == (REFUSED, True)
    wait_until(lambda: service.decisions().count("\n") == 2, "both decisions in the log")
    assert "policy=RecipientLimitPolicy action=DUNNO reason=few_recipients limit=3 used=3" in service.decisions()
    assert " reason=too_many_recipients limit=3 used=4 " in service.decisions()
    counted = [line for line in text_of(service, "/metrics").splitlines() if "too_many_recipients" in line]
    assert len(counted) == 1 and counted[0].startswith("chapps_decisions_total{") and counted[0].endswith(" 1.0")
    assert 'policy="RecipientLimitPolicy"' in counted[0]
    _, told = service.http("/live/decisions/")
    assert [each["reason"] for each in told["response"]] == ["too_many_recipients", "few_recipients"]


def test_its_reasons_are_described_with_the_others_and_explained(service: Service) -> None:
    document = json.loads(text_of(service, "/openapi.json"))
    reason = document["components"]["schemas"]["Decided"]["properties"]["reason"]
    assert {"too_many_recipients", "within_quota"} <= set(reason["enum"])
    assert "`too_many_recipients`: The message goes to more recipients" in reason["description"]
    question = {"protocol_state": "DATA", "recipient_count": "4"}
    status, told = service.http("/live/explain/", "POST", question)
    assert (status, told["answer"]["reason"]) == (200, "too_many_recipients")
    assert told["answer"]["action"] == "REJECT 4 recipients, 3 are allowed"


def test_its_section_is_checked_and_written_as_the_others_are(environment: Mapping[str, str], tmp_path: Path) -> None:
    config = tmp_path / "chapps.ini"
    config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n[RecipientLimitPolicy]\nlimit = many\nlimmit = 3\n")
    checked = cli(environment, "--config", str(config), "check-config")
    assert checked.returncode == 1
    assert "line 4: [RecipientLimitPolicy] limit = 'many': must be a whole number from 1 to 100000" in checked.stderr
    assert "line 5: [RecipientLimitPolicy] limmit: unknown option; did you mean limit?" in checked.stderr
    variable = {"CHAPPS_RECIPIENTLIMITPOLICY_LIMIT": "7"}
    config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n")
    written = cli({**environment, **variable}, "--config", str(config), "admin", "flush-config")
    assert written.returncode == 0, written.stderr
    assert "[RecipientLimitPolicy]\n" in config.read_text()
    assert "# Recipients that one message may have.\nlimit = 7\n" in config.read_text()
    assert cli(environment, "--config", str(config), "check-config").stderr == ""


def test_as_a_policy_of_the_project_it_needs_its_file_and_its_place_in_the_registry(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "chapps_tw", tmp_path / "chapps_tw", ignore=shutil.ignore_patterns("__pycache__"))
    policies = tmp_path / "chapps_tw" / "policies"
    (policies / "recipient_limit.py").write_text(documented()["chapps_recipient_limit.py"])
    registry = (policies / "registry.py").read_text()
    assert registry.count("BUILT_IN = Registry((") == registry.count("import greylisting,") == 1
    registry = registry.replace("BUILT_IN = Registry((", "BUILT_IN = Registry((recipient_limit.SPEC, ")
    (policies / "registry.py").write_text(
        registry.replace("import greylisting,", "import recipient_limit, greylisting,")
    )
    config = tmp_path / "chapps.ini"
    listener = "[Listener bulk]\nlisten = tcp:9:interface=127.0.0.1\npolicies = RecipientLimitPolicy\n"
    config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n[RecipientLimitPolicy]\nlimit = 3\n{listener}")
    checked = cli({"PYTHONPATH": str(tmp_path)}, "--config", str(config), "check-config", directory=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "  bulk: tcp:9:interface=127.0.0.1: RecipientLimitPolicy\n" in checked.stdout
    assert "chapps-tw" not in checked.stdout


def test_it_is_strictly_typed(sources: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "chapps_recipient_limit.py"]
    env = {**os.environ, "MYPYPATH": str(ROOT)}
    checked = subprocess.run(command, cwd=sources, env=env, capture_output=True, text=True, timeout=170)
    assert checked.returncode == 0, checked.stdout


def test_where_it_is_not_installed_its_section_and_name_are_unknown(tmp_path: Path) -> None:
    config = tmp_path / "chapps.ini"
    listener = "[Listener bulk]\nlisten = tcp:1\npolicies = RecipientLimitPolicy\n"
    config.write_text(f"[RecipientLimitPolicy]\nlimit = 3\n{listener}")
    checked = cli({"PYTHONPATH": str(ROOT)}, "--config", str(config), "check-config")
    assert "unknown section [RecipientLimitPolicy]" in checked.stderr
    assert "[Listener bulk] policies = 'RecipientLimitPolicy': must be a list without duplicates of" in checked.stderr
