"""``make run``: what it prints is true."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.servers.common import Process, free_port, program, wait_until
from tests.support.servers.postfix import Postfix
from tests.support.smtp_client import SMTPClient

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith("CHAPPS_")},
    "PYTHONPATH": str(ROOT),
}


def make_tree(tmp_path: Path) -> Path:
    """A tree with the script in it, and ports that are free."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "run.py", tmp_path / "tools")
    (tmp_path / "var").mkdir()
    policies = ("OutboundQuotaPolicy", "GreylistingPolicy", "SPFEnforcementPolicy")
    ports = "".join(f"[{name}]\nlisten_port = {free_port()}\n" for name in policies)
    (tmp_path / "var" / "chapps.ini").write_text(
        f"{ports}[CHAPPS]\ndata_dir = {tmp_path}/var\n[API]\nlisten = tcp:{free_port()}:interface=127.0.0.1\n"
    )
    return tmp_path


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def running(tree: Path) -> Iterator[Process]:
    process = start(tree, "first.log")
    yield process
    process.stop()


def start(tree: Path, log: str) -> Process:
    process = Process([sys.executable, "tools/run.py"], tree / log, cwd=tree, env=ENVIRONMENT)
    wait_until(lambda: "To try" in process.output() or process.popen.poll() is not None, "the service running")
    return process


def as_printed(tree: Path, running: Process, pattern: str) -> list[str]:
    """The output of each printed command that matches, run in a shell as it stands there."""
    cli = f"{sys.executable} -m chapps_tw.application.admin"
    commands = re.findall(pattern, running.output(), re.MULTILINE)
    assert commands, running.output()
    return [
        subprocess.run(
            command.replace(".venv/bin/chapps-cli", cli),
            shell=True,
            cwd=tree,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=120,
        ).stdout
        for command in commands
    ]


def test_the_printed_questions_are_answered_from_the_examples_and_curl_tells_what_is_left(
    tree: Path, running: Process
) -> None:
    program("curl")
    (before,) = as_printed(tree, running, r"^ +(.*curl .*)$")
    allowed, refused = as_printed(tree, running, r"^ +(\S+chapps-cli .* ask .*)$")
    (after,) = as_printed(tree, running, r"^ +(.*curl .*)$")
    assert allowed.startswith("action=DUNNO\n")
    assert refused.startswith("action=REJECT ")
    assert json.loads(after)["response"] == json.loads(before)["response"] - 1
    (shown,) = as_printed(tree, running, r"^ +(\S+chapps-cli .* why .*)$")
    assert "May send from: example.com" in shown and "Refused " in shown


def test_the_printed_nc_line_works(tree: Path, running: Process) -> None:
    program("nc")
    assert as_printed(tree, running, r"(printf .*)$") == ["action=DUNNO\n\n"]


def test_the_printed_lines_for_postfix_are_for_those_who_log_in_alone(running: Process) -> None:
    hint = running.output().partition("\n3. ")[2].partition("\n\n")[0]
    lines = re.findall(r"^ +-o .*$", hint, re.MULTILINE)
    assert lines, hint
    # As somebody would who does not read closely: what is no line of master.cf goes into main.cf.
    loose = re.findall(r"^ +(smtpd_\w+) = (.*)$", hint, re.MULTILINE)
    postfix = Postfix({}, parameters=dict(loose), submission="\n".join(lines))
    try:
        with SMTPClient(postfix.port) as client:
            client.xclient(ADDR="198.51.100.7")
            assert client.message("stranger@example.net", ["bob@example.com"]).delivered == 1
        with SMTPClient(postfix.submission_port) as client:
            client.xclient(LOGIN="alice@example.com")
            replies = [client.message(f"alice@{name}", ["bob@example.net"]) for name in ("example.com", "example.org")]
        with SMTPClient(postfix.submission_port) as client:
            client.xclient(ADDR="198.51.100.7")
            assert client.message("stranger@example.net", ["bob@example.net"]).codes == [554]
    finally:
        postfix.stop()
    assert [each.delivered for each in replies] == [1, 0]
    code, text = replies[1].data or (0, "")
    assert (code, text.partition("Rejected - ")[2]) == (
        554,
        "alice@example.com is not allowed to send mail as alice@example.org",
    )


def test_ctrl_c_ends_it_and_it_starts_again(tmp_path: Path) -> None:
    tree = make_tree(tmp_path)
    running = start(tree, "first.log")
    # A terminal sends the signal to the script and to the service.
    for child in Path(f"/proc/{running.popen.pid}/task/{running.popen.pid}/children").read_text().split():
        os.kill(int(child), signal.SIGINT)
    assert running.stop(signal.SIGINT) == 0
    again = start(tree, "second.log")
    assert "To try" in again.output()
    assert again.stop() == 0


def test_a_port_that_is_taken_is_named(tree: Path, running: Process) -> None:
    second = start(tree, "second.log")
    assert second.popen.wait(60) == 1
    port = re.findall(r"outbound: (tcp:\d+)", running.output())[0]
    assert f"Another program listens there already:\n  {port}:" in second.output()
    assert "Traceback" not in second.output()
