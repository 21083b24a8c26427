"""How much ``chapps-cli`` imports to print its help."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from chapps_tw.cli import command
from chapps_tw.config import load
from tests.support.paths import ROOT

# Each takes longer to import than everything that is needed.
HEAVY = {"sqlalchemy", "alembic", "twisted", "rich", "pydantic", "klein", "prometheus_client"}
CPU_SECONDS = 0.2


@pytest.mark.parametrize("arguments", ["--help", "why --help", "users create --help", "version"])
def test_help_imports_nothing_heavy(arguments: str) -> None:
    program = "\n".join(
        (
            "import sys, time",
            f"sys.argv = ['chapps-cli', *{arguments.split()!r}]",
            "from chapps_tw.application.admin import main",
            "status = main()",
            "print(status, time.process_time(), *{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)",
        )
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    status, seconds, *imported = ran.stderr.split()
    assert status == "0"
    assert not HEAVY & set(imported)
    # The first run compiles the modules; CPU time does not depend on what else runs.
    assert float(seconds) < 5 * CPU_SECONDS
    assert ran.stdout


def test_the_default_configuration_file_is_that_of_the_service() -> None:
    assert command.DEFAULT_PATH == load.DEFAULT_PATH
