"""The locked packages are those that the project requires, with hashes, and their licences are listed."""

from __future__ import annotations

import re
import tomllib
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

LOCKS = ROOT / "requirements"
RENEW = "run: make lock"
_LINE = re.compile(r"([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)")


def locked(name: str) -> dict[str, str]:
    """The versions of a lock by package, all of whose lines have the expected form."""
    comment, _, text = (LOCKS / name).read_text().partition("\n")
    assert comment.startswith("# ")
    found = {str(canonicalize_name(each[1])): str(each[2]) for each in _LINE.finditer(text)}
    assert _LINE.sub("", text).strip() == "", RENEW
    return found


def required(*options: tuple[str, str]) -> list[Requirement]:
    """The requirements of options of setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return [Requirement(line) for place in options for line in config.get(*place).split("\n") if line]


RUN = ("options", "install_requires")
TEST = ("options.extras_require", "test")


@pytest.mark.parametrize(("name", "options"), [("run.txt", [RUN]), ("test.txt", [RUN, TEST])])
def test_each_requirement_has_a_locked_version(name: str, options: list[tuple[str, str]]) -> None:
    versions = locked(name)
    for each in required(*options):
        assert each.specifier.contains(versions.get(canonicalize_name(each.name), "0")), f"{each}: {RENEW}"


def test_the_build_requirement_has_a_locked_version() -> None:
    (each,) = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"])
    assert each.specifier.contains(locked("build.txt")[each.name]), RENEW


def test_the_service_runs_with_the_versions_that_it_is_tested_with() -> None:
    assert locked("run.txt").items() <= locked("test.txt").items(), RENEW


def test_the_licence_of_each_locked_package_is_listed() -> None:
    page = Path(ROOT, "docs", "reference", "licences.md").read_text()
    listed = {
        name for name, licence in re.findall(r"^\| (\S+) \| (.*\w.*) \|$", page, re.MULTILINE) if name != "package"
    }
    assert listed == {*locked("run.txt"), *locked("test.txt"), *locked("build.txt")}, RENEW


def test_the_lock_names_no_place_of_packages() -> None:
    for path in LOCKS.iterdir():
        assert "://" not in path.read_text()
