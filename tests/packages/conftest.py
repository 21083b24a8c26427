"""The Debian package to test, beside which are the other files of ``make dist``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.older_package import older_package
from tests.support.servers.common import missing


@pytest.fixture(scope="session")
def package() -> Path:
    """The package that the environment variable ``CHAPPS_TEST_DEB`` names."""
    named = os.environ.get("CHAPPS_TEST_DEB", "")
    if not named:
        raise missing("CHAPPS_TEST_DEB names no package")
    return Path(named).resolve()


@pytest.fixture(scope="session")
def older(package: Path) -> Path:
    """The oldest build of the package."""
    return older_package()
