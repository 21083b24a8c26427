"""The project installs as a wheel, from its source distribution and editable, and runs outside its repository.

What is installed goes into a new virtual environment each time; the libraries are those of this one.
"""

from __future__ import annotations

import os
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import chapps_tw
from tests.support.paths import ROOT

NOT_SOURCES = shutil.ignore_patterns(
    ".*_cache",
    ".git",
    ".venv",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
    "_trial_temp*",
    "build",
    "dist",
    "var",
    "dropin.cache*",  # written by the services of other tests
)
TWISTD = "from twisted.scripts.twistd import run; run()"
MIGRATIONS = """
from alembic.script import ScriptDirectory
from chapps_tw.database import revisions
import chapps_tw
print(chapps_tw.__file__)
print(revisions.known()[0])
"""


def run(command: list[str], directory: Path, **environment: str) -> str:
    """Run a program without what this environment says about modules; returns its output.

    :raises AssertionError: with its output, when it fails.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "CHAPPS_"))}
    ran = subprocess.run(
        command, cwd=directory, env={**env, **environment}, capture_output=True, text=True, timeout=170
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository."""
    copy = tmp_path_factory.mktemp("packaging") / "sources"
    shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_SOURCES)
    return copy


@pytest.fixture(scope="module")
def built(sources: Path) -> Mapping[str, Path]:
    """A source distribution, a wheel made from that, and a wheel made from the repository."""
    build = [sys.executable, "-m", "build", "--no-isolation", "--skip-dependency-check"]
    run([*build, "--outdir", "from-sdist"], sources)
    run([*build, "--wheel", "--outdir", "direct"], sources)
    return {
        "sdist": next(sources.glob("from-sdist/*.tar.gz")),
        "wheel from sdist": next(sources.glob("from-sdist/*.whl")),
        "wheel": next(sources.glob("direct/*.whl")),
    }


class Environment:
    """A virtual environment that has nothing of the project yet, and the libraries of this one."""

    def __init__(self, directory: Path) -> None:
        venv.create(directory, with_pip=False, symlinks=True)
        self.directory = directory
        self.python = str(directory / "bin" / "python")
        (packages,) = directory.glob("lib/python3*/site-packages")
        # A line of a .pth file is a path, whose own .pth files are not read: an editable install does not come along.
        (packages / "libraries.pth").write_text("\n".join(site.getsitepackages()) + "\n")

    def install(self, *what: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet"]
        run([*pip, "--no-deps", "--no-build-isolation", "--no-index", *what], self.directory)


@pytest.fixture(params=["wheel", "wheel from sdist", "editable"])
def environment(
    request: pytest.FixtureRequest, tmp_path: Path, sources: Path, built: Mapping[str, Path]
) -> Environment:
    made = Environment(tmp_path / "venv")
    if request.param == "editable":
        made.install("--editable", str(sources))
    else:
        made.install(str(built[request.param]))
    return made


def test_the_installed_project_works_outside_the_repository(environment: Environment, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    helped = run([environment.python, "-c", TWISTD, "chapps", "--help"], elsewhere)
    assert "--config" in helped
    where, head = run([environment.python, "-c", MIGRATIONS], elsewhere).split()
    assert not where.startswith(str(ROOT))
    assert head
    cli = str(environment.directory / "bin" / "chapps-cli")
    assert run([cli, "version"], elsewhere) == f"CHAPPS-TW v{chapps_tw.__version__}\n"
    data = {"CHAPPS_CHAPPS_DATA_DIR": str(elsewhere)}
    assert "set up at revision" in run([cli, "--config", "", "admin", "db-setup"], elsewhere, **data)


def test_the_environment_had_nothing_of_the_project(tmp_path: Path) -> None:
    python = Environment(tmp_path / "venv").python
    with pytest.raises(AssertionError, match="No module named 'chapps_tw'"):
        run([python, "-c", "import chapps_tw"], tmp_path)


def files_of_the_package(sources: Path) -> set[str]:
    found = set()
    for directory, _, names in os.walk(sources / "chapps_tw", followlinks=True):
        found |= {str(Path(directory, name).relative_to(sources)) for name in names}
    return {name for name in found if "__pycache__" not in name}


@pytest.mark.parametrize("kind", ["wheel", "wheel from sdist"])
def test_a_wheel_holds_every_file_of_the_package(sources: Path, built: Mapping[str, Path], kind: str) -> None:
    with zipfile.ZipFile(built[kind]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == files_of_the_package(sources) | {"twisted/plugins/chapps_plugin.py"}


def test_the_source_distribution_holds_what_a_packager_needs(built: Mapping[str, Path]) -> None:
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "Makefile", "conf/chapps.service", "tests/system/test_packaging.py", ".ci/run"} <= names
    assert not [name for name in names if name.startswith((".git", ".venv", "var/"))]
