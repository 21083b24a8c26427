"""The Debian package in bare roots of Debian 12 and 13: upgraded from its oldest build, removed, purged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine import Machine, machine_of
from tests.support.other_user import needs_root

pytestmark = needs_root

CONFIG = "/etc/chapps/chapps.ini"
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


@pytest.fixture(params=["bookworm", "trixie"])
def machine(request: pytest.FixtureRequest, package: Path, older: Path, tmp_path: Path) -> Iterator[Machine]:
    with machine_of(request.param, tmp_path) as booted:
        shutil.copy(package, booted.root / "new.deb")
        shutil.copy(older, booted.root / "old.deb")
        yield booted


def files(machine: Machine) -> set[str]:
    """The files of a machine, and the directories with our name, except what others write."""
    found = machine.run("find", "/", "-xdev", "(", "-not", "-type", "d", "-o", "-name", "*chapps*", ")").splitlines()
    return {path for path in found if not path.startswith(OTHERS)}


def version(machine: Machine) -> str:
    """The version of the installed package."""
    return machine.run("dpkg-query", "--show", "--showformat=${Version}", "chapps-tw")


def dpkg(machine: Machine, *arguments: str) -> None:
    """Run dpkg: it warns of nothing, but that the oldest build had its unit in /lib, which Debian 13 has as a link."""
    lines = machine.run("sh", "-c", 'exec dpkg "$@" 2>&1', "dpkg", *arguments).splitlines()
    warnings = [line for line in lines if "warning" in line.lower() and "unable to delete old directory" not in line]
    assert not warnings, warnings


def left(machine: Machine) -> int:
    """What remains of the quota of Alice."""
    return int(machine.run("/opt/chapps/bin/python", "-c", LEFT))


def test_the_package_is_installed_upgraded_removed_and_purged(machine: Machine) -> None:
    before = files(machine)
    installed(machine)
    upgraded(machine)
    removed(machine)
    dpkg(machine, "--purge", "chapps-tw")
    added = files(machine) - before
    assert not added, added


def installed(machine: Machine) -> None:
    """It runs at once, by the unit as it is."""
    machine.run("dpkg", "--install", "/old.deb")
    assert machine.run("systemctl", "is-enabled", "chapps").strip() == "enabled"
    machine.run("systemctl", "is-active", "chapps")
    assert machine.run("stat", "-c", "%U %a", CONFIG).strip() == "chapps 600"
    machine.run(*CLI, "admin", "add-examples")
    for _ in range(3):
        assert machine.run(*ASK).startswith("action=DUNNO")


def upgraded(machine: Machine) -> None:
    """Nothing is asked, and configuration and counts are kept."""
    machine.run("sed", "-i", "s/^request_timeout = .*/request_timeout = 3/", CONFIG)
    unused, config, older = left(machine), machine.run("cat", CONFIG), version(machine)
    dpkg(machine, "--install", "/new.deb")
    machine.run("dpkg", "--compare-versions", older, "lt", version(machine))
    machine.run("systemctl", "is-active", "chapps")
    assert left(machine) == unused
    assert machine.run(*ASK).startswith("action=DUNNO")
    assert left(machine) == unused - 1
    assert machine.run("cat", CONFIG) == config
    assert "request_timeout = 3\n" in config
    assert machine.run(*CLI, "check-config").strip()
    # The caches of the installed Python are there, as the service cannot write them.
    assert machine.run("sh", "-c", "ls /opt/chapps/lib/*/site-packages/twisted/plugins/dropin.cache").count("\n") == 1
    machine.run("systemd-analyze", "security", "--no-pager", "--threshold=20", "chapps.service")
    assert "Traceback" not in machine.run("journalctl", "--unit=chapps", "--output=cat", "--quiet")


def removed(machine: Machine) -> None:
    """Only what was counted and configured stays."""
    dpkg(machine, "--remove", "chapps-tw")
    assert machine.fails("systemctl", "is-active", "chapps")
    machine.run("test", "-s", CONFIG, "-a", "-s", "/var/lib/chapps/state.sqlite3")
    assert machine.fails("test", "-e", "/opt/chapps")
