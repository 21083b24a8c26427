"""The image of the service, made and run with podman as the documentation tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.containers import Podman
from tests.support.doc_pages import blocks, commands
from tests.support.doc_session import Session
from tests.support.other_user import needs_root
from tests.support.paths import ROOT
from tests.support.servers.common import wait_until

pytestmark = needs_root

PAGE = ROOT / "docs" / "how-to" / "containers.md"
BUILD, RUN = (next(commands(block)).text for block in blocks(PAGE)[:2])
CLI = ("exec", "chapps", "chapps-cli")
ASK = (*CLI, "ask", "--user", "alice@example.com", "--sender", "alice@example.com", "--recipient", "bob@example.net")

# A reader is slower than the start of the service.
READY = """
docker() {
    podman "$@" && if [ "$1" = run ]; then
        until podman logs chapps 2>&1 | grep -q "listener inbound on"; do sleep 0.1; done
    fi
}
"""


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the image."""
    made = Podman(tmp_path_factory.mktemp("podman"))
    try:
        made.build(BUILD)
        yield made
    finally:
        made.stop()


def start(podman: Podman) -> None:
    """Start the container as the page tells, and with nothing else to write than the volume, as docker does."""
    podman.docker(RUN.replace("--read-only ", "--read-only --read-only-tmpfs=false "))
    wait_until(lambda: "listener inbound on" in podman.run("logs", "chapps"), "the service ready")


def stop(podman: Podman) -> None:
    """Stop the container: after five seconds it would be killed, with 137."""
    podman.run("stop", "--time=5", "chapps")
    assert podman.run("inspect", "--format={{.State.ExitCode}}", "chapps").strip() == "0"
    podman.run("rm", "chapps")


def test_it_answers_without_privileges_on_a_read_only_root(podman: Podman) -> None:
    start(podman)
    assert "action=REJECT Rejected" in podman.run(*ASK)
    podman.run("healthcheck", "run", "chapps")
    assert podman.run("exec", "chapps", "id", "-u").strip() == "10225"
    written = podman.script("podman exec chapps touch /tmp/x /opt/chapps/x /etc/x")
    assert (written.returncode, written.stdout.count("Read-only file system")) == (1, 3)
    stop(podman)


def test_the_volume_keeps_users_and_counts_over_two_runs(podman: Podman) -> None:
    start(podman)
    podman.run(*CLI, "admin", "add-examples")
    assert "action=DUNNO" in podman.run(*ASK)
    stop(podman)
    start(podman)
    assert "action=DUNNO" in podman.run(*ASK)
    assert " limit=1000 used=2 remaining=998 user=alice@example.com " in podman.run("logs", "chapps")
    stop(podman)


def test_the_commands_of_the_page_do_what_it_says(podman: Podman) -> None:
    """All but those of the compose file, whose images are in registries."""
    podman.run("volume", "rm", "--force", "chapps")
    session = Session(READY, "shell-session")
    for block in blocks(PAGE):
        if "docker compose" not in block.text:
            session.add(block)
    ran = podman.script(session.script)
    problems = session.problems(ran.stdout)
    podman.script("podman rm --force chapps")
    assert not problems, "\n\n".join(problems)
