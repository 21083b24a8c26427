"""Messages about the configuration: locations and warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from chapps_tw.config.load import load
from chapps_tw.config.values import Secret
from chapps_tw.mail.network import parse_helo_whitelist
from tests.support.config_case import problems, read

# --- where ---


def test_an_error_names_its_line(tmp_path: Path) -> None:
    text = (
        "\ufeff# a comment\n[CHAPPS]\nuser_kye = x\n\n; another\n[Redis]\n  port : 99999\nusername = a\n   port = no\n"
        "[GreylistingPolicy]\ncache_ttl = 60\n[Foo]\n[API]\nauth = none\nlisten = tcp:8080\n"
    )
    found = problems(tmp_path, text)
    wanted = [
        (3, "[CHAPPS] user_kye: unknown option"),
        (7, "[Redis] port = '99999'"),
        (8, "[Redis] username = 'a\\nport = no'"),
        (11, "[GreylistingPolicy] cache_ttl = '60': must be greater"),
        (12, "unknown section [Foo]"),
        (14, "[API] auth = 'none'"),
    ]
    for line, words in wanted:
        assert sum(f"chapps.ini: line {line}: {words}" in each for each in found) == 1, (words, found)
    assert len(found) == len(wanted)


def test_a_warning_names_its_line_if_it_is_in_the_file(tmp_path: Path) -> None:
    (told,) = read(tmp_path, "\n[Redis]\nport = 6380\n").warnings
    assert told.startswith(f"{tmp_path}/chapps.ini: line 3: [Redis] port = 6380: has no effect")
    (found,) = problems(tmp_path, "[Redis]\nsentinel_servers = h:1\n")
    assert found.startswith(f"{tmp_path}/chapps.ini: [Redis] sentinel_dataset = ''")


# --- comments behind a value ---


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ("OutboundQuotaPolicy", "interval = 5 ; five"),
        ("OutboundQuotaPolicy", "margin = 10% # a tenth"),
        ("OutboundQuotaPolicy", "mode = shadow # for now"),
        ("OutboundQuotaPolicy", "counting_recipients = True ; each"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT no ; sorry"),
        ("OutboundQuotaPolicy", "acceptance_message = DUNNO # as ever"),
        ("PostfixSPFActions", "fail = greylist ; not yet"),
        ("PostfixSPFActions", "fail = 550 5.7.1 {reason} # refused"),
        ("GreylistingPolicy", "whitelist_threshold = 5 ;"),
        ("GreylistingPolicy", "exempt_recipients = abuse@ # all"),
        ("CHAPPS", "helo_whitelist = mx.example.org # ours"),
        ("CHAPPS", "trusted_networks = 10.0.0.1 # gateway"),
        ("CHAPPS", "payload_encoding = utf-8 # text"),
        ("CHAPPS", "data_dir = /srv/chapps # here"),
        ("Redis", "server = redis.example ; ours"),
        ("API", "hosts = localhost ; here"),
        ("SPFEnforcementPolicy", "nameservers = 127.0.0.1 ; local"),
    ],
)
def test_a_trailing_comment_is_recognized(tmp_path: Path, section: str, line: str) -> None:
    (found,) = problems(tmp_path, f"[{section}]\n{line}\n")
    assert found.endswith("a comment needs its own line"), found
    assert found.count("a comment needs") == 1


def test_comment_characters_in_values_are_allowed(tmp_path: Path) -> None:
    text = "[OutboundQuotaPolicy]\nrejection_message = REJECT no; see case #5, or https://h/#x\n"
    assert read(tmp_path, text).oqp.rejection_message == "REJECT no; see case #5, or https://h/#x"
    assert len(read(tmp_path, "[CHAPPS]\nhelo_whitelist = a.example ; b.example\n").chapps.helo_whitelist) == 2
    assert read(tmp_path, "[Redis]\nserver = r\npassword = a ; b # c\n").redis_password == "a ; b # c"


# --- what works, but not as it was meant ---


@pytest.mark.parametrize(
    ("section", "line", "told"),
    [
        ("GreylistingPolicy", "acceptance_message = OK", "makes an open relay"),
        ("OutboundQuotaPolicy", "acceptance_message = ok fine", "makes an open relay"),
        ("OutboundQuotaPolicy", "rejection_message = DUNNO", "accepts the mail that it should refuse"),
        ("OutboundQuotaPolicy", "unknown_user_message = OK", "accepts the mail that it should refuse"),
        ("OutboundQuotaPolicy", "no_quota_message = PREPEND X-Quota: none", "accepts the mail"),
        ("SenderDomainAuthPolicy", "rejection_message = WARN forged", "accepts the mail"),
        ("GreylistingPolicy", "rejection_message = DUNNO", "accepts the mail"),
        ("CHAPPS", "no_user_key_response = DUNNO", "accepts the mail"),
        ("OutboundQuotaPolicy", "listen_address = 0.0.0.0", "anyone who can connect"),
        ("OutboundQuotaPolicy", "listen_address =", "anyone who can connect"),
        ("SPFEnforcementPolicy", "listen = tcp:10227", "anyone who can connect"),
        ("GreylistingPolicy", r"listen = tcp6:10226:interface=\:\:", "anyone who can connect"),
        ("Listener all", "listen = tcp:1\npolicies = OutboundQuotaPolicy", "anyone who can connect"),
        ("CHAPPS", "data_dir = chapps", "an absolute path, such as /var/lib/chapps"),
        ("CHAPPS", "data_dir = ~/chapps", "an absolute path, such as /var/lib/chapps"),
    ],
)
def test_probable_mistakes_are_a_warning(tmp_path: Path, section: str, line: str, told: str) -> None:
    (found,) = read(tmp_path, f"[{section}]\n{line}\n").warnings
    assert f"line 2: [{section}] {line.split(' ')[0]} = " in found
    assert told in found


def test_answers_that_stop_or_divert_mail_are_no_warning(tmp_path: Path) -> None:
    for answer in ("450 4.7.1 later", "DEFER later", "HOLD over quota", "REDIRECT a@example.com", "DISCARD"):
        assert not read(tmp_path, f"[OutboundQuotaPolicy]\nrejection_message = {answer}\n").warnings


def test_a_port_on_one_address_is_no_warning(tmp_path: Path) -> None:
    for address in ("127.0.0.1", "192.0.2.1", "::1"):
        assert not read(tmp_path, f"[OutboundQuotaPolicy]\nlisten_address = {address}\n").warnings
    assert not read(tmp_path, "[OutboundQuotaPolicy]\nlisten = unix:/run/x\n").warnings


def test_no_listener_at_all_is_a_warning(tmp_path: Path) -> None:
    policies = ("OutboundQuotaPolicy", "GreylistingPolicy", "SPFEnforcementPolicy")
    off = "".join(f"[{policy}]\nlisten =\n" for policy in policies)
    (told,) = read(tmp_path, off).warnings
    assert "[OutboundQuotaPolicy] listen = ''" in told and "no listener answers Postfix" in told


def test_a_variable_of_an_unknown_section_is_a_warning(tmp_path: Path) -> None:
    settings = read(tmp_path, "", CHAPPS_FOO_BAR="x", CHAPPS_QUOTA="x", CHAPPS_REDIS="x")
    assert [told.partition(" names ")[0] for told in settings.warnings] == [
        f"environment: {name}" for name in ("CHAPPS_FOO_BAR", "CHAPPS_QUOTA", "CHAPPS_REDIS")
    ]
    assert "; the form is CHAPPS_<SECTION>_<OPTION>, sections are CHAPPS, " in settings.warnings[0]


def test_variables_set_by_kubernetes_are_ignored(tmp_path: Path) -> None:
    links = {
        "CHAPPS_SERVICE_HOST": "10.0.0.1",
        "CHAPPS_SERVICE_PORT": "8080",
        "CHAPPS_SERVICE_PORT_HTTP": "8080",
        "CHAPPS_PORT": "tcp://10.0.0.1:8080",
        "CHAPPS_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "CHAPPS_PORT_8080_TCP_ADDR": "10.0.0.1",
        "CHAPPS_API_SERVICE_HOST": "10.0.0.1",
        "CHAPPS_API_PORT_8080_TCP_PROTO": "tcp",
    }
    assert not read(tmp_path, "", **links).warnings


# --- secrets ---


@pytest.mark.parametrize(
    "text", ["[Redis]\nserver = r\npassword = hush", "[PolicyConfigAdapter]\ndb_url = sqlite:///hush"]
)
def test_a_world_readable_file_with_a_secret_is_a_warning(tmp_path: Path, text: str) -> None:
    file = tmp_path / "chapps.ini"
    file.write_text(text)
    for mode, warned in ((0o644, True), (0o604, True), (0o640, False), (0o600, False)):
        file.chmod(mode)
        found = load(str(file)).warnings
        assert len(found) == warned, (oct(mode), found)
        assert all(f"(mode {mode:04o}); run chmod o-r {file}" in told and "hush" not in told for told in found)
    file.write_text("[Redis]\nserver = r\npassword =\n")
    file.chmod(0o644)
    assert not load(str(file)).warnings


def test_a_secret_is_masked_in_every_representation() -> None:
    secret = Secret("hush")
    shown = [f"{secret}", f"{secret!r}", f"{secret:>20}", "{}".format(secret), format(secret), repr([secret])]  # noqa: UP032
    assert not [text for text in shown if "hush" in text]
    assert f"{secret:>10}" == "  ********"
    assert f"{Secret('')}" == ""


# --- the HELO whitelist ---


def test_the_dns_records_of_a_helo_whitelist_entry() -> None:
    name, v4, v6, here = parse_helo_whitelist(
        "mx.example.org; a.example:192.0.2.1; b.example:[2001:db8::1]; l:127.0.0.1"
    )
    assert name.wanted == "an address record (A or AAAA), and a PTR record of that address for mx.example.org"
    assert v4.wanted == "the A record 192.0.2.1, and a PTR record of that address for a.example"
    assert v6.wanted == "the AAAA record 2001:db8::1, and a PTR record of that address for b.example"
    assert here.wanted == ""
