"""The Debian package in bare roots of Debian 12 and 13, under their systemd: installed, upgraded, removed, purged.

``make test-packages`` runs this, and downloads the roots.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, make_root
from tests.support.other_user import needs_root
from tests.support.paths import ROOT
from tests.support.servers.common import missing, program

pytestmark = needs_root

# A commit with earlier versions of the state file and of the tables.
OLD = "53aa7fa"
CLI = ("runuser", "-u", "chapps", "--", "chapps-cli")
ASK = (*CLI, "ask", "--user", "alice@example.com", "--sender", "alice@example.com", "--recipient", "bob@example.net")
LEFT = """
import json, sys, urllib.request
token = open("/var/lib/chapps/api-token").read().strip()
url = "http://127.0.0.1:8080/live/quota/0?name=alice@example.com"
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
print(json.load(urllib.request.urlopen(request))["response"])
"""
# What the programs of every machine write by themselves.
OTHERS = (
    "/var/cache/",
    "/var/lib/dpkg/",
    "/var/lib/systemd/",
    "/var/log/dpkg.log",
    "/var/log/journal/",
    "/var/tmp/",
    "/tmp/",
)


@pytest.fixture(scope="module")
def older(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package with the modules of an older commit."""
    directory = tmp_path_factory.mktemp("older")
    tree, modules = directory / "tree", directory / "modules"
    modules.mkdir()
    archive = subprocess.Popen(
        ["git", "archive", OLD, "chapps_tw", "conf", "migrations"], cwd=ROOT, stdout=subprocess.PIPE
    )
    subprocess.run(["tar", "-x", "-C", str(modules)], stdin=archive.stdout, check=True)
    if archive.wait():
        raise missing("the history of the repository is not there")
    subprocess.run([program("dpkg-deb"), "--raw-extract", str(package), str(tree)], check=True)
    for libraries in tree.glob("opt/chapps/lib/*/site-packages"):
        shutil.rmtree(libraries / "chapps_tw")
        shutil.copytree(modules / "chapps_tw", libraries / "chapps_tw")
    shutil.copy(modules / "conf" / "chapps.ini", tree / "usr" / "share" / "chapps")
    control = tree / "DEBIAN" / "control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 0~"))
    made = directory / "older.deb"
    subprocess.run([program("dpkg-deb"), "-Zxz", "-z0", "--build", str(tree), str(made)], check=True)
    return made


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, package: Path, older: Path, tmp_path: Path) -> Iterator[Machine]:
    root = tmp_path / request.param
    make_root(request.param, root)
    shutil.copy(package, root / "new.deb")
    shutil.copy(older, root / "old.deb")
    booted = Machine(root)
    yield booted
    booted.stop()


def files(machine: Machine) -> set[str]:
    """The files of a machine, and the directories with our name, except what others write."""
    found = machine.run("find", "/", "-xdev", "(", "-not", "-type", "d", "-o", "-name", "*chapps*", ")").splitlines()
    return {path for path in found if not path.startswith(OTHERS)}


def left(machine: Machine) -> int:
    """What remains of the quota of Alice."""
    return int(machine.run("/opt/chapps/bin/python", "-c", LEFT))


def test_the_package_is_installed_upgraded_removed_and_purged(machine: Machine) -> None:
    before = files(machine)
    installed(machine)
    upgraded(machine)
    removed(machine)
    machine.run("dpkg", "--purge", "chapps-tw")
    added = files(machine) - before
    assert not added, added


def installed(machine: Machine) -> None:
    """It runs at once, by the unit as it is."""
    machine.run("dpkg", "--install", "/old.deb")
    assert machine.run("systemctl", "is-enabled", "chapps").strip() == "enabled"
    machine.run("systemctl", "is-active", "chapps")
    assert machine.run("stat", "-c", "%U %a", "/etc/chapps/chapps.ini").strip() == "chapps 600"
    machine.run(*CLI, "admin", "add-examples")
    assert machine.run(*ASK).startswith("action=DUNNO")


def upgraded(machine: Machine) -> None:
    """Nothing is asked, configuration and counts are kept, and the tables are those of the new version."""
    config = "/etc/chapps/chapps.ini"
    machine.run("sed", "-i", "s/^request_timeout = .*/request_timeout = 3/", config)
    unused = left(machine)
    machine.run("dpkg", "--install", "/new.deb")
    machine.run("systemctl", "is-active", "chapps")
    assert left(machine) == unused
    assert machine.run(*ASK).startswith("action=DUNNO")
    assert left(machine) == unused - 1
    assert machine.run("grep", "-c", "^request_timeout = 3$", config).strip() == "1"
    assert machine.run(*CLI, "check-config").strip()
    # The caches of the installed Python are there, as the service cannot write them.
    assert machine.run("sh", "-c", "ls /opt/chapps/lib/*/site-packages/twisted/plugins/dropin.cache").count("\n") == 1
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=20", "chapps.service")
    assert "Traceback" not in machine.run("journalctl", "--unit=chapps", "--output=cat", "--quiet")


def removed(machine: Machine) -> None:
    """Only what was counted and configured stays."""
    machine.run("dpkg", "--remove", "chapps-tw")
    assert machine.fails("systemctl", "is-active", "chapps")
    machine.run("test", "-s", "/etc/chapps/chapps.ini", "-a", "-s", "/var/lib/chapps/state.sqlite3")
    assert machine.fails("test", "-e", "/opt/chapps")
