"""What cannot work on this machine is told before the start, by ``check-config`` and by the service alike."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chapps_tw.application.preflight import findings
from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError
from tests.support.paths import ROOT
from tests.support.servers.common import free_port, missing, program

Told = Callable[[str], list[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "chapps.ini"


@pytest.fixture
def told(tmp_path: Path, config: Path) -> Told:
    def tell(text: str) -> list[str]:
        config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}/data\n{text}\n")
        try:
            load(str(config), {}, findings)
        except ConfigError as error:
            return error.problems
        return []

    return tell


@pytest.mark.parametrize(
    ("section", "line", "words"),
    [
        ("API", "listen = 8080", "must be a Twisted endpoint, such as tcp:"),
        ("API", "listen = tcpp:8080", "must be a Twisted endpoint, such as tcp:"),
        ("OutboundQuotaPolicy", "listen = tcp:foo", "must be a Twisted endpoint, such as tcp:"),
        ("OutboundQuotaPolicy", "listen = tcp:99999", "must have a port"),
        ("GreylistingPolicy", "listen = unix:/nope/socket", "there is no directory /nope"),
        ("GreylistingPolicy", "listen_address = 192.0.2.1", "this machine has no address 192.0.2.1"),
        ("GreylistingPolicy", "listen_address = localhosst.invalid", "this machine has no address"),
        ("API", "listen = ssl:8443:privateKey=/nope/key.pem", "/nope/key.pem cannot be opened"),
        ("PolicyConfigAdapter", "db_url = oracle://u:hush@h/d", "must be an SQLAlchemy URL that begins with"),
        ("PolicyConfigAdapter", "db_url = nonsense", "must be an SQLAlchemy URL that begins with"),
        ("PolicyConfigAdapter", "db_url = sqlite://", "must name a file"),
        ("Redis", "ca_file = /nope\nserver = r\ntls = True", "must be a readable PEM file"),
        ("Log", "file = /nope/x", "cannot be used: No such file or directory: there is no directory /nope"),
        ("Log", "file = /tmp", "cannot be used: Is a directory"),
        ("API", "token_file = /nope/token", "there is no directory /nope"),
        ("State", "path = /proc/version/state.sqlite3", "cannot be used: Not a directory"),
        ("PolicyConfigAdapter", "db_name = /proc/version/book.sqlite3", "cannot be used: Not a directory"),
    ],
)
def test_it_says_where_what_and_what_would_help(told: Told, config: Path, section: str, line: str, words: str) -> None:
    (found,) = told(f"[{section}]\n{line}")
    option = line.partition(" = ")[0]
    assert found.startswith(f"{config}: line 4: [{section}] {option} = ")
    assert words in found
    assert "hush" not in found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[GreylistingPolicy]\nlisten = systemd:domain=INET:name=policy",
        "[GreylistingPolicy]\nlisten = unix:/run/chapps-not-made-yet/socket",
        "[GreylistingPolicy]\nlisten_address = ::1",
        "[OutboundQuotaPolicy]\nlisten_address =",
        "[Redis]\nca_file = /nope\nserver = r",
        "[API]\ntoken_file = /nope/token\nlisten =",
        "[Log]\nfile =",
        "[PolicyConfigAdapter]\nadapter = postgresql\ndb_host = db.example",
        "[PolicyConfigAdapter]\ndb_url = postgresql://u:p@h/d",
    ],
)
def test_what_can_work_is_not_complained_about(told: Told, text: str) -> None:
    assert told(text) == []


@pytest.mark.parametrize(
    ("data_dir", "words"),
    [
        ("/etc/passwd", "cannot be used: Not a directory"),
        ("/dev/null/chapps", "cannot be used: Not a directory"),
        ("/proc/chapps", "/proc is a view into the kernel (proc), where no file can be made; name another place"),
        ("/sys/kernel/a/b", "/sys/kernel is a view into the kernel (sysfs), where no file can be made"),
        (f"/tmp/{'x' * 300}", "cannot be used: File name too long"),
        (f"/tmp/{'x/' * 3000}", "cannot be used: File name too long"),
    ],
)
def test_a_data_dir_that_cannot_be_is_told(config: Path, data_dir: str, words: str) -> None:
    config.write_text(f"[CHAPPS]\ndata_dir = {data_dir}\n")
    with pytest.raises(ConfigError) as caught:
        load(str(config), {}, findings)
    (found,) = caught.value.problems
    assert found.startswith(f"{config}: line 2: [CHAPPS] data_dir = '{data_dir.rstrip('/')}': ")
    assert words in found


def test_nothing_is_made(told: Told, tmp_path: Path, config: Path) -> None:
    assert told(f"[Log]\nfile = {tmp_path}/decisions.log") == []
    assert list(tmp_path.iterdir()) == [config]


def test_everything_is_told_at_once_with_what_cannot_be_read(told: Told) -> None:
    found = told("[API]\nlisten = tcpp:1\nauth = nope\n[Log]\nfile = /nope/x\n[PolicyConfigAdapter]\ndb_url = nonsense")
    assert len(found) == 4


def test_a_port_that_the_running_service_has_is_no_problem(told: Told) -> None:
    import socket

    with socket.socket() as running:
        running.bind(("127.0.0.1", 0))
        running.listen()
        assert told(f"[API]\nlisten = tcp:{running.getsockname()[1]}:interface=127.0.0.1") == []


def test_check_config_and_the_service_say_the_same(tmp_path: Path, config: Path) -> None:
    config.write_text(
        f"[CHAPPS]\ndata_dir = {tmp_path}/data\n[API]\nlisten = tcpp:{free_port()}\n[Log]\nfile = /nope/x\n"
    )
    twistd = str(Path(sys.executable).with_name("twistd"))
    environ = {**{name: value for name, value in os.environ.items() if name[:7] != "CHAPPS_"}, "PYTHONPATH": str(ROOT)}
    checked, started = (
        subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
        for command in (
            [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(config), "check-config"],
            [twistd, "-n", "--pidfile=", "chapps", "--config", str(config)],
        )
    )
    assert (checked.returncode, started.returncode) == (1, 1)
    lines = checked.stderr.splitlines()
    assert len(lines) == 2
    assert [line.removeprefix("chapps-cli: ") for line in lines] == started.stderr.splitlines()


def test_what_is_mounted_read_only_is_told_as_that(tmp_path: Path, config: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}/data\n[Log]\nfile = {place}/decisions.log\n")
    alone = [program("unshare"), "--user", "--map-root-user", "--mount", "--"]
    if subprocess.run([*alone, "mount", "-t", "tmpfs", "none", str(place)], capture_output=True).returncode:
        raise missing("nothing may be mounted here")
    mounted = f'mount -t tmpfs -o ro none {place} && exec "$@"'
    check = [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(config), "check-config"]
    command = [*alone, "/bin/sh", "-c", mounted, "sh", *check]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "cannot be used: Read-only file system: name another place, or let " in ran.stderr
