"""The page about the Debian package: its commands in a machine do what it says."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.doc_pages import blocks
from tests.support.doc_session import Session
from tests.support.machine import Machine, machine_of
from tests.support.other_user import needs_root
from tests.support.paths import ROOT
from tests.support.policy_package import documented
from tests.support.servers.common import missing

pytestmark = needs_root

PAGE = ROOT / "docs" / "how-to" / "install-package.md"
# The wheelhouse is for the Python that has made it.
RELEASES = {(3, 11): "bookworm", (3, 13): "trixie"}
# The machine has no network. "make test-packages" has run "make dist", and what else is downloaded is there.
PREPARATION = """
cd /usr/src/chapps
make() { [ "$*" = dist ] && ls dist/*.deb dist/*.whl dist/*.tar.gz dist/wheelhouse; }
export PIP_NO_INDEX=1 PIP_FIND_LINKS=/usr/src/chapps/dist/wheelhouse
echo 'APT::Get::Assume-Yes "true";' > /etc/apt/apt.conf.d/99yes
"""


@pytest.fixture
def machine(package: Path, tmp_path: Path) -> Iterator[Machine]:
    """A machine with what ``make dist`` makes, and the policy of CONTRIBUTING.md."""
    release = RELEASES.get(sys.version_info[:2])
    if release is None:
        raise missing("a Debian with this version of Python")
    with machine_of(release, tmp_path, "python3-pip", "python3-venv") as booted:
        source = booted.root / "usr" / "src" / "chapps"
        shutil.copytree(package.parent, source / "dist")
        for name, text in documented().items():
            (source / name).write_text(text)
        yield booted


def test_the_commands_of_the_page_do_what_it_says(machine: Machine) -> None:
    session = Session(PREPARATION, "shell-session")
    for block in blocks(PAGE):
        session.add(block)
    (machine.root / "script").write_text(session.script)
    problems = session.problems(machine.run("sh", "-c", "exec bash /script 2>&1"))
    assert not problems, "\n\n".join(problems)
