"""Conflicting options, and options without effect."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapps_tw.config.checks import port_and_interface
from chapps_tw.mail.request import ATTRIBUTES
from tests.support.config_case import problems, read
from tests.support.paths import RECORDED, RECORDED_3_10


def test_conflicts_are_reported_with_other_errors(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[API]\nauth = none\nlisten = tcp:8080\n[CHAPPS]\nuser_key =\nrequest_timeout = soon\n"
        "[GreylistingPolicy]\ncache_ttl = 60\nlisten_port = 10225\n[Redis]\nsentinel_dataset = mail\n",
    )
    assert len(found) == 6
    for option in ("auth", "user_key", "request_timeout", "cache_ttl", "listen_port", "sentinel_dataset"):
        assert sum(f"] {option} = " in line for line in found) == 1, found


def test_conflicts_with_an_invalid_option_are_not_reported(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[API]\nauth = nome\nlisten = tcp:8080\n")
    assert "did you mean none?" in found
    for lifetime in ("cache_ttl", "retry_window"):
        (found,) = problems(tmp_path, f"[GreylistingPolicy]\nminimum_deferral = 1h\n{lifetime} = 30\n")
        assert "] minimum_deferral = " in found
    (found,) = problems(tmp_path, "[OutboundQuotaPolicy]\nlisten_port = x\n[API]\nlisten = tcp:10225\n")
    assert "must be a whole number" in found


def test_a_retry_window_shorter_than_the_deferral_is_rejected(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[GreylistingPolicy]\ncache_ttl = 600\nminimum_deferral = 600\n")
    assert "[GreylistingPolicy] cache_ttl = '600': must be greater than minimum_deferral (600)" in found
    assert read(tmp_path, "[GreylistingPolicy]\ncache_ttl = 601\nminimum_deferral = 600\n").grl.retry_window == 601


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tcp:1", "tcp:1:interface=127.0.0.1"),
        ("tcp:1:interface=localhost", "tcp:port=1:interface=127.0.0.1"),
        ("tcp:1:interface=127.0.0.1", r"tcp6:1:interface=\:\:"),
        ("tcp:1", "ssl:1:privateKey=k"),
        ("unix:/run/x", "unix:/run/x"),
        (r"unix:/run/x\:y", r"haproxy:unix:mode=600:address=/run/x\:y"),
    ],
)
def test_a_port_cannot_be_used_twice(tmp_path: Path, one: str, other: str) -> None:
    listener = "[Listener {0}]\nlisten = {1}\npolicies = GreylistingPolicy\n"
    (found,) = problems(tmp_path, listener.format("a", one) + listener.format("b", other))
    assert f"[Listener b] listen = {other!r}: is already used by listener a ({one})" in found


def test_different_addresses_and_ephemeral_ports_do_not_conflict(tmp_path: Path) -> None:
    for one, other in (
        ("tcp:1:interface=127.0.0.1", r"tcp6:1:interface=\:\:1"),
        ("tcp:0", "tcp:0:interface=127.0.0.1"),
        ("unix:/run/x", "unix:/run/y"),
        ("systemd:domain=INET:name=a", "systemd:domain=INET:name=b"),
    ):
        listener = "[Listener {0}]\nlisten = {1}\npolicies = GreylistingPolicy\n"
        assert len(read(tmp_path, listener.format("a", one) + listener.format("b", other)).listeners) == 2


def test_duplicate_listeners_are_rejected(tmp_path: Path) -> None:
    listener = "[Listener {0}]\nlisten = tcp:{1}\npolicies = GreylistingPolicy\n"
    (found,) = problems(tmp_path, listener.format("a", 1) + listener.format(" a ", 2))
    assert "rename one of the sections [Listener a]" in found


def test_port_and_interface_of_an_endpoint() -> None:
    assert port_and_interface(r"tcp6:25:interface=\:\:1:backlog=9") == (25, "::1")
    assert port_and_interface("haproxy:tcp:port=25") == (25, "")
    assert port_and_interface("tcp:25x") == port_and_interface("unix:/tcp:25") == (-1, "")


# --- told, but not refused ---


def test_every_documented_attribute_can_be_the_user_key() -> None:
    files = [*RECORDED.glob("*.req"), *RECORDED_3_10.glob("*.req")]
    lines = [line for file in files for line in file.read_bytes().split(b"\n") if line]
    sent = {line.partition(b"=")[0].decode() for line in lines}
    assert "sasl_username" in sent
    assert sent <= set(ATTRIBUTES)


def test_an_undocumented_attribute_is_accepted_with_a_warning(tmp_path: Path) -> None:
    settings = read(tmp_path, "[CHAPPS]\nuser_key = oauth_subject\n")
    assert settings.chapps.user_key == "oauth_subject"
    (told,) = settings.warnings
    assert "[CHAPPS] user_key = 'oauth_subject': is not a documented attribute of Postfix" in told
    assert "all mail is refused" in told


def test_spf_with_greylist_actions_but_no_greylisting_is_a_warning(tmp_path: Path) -> None:
    alone = "[Listener in]\nlisten = unix:/run/x\npolicies = {}\n"
    for policies in ("SPFEnforcementPolicy", "GreylistingPolicy SPFEnforcementPolicy"):
        (told,) = read(tmp_path, alone.format(policies)).warnings
        assert "[Listener in] policies" in told
        assert "(softfail, none_neutral) passes with a header" in told
    assert not read(tmp_path, alone.format("SPFEnforcementPolicy GreylistingPolicy")).warnings
    never = "[PostfixSPFActions]\nsoftfail = prepend\nnone_neutral = dunno\n"
    assert not read(tmp_path, never + alone.format("SPFEnforcementPolicy")).warnings


@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("[Redis]\npassword = hush", "[Redis] password = '********'"),
        ("[Redis]\nport = 6380", "[Redis] port = 6380"),
        ("[Redis]\nserver = r\nca_file = /etc/ca.pem", "[Redis] ca_file"),
        ("[PolicyConfigAdapter]\ndb_host = db.example", "[PolicyConfigAdapter] db_host"),
        ("[SPFEnforcementPolicy]\nwhitelist = ['a']", "[SPFEnforcementPolicy] whitelist"),
    ],
)
def test_options_without_effect_are_a_warning(tmp_path: Path, text: str, option: str) -> None:
    (told,) = read(tmp_path, text).warnings
    assert option in told and "has no effect" in told


def test_options_with_effect_are_no_warning(tmp_path: Path) -> None:
    assert not read(tmp_path, "").warnings
    assert not read(
        tmp_path,
        "[Redis]\nserver = r\nport = 1\ntls = True\nca_file = /etc/ca.pem\n"
        "[PolicyConfigAdapter]\nadapter = postgresql\ndb_host = db.example\n[SPFEnforcementPolicy]\nwhitelist = []\n",
    ).warnings


@pytest.mark.parametrize("text", ["adapter = postgresql", "adapter = mariadb", "db_url = postgresql://u:hunter2@h/d"])
def test_a_shared_database_with_local_state_is_a_warning(tmp_path: Path, text: str) -> None:
    (told,) = read(tmp_path, f"[PolicyConfigAdapter]\n{text}\n").warnings
    assert "[State] path = '/var/lib/chapps/state.sqlite3': is local to this node: " in told
    assert "hunter2" not in told
    assert not read(tmp_path, f"[PolicyConfigAdapter]\n{text}\n[Redis]\nserver = r\n").warnings
    assert not read(tmp_path, "[PolicyConfigAdapter]\ndb_url = sqlite:////var/lib/book\n").warnings


def test_several_processes_need_redis(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[CHAPPS]\nprocesses = 4\n")
    assert "[CHAPPS] processes = 4: needs a state that all processes share: set [Redis] server, " in found
    sentinels = "sentinel_servers = a:1\nsentinel_dataset = b"
    for redis in ("server = localhost", "unix_socket = /run/redis.sock", sentinels):
        assert read(tmp_path, f"[CHAPPS]\nprocesses = 4\n[Redis]\n{redis}\n").chapps.processes == 4
    for number in (0, 65):
        (found,) = problems(tmp_path, f"[CHAPPS]\nprocesses = {number}\n[Redis]\nserver = localhost\n")
        assert "must be a whole number from 1 to 64" in found
