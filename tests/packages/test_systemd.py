"""The unit of the Debian package under the systemd of Debian 12 and 13, with all that it forbids: reload, processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.load import Load
from tests.support.machine import Machine, machine_of
from tests.support.other_user import needs_root
from tests.support.policy_client import PolicyClient, outbound
from tests.support.servers.common import wait_until

pytestmark = needs_root

CONFIG = "/etc/chapps/chapps.ini"
DROP_IN = "/etc/systemd/system/chapps.service.d/test.conf"
SOCKET = "/run/chapps/outbound"
OPTIONS = """
[CHAPPS]
processes = {processes}
[Redis]
server = {redis}
[OutboundQuotaPolicy]
listen = unix:/run/chapps/outbound
[SenderDomainAuthPolicy]
rejection_message = {answer}
"""


class Unit:
    """chapps.service of a machine."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def configure(self, answer: str, processes: int = 1) -> None:
        """Write the configuration; all is answered the same."""
        redis = "127.0.0.1" if processes > 1 else ""
        text = OPTIONS.format(processes=processes, redis=redis, answer=answer)
        (self.machine.root / CONFIG[1:]).write_text(text)

    def systemctl(self, command: str) -> None:
        """:raises AssertionError: if systemctl fails."""
        self.machine.run("systemctl", command, "chapps")

    def shows(self, name: str) -> str:
        """Return a property."""
        return self.machine.run("systemctl", "show", "--value", f"--property={name}", "chapps").strip()

    def state(self) -> tuple[str, str]:
        return self.shows("ActiveState"), self.shows("SubState")

    def processes(self) -> set[int]:
        """Return the process ids of the workers, as the machine has them."""
        found = self.machine.run("cat", "/sys/fs/cgroup/system.slice/chapps.service/cgroup.procs")
        return {int(pid) for pid in found.split()} - {int(self.shows("MainPID"))}

    def log(self) -> str:
        return self.machine.run("journalctl", "--unit=chapps", "--output=cat", "--quiet")

    def client(self, listener: str = "outbound") -> PolicyClient:
        return PolicyClient(self.machine.socket(SOCKET))

    def answer(self) -> str:
        with self.client() as client:
            return client.ask(outbound())


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(
    request: pytest.FixtureRequest, package: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    with machine_of(request.param, tmp_path_factory.mktemp("systemd"), "redis-server") as booted:
        shutil.copy(package, booted.root / "new.deb")
        booted.run("dpkg", "--install", "/new.deb")
        yield booted


@pytest.fixture
def unit(machine: Machine) -> Iterator[Unit]:
    """The unit; the service is stopped."""
    found = Unit(machine)
    found.systemctl("stop")
    yield found
    (machine.root / DROP_IN[1:]).unlink(missing_ok=True)


@contextmanager
def loaded(unit: Unit) -> Iterator[Load]:
    """Requests all the time. No connection is closed, and the main process stays."""
    main = unit.shows("MainPID")
    with Load([unit], connections=4) as load:
        load.wait_until_asked(50)
        yield load
        load.wait_until_asked(50)
    assert (load.broken, load.connections) == ([], 4)
    assert (unit.state(), unit.shows("MainPID")) == (("active", "running"), main)


def test_a_reload_puts_the_file_in_force_and_closes_no_connection(unit: Unit) -> None:
    unit.configure("REJECT before")
    unit.systemctl("start")
    with loaded(unit) as load:
        for number in range(3):
            unit.configure(f"REJECT after {number}")
            unit.systemctl("reload")
            load.wait_for(f"REJECT after {number}")


def test_a_reload_of_a_file_with_an_error_fails_and_the_service_goes_on(unit: Unit) -> None:
    unit.configure("REJECT before")
    unit.systemctl("start")
    with loaded(unit) as load:
        (unit.machine.root / CONFIG[1:]).write_text("[CHAPPS]\nrequest_timeout = soon\n")
        assert unit.machine.fails("systemctl", "reload", "chapps")
        assert f"chapps-cli: {CONFIG}: line 2: [CHAPPS] request_timeout = 'soon': must be" in unit.log()
        assert unit.shows("ReloadResult") == "exit-code"
        load.wait_until_asked(50)
        assert load.asked[-1].answer == "REJECT before"
        unit.configure("REJECT after")
        unit.systemctl("reload")
        load.wait_for("REJECT after")


def test_with_notify_reload_a_reload_returns_when_the_file_is_in_force(unit: Unit) -> None:
    """systemd waits for RELOADING=1 with a time after its signal, then for READY=1."""
    if int(unit.machine.run("systemctl", "--version").split()[1]) < 253:
        pytest.skip("this systemd has no Type=notify-reload")
    drop_in = unit.machine.root / DROP_IN[1:]
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text("[Service]\nType=notify-reload\nExecReload=\n")
    unit.machine.run("systemctl", "daemon-reload")
    unit.configure("REJECT before")
    unit.systemctl("start")
    with loaded(unit):
        for number in range(5):
            unit.configure(f"REJECT after {number}")
            unit.systemctl("reload")
            assert unit.answer() == f"REJECT after {number}"


def test_several_processes_answer_are_reloaded_and_started_again(unit: Unit) -> None:
    unit.configure("REJECT before", processes=2)
    unit.systemctl("start")
    first = unit.processes()
    assert len(first) == 2
    with loaded(unit) as load:
        unit.configure("REJECT after", processes=2)
        unit.systemctl("reload")
        load.wait_for("REJECT after")
    killed = min(first)
    unit.machine.run("sh", "-c", f"kill -KILL {killed}")
    wait_until(lambda: len(unit.processes() - {killed}) == 2, "another process")
    (another,) = unit.processes() - first
    wait_until(lambda: f"answers Postfix (pid {another})" in unit.log(), "the other process ready")
    assert {unit.answer() for _ in range(4)} == {"REJECT after"}
    assert (unit.state(), unit.shows("NRestarts")) == (("active", "running"), "0")


def test_without_the_main_process_systemd_starts_all_again(unit: Unit) -> None:
    unit.configure("REJECT", processes=2)
    unit.systemctl("start")
    main, first = unit.shows("MainPID"), unit.processes()
    unit.machine.run("systemctl", "kill", "--kill-who=main", "--signal=KILL", "chapps")
    wait_until(lambda: unit.shows("MainPID") not in ("0", main) and unit.state() == ("active", "running"), "a restart")
    assert len(unit.processes()) == 2 and not unit.processes() & first
    assert unit.answer() == "REJECT"


def test_all_processes_stop_by_themselves_under_load(unit: Unit) -> None:
    unit.configure("REJECT", processes=2)
    unit.systemctl("start")
    with Load([unit], connections=4) as load:
        load.wait_until_asked(50)
        unit.systemctl("stop")
    # systemd would have killed them at the end of TimeoutStopSec.
    assert (unit.state(), unit.shows("Result")) == (("inactive", "dead"), "success")
    assert {each.answer for each in load.asked} == {"REJECT"}
