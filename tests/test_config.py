"""chapps.ini: what is read, what is refused, and how it is said."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chapps_tw.config import ConfigError, Settings, is_local
from chapps_tw.config_file import PUBLISHED_PASSWORD, load, render
from chapps_tw.config_values import parse_margin

CHAPPS_0_5 = f"""
[CHAPPS]
payload_encoding = utf-8
user_key = sasl_username
require_user_key = True
no_user_key_response = REJECT Rejected - Authentication failed
password = {PUBLISHED_PASSWORD}

[PolicyConfigAdapter]
adapter = mariadb
db_host = localhost
db_port = 3306
db_name = chapps
db_user = chapps
db_pass = 00123%x

[Redis]
sentinel_servers =
sentinel_dataset =
server = localhost
port = 6379

[OutboundQuotaPolicy]
listen_address = localhost
listen_port = 10225
margin = 0.1
min_delta = 0
counting_recipients = True
rejection_message = REJECT Rejected - outbound quota fulfilled
acceptance_message = DUNNO
null_sender_ok = False

[GreylistingPolicy]
listen_address = localhost
listen_port = 10226
rejection_message = DEFER_IF_PERMIT Service temporarily unavailable - greylisted
acceptance_message = DUNNO
null_sender_ok = False
whitelist_threshold = 10

[SPFEnforcementPolicy]
listen_address = localhost
listen_port = 10227
whitelist = []
null_sender_ok = False

[PostfixSPFActions]
passing = prepend
fail = 550 5.7.1 SPF check failed: {{reason}}
temperror = 451 4.4.3 SPF record(s) temporarily unavailable: {{reason}}
permerror = 550 5.5.2 SPF record(s) are malformed: {{reason}}
none_neutral = greylist
softfail = greylist

[SenderDomainAuthPolicy]
listen_address = localhost
listen_port = 10225
rejection_message = REJECT Rejected - not allowed to send mail from this domain
acceptance_message = DUNNO
null_sender_ok = False
"""


def read(tmp_path: Path, text: str, **environ: str) -> Settings:
    file = tmp_path / "chapps.ini"
    file.write_text(text)
    return load(str(file), environ)


def problems(tmp_path: Path, text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, **environ)
    return caught.value.problems


def test_without_a_file_the_built_in_defaults_hold() -> None:
    assert load("") == Settings()
    assert load(None, {"CHAPPS_CONFIG": ""}).path in ("", "/etc/chapps/chapps.ini")


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "other.ini"
    file.write_text("[CHAPPS]\nuser_key = ccert_subject\n")
    assert load(None, {"CHAPPS_CONFIG": str(file)}).chapps.user_key == "ccert_subject"


def test_a_file_of_chapps_0_5_loads_as_it_is(tmp_path: Path) -> None:
    settings = read(tmp_path, CHAPPS_0_5)
    assert settings.db_password == "00123%x"
    assert settings.redis.server == "localhost" and settings.uses_redis
    assert [listener.name for listener in settings.listeners] == ["outbound", "greylisting", "inbound"]


def test_the_published_default_password_is_not_accepted(tmp_path: Path) -> None:
    settings = read(tmp_path, CHAPPS_0_5)
    assert settings.chapps.password == ""
    assert "published default" in settings.warnings[0]


def test_what_is_rendered_reads_back_the_same(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[OutboundQuotaPolicy]\nmargin = 15%\ninterval = 31536000\nmin_delta = 0.25\nlisten =\n"
        "[Redis]\nserver = r\npassword = a%b;c#d\n[Listener one]\nlisten = tcp:1\npolicies = GreylistingPolicy\n"
        "[API]\nhosts = a.example b.example\n[SPFEnforcementPolicy]\nnameservers = 127.0.0.1:53 [::1]:53\n",
    )
    again = read(tmp_path, render(settings))
    assert again == settings


def test_every_option_has_one_line_of_help() -> None:
    lines = render(Settings()).splitlines()
    options = [number for number, line in enumerate(lines) if " =" in line and not line.startswith("#")]
    assert len(options) == len(set(options)) > 80
    assert all(lines[number - 1].startswith("# ") for number in options)


def test_all_errors_are_told_at_once_with_file_section_option_value_and_remedy(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        "[CHAPPS]\nuser_kye = x\n[Redis]\nport = 99999\n"
        "[OutboundQuotaPolicy]\nmargin = 200%\nmode = loud\n[Foo]\na = 1\n",
    )
    assert len(found) == 5
    assert any("[CHAPPS] user_kye: unknown option; did you mean user_key?" in line for line in found)
    assert any("[Redis] port = '99999': must be a whole number from 1 to 65535" in line for line in found)
    assert any("mode = 'loud': must be one of enforce, shadow" in line for line in found)
    assert any("unknown section [Foo]" in line for line in found)
    assert all(line.startswith(str(tmp_path / "chapps.ini") + ": ") for line in found)


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("CHAPPS", "payload_encoding = klingon"),
        ("CHAPPS", "require_user_key = maybe"),
        ("CHAPPS", "request_timeout = 0"),
        ("OutboundQuotaPolicy", "rejection_message = 550"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT {qouta}"),
        ("OutboundQuotaPolicy", "acceptance_message = FINE"),
        ("OutboundQuotaPolicy", "interval = -1"),
        ("GreylistingPolicy", "ipv4_prefix = 33"),
        ("PostfixSPFActions", "fail = OK"),
        ("PostfixSPFActions", "fail = 550"),
        ("PolicyConfigAdapter", "adapter = oracle"),
        ("Listener x", "policies = OutboundQuotaPolicy"),
        ("Redis", "password_file = /nowhere/at/all"),
        ("Redis", "sentinel_servers = 127.0.0.1:26379"),
        ("API", "auth = none\nlisten = tcp:8080"),
        ("CHAPPS", "user_key ="),
    ],
)
def test_a_value_that_cannot_work_is_refused(tmp_path: Path, section: str, line: str) -> None:
    (found,) = problems(tmp_path, f"[{section}]\n{line}\n")
    assert f"[{section}]" in found


def test_a_file_that_cannot_be_read_or_parsed_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "missing.ini"))
    (found,) = problems(tmp_path, "[CHAPPS]\nuser_key = a\nuser_key = b\n")
    assert "user_key" in found and "\n" not in found


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, "[Redis]\npassword = one\n", CHAPPS_REDIS_PASSWORD="two")
    assert settings.redis_password == "two"


def test_secrets_come_from_files_and_are_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("00123\n")
    settings = read(tmp_path, f"[PolicyConfigAdapter]\ndb_pass_file = {secret}\n[Redis]\npassword = hush\n")
    assert settings.db_password == "00123"
    assert "00123" not in repr(settings) and "hush" not in repr(settings)
    (found,) = problems(tmp_path, f"[PolicyConfigAdapter]\ndb_pass_file = {secret}\ndb_pass = x\n")
    assert "leave one of the two out" in found


def test_listeners_follow_their_policies_options(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[OutboundQuotaPolicy]\nlisten_address = ::1\nlisten_port = 7\n[GreylistingPolicy]\nlisten =\n"
        "[SPFEnforcementPolicy]\nlisten = unix:/run/chapps/in\n",
    )
    assert [(each.name, each.listen) for each in settings.listeners] == [
        ("outbound", r"tcp6:7:interface=\:\:1"),
        ("inbound", "unix:/run/chapps/in"),
    ]


def test_sender_authorization_listens_alone_when_it_is_given_its_own_place(tmp_path: Path) -> None:
    settings = read(tmp_path, "[SenderDomainAuthPolicy]\nlisten_port = 10299\n")
    assert settings.listeners[-1].policies == ("SenderDomainAuthPolicy",)


def test_own_listeners_replace_the_default_ones(tmp_path: Path) -> None:
    settings = read(tmp_path, "[Listener a]\nlisten = tcp:1\npolicies = GreylistingPolicy, OutboundQuotaPolicy\n")
    (listener,) = settings.listeners
    assert (listener.name, listener.policies) == ("a", ("GreylistingPolicy", "OutboundQuotaPolicy"))


def test_two_listeners_at_one_place_are_refused(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[Listener a]\nlisten = tcp:1\n[Listener b]\nlisten = tcp:1\n")
    assert "is taken by listener a" in found
    (found,) = problems(tmp_path, "[API]\nlisten = tcp:10225:interface=127.0.0.1\n")
    assert "is taken by the HTTP API" in found


@pytest.mark.parametrize(
    ("text", "limit", "over"),
    [("0", 1000, 0), ("7", 1000, 7), ("0.10", 1000, 100), ("10%", 1000, 100), ("15.5", 1000, 155), ("100%", 10, 10)],
)
def test_margins_are_counts_ratios_or_percentages(text: str, limit: int, over: int) -> None:
    margin = parse_margin(text)
    assert margin.count + int(limit * margin.ratio) == over


@pytest.mark.parametrize("text", ["-1", "101%", "100.5", "", "%", ".", "ten", "1e3", "0x1"])
def test_other_margins_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="percentage"):
        parse_margin(text)


def test_what_only_this_machine_reaches_is_known() -> None:
    assert is_local("tcp:1:interface=127.0.0.1") and is_local("unix:/x") and is_local(r"tcp6:1:interface=\:\:1")
    assert not is_local("tcp:1") and not is_local("tcp:1:interface=192.0.2.1") and not is_local("ssl:1")


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().path = "x"  # type: ignore[misc]
