"""The oldest build of the Debian package: of the first commit that has one, by its own ``make dist``."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.cache import cached
from tests.support.paths import ROOT
from tests.support.servers.common import missing

_COMMIT = "6d72b22cf6f5de5abea29ef54de35fec93916427"
# What make tells a make below it, and what dates a build.
_OURS = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "SOURCE_DATE_EPOCH")


def older_package() -> Path:
    """Return the package.

    :raises unittest.SkipTest: if the history has not that commit; with ``CI=true`` the test fails instead.
    """
    return cached(f"chapps-tw-{_COMMIT[:7]}.deb", _make)


def _make(path: Path) -> None:
    known = ["git", "cat-file", "-e", f"{_COMMIT}^{{commit}}"]
    if subprocess.run(known, cwd=ROOT, capture_output=True).returncode:
        raise missing(f"the history of the source tree has no commit {_COMMIT[:7]}, of which the older package is made")
    env = {name: value for name, value in os.environ.items() if name not in _OURS}
    with tempfile.TemporaryDirectory() as tree:
        for command in (
            ["git", "clone", "--quiet", "--shared", "--no-checkout", str(ROOT), tree],
            ["git", "-C", tree, "checkout", "--quiet", _COMMIT],
            ["make", "-C", tree, "dist"],
        ):
            subprocess.run(command, env=env, check=True, timeout=900)
        (made,) = Path(tree, "dist").glob("*.deb")
        shutil.copy(made, path)
