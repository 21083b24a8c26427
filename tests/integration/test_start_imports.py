"""A start does not wait for libraries that this configuration, on this database, does not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

OPEN = """
import json, sys
from chapps_tw.config.load import load
from chapps_tw.service import Options, makeService
options = Options()
options["config"] = sys.argv[1]
options.parent = None
options.postOptions()
service = makeService(options)
service._open()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "chapps.ini"
    listen = "\n".join(
        f"[{section}]\nlisten = unix:{section}"
        for section in ("API", "OutboundQuotaPolicy", "GreylistingPolicy", "SPFEnforcementPolicy")
    )
    path.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n{listen}\n")
    return path


def opened(config: Path) -> set[str]:
    """The names of the packages that are imported by the time that everything is open."""
    command = [sys.executable, "-c", OPEN, str(config)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, cwd=config.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_alembic_is_loaded_for_a_database_that_is_behind_alone(config: Path) -> None:
    assert "alembic" in opened(config)
    assert "alembic" not in opened(config)


def test_the_client_of_redis_is_loaded_for_redis_alone(config: Path) -> None:
    assert "txredisapi" not in opened(config)
    config.write_text(f"{config.read_text()}[Redis]\nserver = 127.0.0.1\nport = 1\n")
    assert "txredisapi" in opened(config)


def test_templates_and_the_client_of_smtp_are_loaded_for_notices_alone(config: Path) -> None:
    assert "jinja2" not in opened(config)
    config.write_text(f"{config.read_text()}[Notify]\nuser_events = at_limit\nfrom_address = a@example.com\n")
    assert "jinja2" in opened(config)
