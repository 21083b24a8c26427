"""What ``make dist`` makes installs without a network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import chapps_tw
from tests.support.other_user import needs_root
from tests.support.servers.common import program

pytestmark = needs_root


@pytest.mark.parametrize("pattern", ["chapps_tw-*.whl", "chapps_tw-*.tar.gz"])
def test_wheel_and_source_distribution_install_without_a_network(package: Path, tmp_path: Path, pattern: str) -> None:
    (made,) = package.parent.glob(pattern)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    install = [program("unshare"), "--net", str(environment / "bin" / "pip"), "install", "--quiet", "--no-index"]
    wheels = ["--find-links", str(package.parent / "wheelhouse")]
    subprocess.run([*install, *wheels, str(made)], check=True, cwd=tmp_path)
    cli = str(environment / "bin" / "chapps-cli")
    shown = subprocess.run([cli, "version"], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert shown.stdout == f"CHAPPS-TW v{chapps_tw.__version__}\n"
