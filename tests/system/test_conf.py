"""What is in ``conf/`` works as it is."""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import ProcessCollector

from chapps_tw.config.load import load
from chapps_tw.config.render import render
from chapps_tw.config.settings import Settings
from chapps_tw.policies.registry import BUILT_IN
from tests.support.paths import ROOT
from tests.support.servers.common import free_port, program
from tests.support.servers.postfix import Postfix

CONF = ROOT / "conf"
UNITS = ("chapps.service", "chapps.socket")


def test_the_sample_configuration_is_made_from_the_settings() -> None:
    assert (CONF / "chapps.ini").read_text() == render(load("", added=BUILT_IN.added)), "run: make conf"


def test_the_sample_configuration_holds_the_defaults() -> None:
    sample = load(str(CONF / "chapps.ini"), added=BUILT_IN.added)
    assert replace(sample, path="") == load("", added=BUILT_IN.added)


# --- systemd ---


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, with a program in place of those that are installed."""
    for name in UNITS:
        text = (CONF / name).read_text()
        (tmp_path / name).write_text(re.sub("/opt/chapps/bin/[a-z-]+", "/bin/true", text))
    return tmp_path


def test_the_units_are_clean(units: Path) -> None:
    command = [program("systemd-analyze"), "verify", "--man=no", *(str(units / name) for name in UNITS)]
    verified = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_the_unit_is_hardened(units: Path) -> None:
    command = [program("systemd-analyze"), "security", "--offline=true", "--threshold=15", str(units / UNITS[0])]
    rated = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert rated.returncode == 0, rated.stdout + rated.stderr


def test_the_unit_starts_the_service_of_the_sample_configuration() -> None:
    unit = (CONF / UNITS[0]).read_text()
    assert "\nExecStart=/opt/chapps/bin/twistd -n --pidfile= chapps --config /etc/chapps/chapps.ini\n" in unit
    assert f"\nStateDirectory={Path(Settings().chapps.data_dir).name}\n" in unit


def test_the_unit_lets_the_process_read_what_its_own_figures_are_made_of() -> None:
    assert {"process_start_time_seconds", "process_open_fds"} <= {
        sample.name for metric in ProcessCollector(registry=None).collect() for sample in metric.samples
    }
    # The start is told from /proc/stat, which this hides; without it, none of them is there.
    assert "\nProcSubset=pid\n" not in (CONF / UNITS[0]).read_text()


def test_the_unit_lets_decisions_be_logged() -> None:
    unit = (CONF / UNITS[0]).read_text()
    assert "\nLogsDirectory=chapps\n" in unit
    # The journal's own limit is below what is decided on a busy day.
    assert "\nLogRateLimitIntervalSec=0\n" in unit


def test_the_unit_is_started_for_as_long_as_it_takes_and_before_postfix_itself() -> None:
    unit = (CONF / UNITS[0]).read_text()
    assert "\nStartLimitIntervalSec=0\n" in unit and "\nRestart=always\n" in unit
    assert "\nBefore=postfix.service postfix@-.service\n" in unit


def test_the_socket_is_that_of_the_outbound_listener() -> None:
    unit = (CONF / UNITS[1]).read_text()
    assert f"\nListenStream=127.0.0.1:{Settings().oqp.listen_port}\n" in unit


# --- Postfix ---


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The example as a Postfix reads it, with no complaint: name to value, one line each."""
    directory = tmp_path_factory.mktemp("postfix")
    for name in ("main.cf", "master.cf"):
        shutil.copy(CONF / "postfix" / f"{name}.example", directory / name)
    command = [program("postconf"), "-c", str(directory)]
    options = ("-n", "-M", "-P")
    read = [subprocess.run([*command, option], capture_output=True, text=True, timeout=60) for option in options]
    assert [(each.returncode, each.stderr) for each in read] == [(0, "")] * len(options)
    return dict(line.split(" = ", 1) for line in read[0].stdout.splitlines())


def test_postfix_has_nothing_to_say_against_the_examples(examples: dict[str, str]) -> None:
    settings = examples
    assert f"inet:127.0.0.1:{Settings().oqp.listen_port}," in settings["chapps_outbound"]
    assert f"inet:127.0.0.1:{Settings().spf.listen_port}," in settings["chapps_inbound"]


def test_inbound_mail_is_asked_about_only_when_it_is_for_us(examples: dict[str, str]) -> None:
    restrictions = examples["smtpd_recipient_restrictions"].split(", ")
    assert restrictions.index("reject_unauth_destination") < restrictions.index("$chapps_inbound")


@pytest.mark.parametrize(
    ("name", "patience"),
    [
        ("chapps_outbound", Settings().chapps.request_timeout),
        ("chapps_inbound", Settings().chapps.request_timeout + Settings().spf.spf_query_timeout),
    ],
)
def test_postfix_waits_longer_than_the_service_takes(examples: dict[str, str], name: str, patience: float) -> None:
    timeout = examples[name].partition("timeout=")[2].partition("s")[0]
    assert float(timeout) > patience


@pytest.mark.parametrize(("name", "reply"), [("chapps_outbound", (451, "4.3.0")), ("chapps_inbound", (250, "2.1.5"))])
def test_with_no_service_outbound_mail_is_deferred_and_inbound_mail_flows(
    examples: dict[str, str], name: str, reply: tuple[int, str]
) -> None:
    if os.geteuid() != 0:
        pytest.skip("Postfix can only be started by root")
    restriction = examples[name].removeprefix("check_policy_service ")
    port = Settings().oqp.listen_port if name == "chapps_outbound" else Settings().spf.listen_port
    postfix = Postfix({"RCPT": [restriction.replace(f":{port},", f":{free_port()},")]})
    try:
        with smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as client:
            client.ehlo("client.example.net")
            client.mail("ann@example.com")
            code, text = client.rcpt("bob@example.com")
    finally:
        postfix.stop()
    assert (code, text.decode()[:5]) == reply


def test_the_examples_and_the_guide_count_at_data_what_is_submitted(examples: dict[str, str], tmp_path: Path) -> None:
    """And not at RCPT, where what is never sent counts."""
    settings = examples
    asked = f"check_policy_service {{ inet:127.0.0.1:{Settings().oqp.listen_port}, timeout=5s,"
    assert settings["mua_data_restrictions"] == "$chapps_outbound"
    assert "chapps" not in settings["mua_recipient_restrictions"]
    services = (CONF / "postfix" / "master.cf.example").read_text()
    assert services.count("\n  -o smtpd_data_restrictions=$mua_data_restrictions\n") == 2
    guide = ROOT / "docs" / "how-to" / "configure-postfix.md"
    lines = re.findall(r"^ +-o .*$", guide.read_text(), re.MULTILINE)
    (tmp_path / "main.cf").write_text("")
    (tmp_path / "master.cf").write_text("\n".join(["submission inet n - y - - smtpd", *lines, ""]))
    read = subprocess.run([program("postconf"), "-c", str(tmp_path), "-P"], capture_output=True, text=True, timeout=60)
    assert read.stderr == ""
    (line,) = [line for line in read.stdout.splitlines() if "data_restrictions" in line]
    assert line.partition(" = ")[2].startswith(asked)
