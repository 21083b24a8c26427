"""Loading of chapps.ini: values, errors, environment."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from chapps_tw.config.checks import is_local
from chapps_tw.config.load import PUBLISHED_PASSWORD, load
from chapps_tw.config.render import render
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.config.values import parse_margin
from tests.support.config_case import problems, read

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


def test_without_a_file_the_defaults_apply() -> None:
    assert load("") == Settings()
    assert load(None, {"CHAPPS_CONFIG": ""}).path in ("", "/etc/chapps/chapps.ini")


def test_the_environment_can_name_the_file(tmp_path: Path) -> None:
    file = tmp_path / "other.ini"
    file.write_text("[CHAPPS]\nuser_key = ccert_subject\n")
    assert load(None, {"CHAPPS_CONFIG": str(file)}).chapps.user_key == "ccert_subject"


def test_a_file_of_chapps_0_5_is_accepted_unchanged(tmp_path: Path) -> None:
    settings = read(tmp_path, CHAPPS_0_5)
    assert settings.db_password == "00123%x"
    assert settings.redis.server == "localhost" and settings.uses_redis
    assert [listener.name for listener in settings.listeners] == ["outbound", "greylisting", "inbound"]


def test_the_published_default_password_is_rejected(tmp_path: Path) -> None:
    settings = read(tmp_path, CHAPPS_0_5)
    assert settings.chapps.password == ""
    assert "published default" in settings.warnings[0]


def test_rendered_settings_load_unchanged(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[OutboundQuotaPolicy]\nmargin = 15%\ninterval = 31536000\nmin_delta = 0.25\nlisten =\n"
        "[Redis]\nserver = r\npassword = a%b;c#d\n[Listener one]\nlisten = tcp:1\npolicies = GreylistingPolicy\n"
        "[API]\nhosts = a.example b.example\n[SPFEnforcementPolicy]\nnameservers = 127.0.0.1:53 [::1]:53\n"
        "[CHAPPS]\nhelo_whitelist = mx.example.org;b.example:[2001:db8::1]; c.example:192.0.2.1\n",
    )
    again = read(tmp_path, render(settings))
    assert again == settings


def test_every_option_has_one_line_of_help() -> None:
    lines = render(Settings()).splitlines()
    options = [number for number, line in enumerate(lines) if " =" in line and not line.startswith("#")]
    assert len(options) == len(set(options)) > 80
    assert all(lines[number - 1].startswith("# ") for number in options)


def test_all_errors_are_reported_with_file_section_option_value_and_remedy(tmp_path: Path) -> None:
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
        *(
            ("CHAPPS", f"payload_encoding = {name}")
            for name in ("utf-16", "punycode", "idna", "cp037", "utf-7", "hz", "iso2022_jp")
        ),
        ("CHAPPS", "payload_encoding = raw_unicode_escape"),
        ("CHAPPS", "require_user_key = maybe"),
        ("CHAPPS", "request_timeout = 0"),
        ("OutboundQuotaPolicy", "rejection_message = 550"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT {qouta}"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT {recipient}"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT {used of {limit}"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT " + "x" * 500),
        ("OutboundQuotaPolicy", "acceptance_message = PREPEND X-Quota: {left}"),
        ("OutboundQuotaPolicy", "acceptance_message = PREPEND X-Quota {used}"),
        ("OutboundQuotaPolicy", "acceptance_message = PREPEND"),
        ("OutboundQuotaPolicy", "acceptance_message = REJECT over quota"),
        ("SenderDomainAuthPolicy", "rejection_message = REJECT {limit}"),
        ("GreylistingPolicy", "rejection_message = DEFER_IF_PERMIT {limit}"),
        ("PostfixSPFActions", "fail = 550 5.7.1 {resaon}"),
        ("PostfixSPFActions", "passing = OK text"),
        ("CHAPPS", "no_user_key_response = REJECT {user}"),
        ("CHAPPS", "helo_whitelist = mail.example.com:1.2.3"),
        ("CHAPPS", "user_key = sasl_usrname"),
        ("CHAPPS", "user_key = SASL_USERNAME"),
        ("CHAPPS", "user_key = sasl_username ; who logged in"),
        ("CHAPPS", "data_dir = /srv/chapps # here"),
        ("SPFEnforcementPolicy", "nameservers = 1.2.3.4.5"),
        ("SPFEnforcementPolicy", "receiver = mx_.example.org:25"),
        ("GreylistingPolicy", "cache_ttl = 60"),
        ("GreylistingPolicy", "cache_ttl = 1d"),
        ("GreylistingPolicy", "retry_window = 60"),
        ("GreylistingPolicy", "exempt_recipients = postmaster"),
        ("GreylistingPolicy", "exempt_recipients = noc@-.example"),
        ("CHAPPS", "trusted_networks = 10.0.0.1/8"),
        ("Redis", "sentinel_dataset = mail"),
        ("Redis", "server = redis.example:6379"),
        ("Redis", "sentinel_dataset = mail\nsentinel_servers = 127.0.0.1:99999"),
        ("PolicyConfigAdapter", "db_host = db.example:5432"),
        ("API", "hosts = chapps.example:8080"),
        ("API", "hosts ="),
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
        ("API", "auth = none\nlisten = unix:/run/x"),
        ("API", "auth = none\nlisten = unix:/run/x:mode=666"),
        ("API", "auth = none\nlisten = unix:/run/x:mode=601"),
        ("API", "auth = none\nlisten = unix:/run/x\\:mode=600"),
        ("CHAPPS", "user_key ="),
    ],
)
def test_an_invalid_value_is_rejected(tmp_path: Path, section: str, line: str) -> None:
    (found,) = problems(tmp_path, f"[{section}]\n{line}\n")
    assert f"[{section}]" in found


@pytest.mark.parametrize(
    ("section", "line", "told"),
    [
        ("chapps", "user_key = sender", "unknown section [chapps]; did you mean CHAPPS?"),
        ("CHAPPS", "margin = 1", "unknown option; it belongs to [OutboundQuotaPolicy]"),
        ("API", "auth = tokn", "must be one of token, none; did you mean token?"),
        ("PostfixSPFActions", "passing = greylst", "prepend, greylist, dunno, okay, or a Postfix action such as 550"),
        ("PostfixSPFActions", "passing = greylst", "did you mean greylist?"),
        ("PostfixSPFActions", "fail = 550 5.7.1 {resaon}", "without braces other than {reason}"),
        ("OutboundQuotaPolicy", "rejection_message = REJCT no", "did you mean REJECT?"),
        ("OutboundQuotaPolicy", "rejection_message = REJECT {remain}", "without braces other than {remaining} {"),
        ("OutboundQuotaPolicy", "interval = 1d", "seconds, without a unit, from 1 to 31536000"),
        ("OutboundQuotaPolicy", "min_delta = 1m", "seconds, without a unit, from 0 to 86400"),
        ("CHAPPS", "request_timeout = soon", "from 0.1 to 60"),
        ("Listener x", "listen = tcp:1\npolicies = OutboundQuota", "did you mean OutboundQuotaPolicy?"),
        ("CHAPPS", "user_key = sasl_usrname", "did you mean sasl_username?"),
    ],
)
def test_errors_suggest_a_correction_and_the_valid_form(tmp_path: Path, section: str, line: str, told: str) -> None:
    (found,) = problems(tmp_path, f"[{section}]\n{line}\n")
    assert told in found


def test_ascii_compatible_codecs_are_accepted(tmp_path: Path) -> None:
    for name in ("utf-8", "latin-1", "ascii", "cp1252", "koi8-r", "gb18030", "euc_jp"):
        assert read(tmp_path, f"[CHAPPS]\npayload_encoding = {name}\n").chapps.payload_encoding == name


def test_the_verb_of_an_action_becomes_upper_case(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[GreylistingPolicy]\nacceptance_message = dunno\nrejection_message = defer_if_permit  Come Back\n"
        "[OutboundQuotaPolicy]\nacceptance_message = Dunno within quota\n[PostfixSPFActions]\nfail = reject {reason}\n",
    )
    assert (settings.grl.acceptance_message, settings.grl.rejection_message) == ("DUNNO", "DEFER_IF_PERMIT Come Back")
    assert (settings.oqp.acceptance_message, settings.spf_actions.fail) == ("DUNNO", "REJECT {reason}")


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff[CHAPPS]\nuser_key = sender\n").chapps.user_key == "sender"


def test_an_unreadable_or_malformed_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(str(tmp_path / "missing.ini"))
    (found,) = problems(tmp_path, "[CHAPPS]\nuser_key = a\nuser_key = b\n")
    assert "user_key" in found and "\n" not in found


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    settings = read(tmp_path, "[Redis]\npassword = one\n", CHAPPS_REDIS_PASSWORD="two")
    assert settings.redis_password == "two"


def test_secrets_can_come_from_files_and_are_masked(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("00123\n")
    settings = read(tmp_path, f"[PolicyConfigAdapter]\ndb_pass_file = {secret}\n[Redis]\npassword = hush\n")
    assert settings.db_password == "00123"
    assert "00123" not in repr(settings) and "hush" not in repr(settings)
    (found,) = problems(tmp_path, f"[PolicyConfigAdapter]\ndb_pass_file = {secret}\ndb_pass = x\n")
    assert "remove one of them" in found


def test_a_password_file_must_contain_one_line(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    for content in ("", "\n", "one\ntwo\n"):
        secret.write_text(content)
        (found,) = problems(tmp_path, f"[Redis]\nserver = r\npassword_file = {secret}\n")
        assert "must be a file that contains one line, the password" in found


def test_an_error_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    found = problems(
        tmp_path, "", CHAPPS_API_AUTH="nonee", CHAPPS_REDIS_SENTINEL_DATASET="mail", CHAPPS_REDIS_PASSWORD_FILE="/no/pw"
    )
    assert len(found) == 3
    assert all(line.startswith("environment: CHAPPS_") for line in found)
    assert "environment: CHAPPS_API_AUTH = 'nonee': must be one of token, none; did you mean none?" in found


def test_unknown_chapps_variables_are_reported_and_others_ignored(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "",
        CHAPPS_REDIS_SEVER="redis.example",
        CHAPPS_REDSI_SERVER="redis.example",
        CHAPPS_SERVICE_HOST="10.0.0.1",
        CHAPPS_CONFIG="x",
        CHAPPS_CHAPPS_USER_KEY="sender",
    )
    told = [
        f"environment: {name} names no option and has no effect; did you mean CHAPPS_REDIS_SERVER?"
        for name in ("CHAPPS_REDIS_SEVER", "CHAPPS_REDSI_SERVER")
    ]
    assert list(settings.warnings) == told


def test_a_password_in_the_environment_overrides_both_options_of_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the file")
    by_file, by_text = f"[PolicyConfigAdapter]\ndb_pass_file = {secret}\n", "[PolicyConfigAdapter]\ndb_pass = text\n"
    assert read(tmp_path, by_file, CHAPPS_POLICYCONFIGADAPTER_DB_PASS="env").db_password == "env"
    assert read(tmp_path, by_text, CHAPPS_POLICYCONFIGADAPTER_DB_PASS_FILE=str(secret)).db_password == "of the file"


def test_secrets_from_the_environment_are_not_written_to_the_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of the file")
    environ = {
        "CHAPPS_REDIS_PASSWORD": "hush",
        "CHAPPS_POLICYCONFIGADAPTER_DB_URL": "postgresql://u:hush@h/d",
        "CHAPPS_POLICYCONFIGADAPTER_DB_PASS_FILE": str(secret),
        "CHAPPS_REDIS_SERVER": "redis.example",
    }
    text = "[Redis]\npassword = mine\n[PolicyConfigAdapter]\ndb_pass = mine too\n"
    settings = read(tmp_path, text, **environ)
    written = render(settings)
    assert "hush" not in written and "\npassword = mine\n" in written and "\nserver = redis.example\n" in written
    assert read(tmp_path, written, **environ) == settings
    alone = read(tmp_path, written)
    assert (alone.redis_password, alone.db_password) == ("mine", "mine too")
    assert "mine" not in repr(settings) and "hush" not in repr(settings)


def test_sentinels_have_their_own_password(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    servers = "[Redis]\nsentinel_servers = 127.0.0.1:26379\nsentinel_dataset = mail\n"
    settings = read(tmp_path, f"{servers}sentinel_password_file = {secret}\npassword = one\n")
    assert (settings.sentinel_password, settings.redis_password) == ("hush", "one")
    assert "hush" not in repr(settings)
    settings = read(tmp_path, f"{servers}sentinel_password = hush\n")
    assert (settings.sentinel_password, settings.redis_password) == ("hush", "")
    assert "hush" not in repr(settings)
    (found,) = problems(tmp_path, f"{servers}sentinel_password_file = {secret}\nsentinel_password = x\n")
    assert "sentinel_password is set too; remove one of them" in found


def test_default_listeners_follow_the_options_of_their_policies(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        "[OutboundQuotaPolicy]\nlisten_address = ::1\nlisten_port = 7\n[GreylistingPolicy]\nlisten =\n"
        "[SPFEnforcementPolicy]\nlisten = unix:/run/chapps/in\n",
    )
    assert [(each.name, each.listen) for each in settings.listeners] == [
        ("outbound", r"tcp6:7:interface=\:\:1"),
        ("inbound", "unix:/run/chapps/in"),
    ]


def test_sender_authorization_can_have_a_separate_port(tmp_path: Path) -> None:
    settings = read(tmp_path, "[SenderDomainAuthPolicy]\nlisten_port = 10299\n")
    assert settings.listeners[-1].policies == ("SenderDomainAuthPolicy",)


def test_sender_authorization_can_have_a_separate_endpoint(tmp_path: Path) -> None:
    elsewhere = "[OutboundQuotaPolicy]\nlisten_port = 10299\n"
    at = "[SenderDomainAuthPolicy]\nlisten = tcp:10225:interface=127.0.0.1\n"
    assert read(tmp_path, elsewhere + at).listeners[-1].name == "sender-auth"
    assert [each.name for each in read(tmp_path, elsewhere).listeners] == ["outbound", "greylisting", "inbound"]
    assert [each.name for each in read(tmp_path, at).listeners] == ["outbound", "greylisting", "inbound"]


def test_custom_listeners_replace_the_default_ones(tmp_path: Path) -> None:
    settings = read(tmp_path, "[Listener a]\nlisten = tcp:1\npolicies = GreylistingPolicy, OutboundQuotaPolicy\n")
    (listener,) = settings.listeners
    assert (listener.name, listener.policies) == ("a", ("GreylistingPolicy", "OutboundQuotaPolicy"))


def test_two_listeners_on_one_endpoint_are_rejected(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "[Listener a]\nlisten = tcp:1\n[Listener b]\nlisten = tcp:1\n")
    assert "is already used by listener a" in found
    (found,) = problems(tmp_path, "[API]\nlisten = tcp:10225:interface=127.0.0.1\n")
    assert "is already used by the HTTP API" in found


@pytest.mark.parametrize(
    ("text", "limit", "over"),
    [("0", 1000, 0), ("7", 1000, 7), ("0.10", 1000, 100), ("10%", 1000, 100), ("15.5", 1000, 155), ("100%", 10, 10)],
)
def test_margins_are_counts_ratios_or_percentages(text: str, limit: int, over: int) -> None:
    margin = parse_margin(text)
    assert margin.count + int(limit * margin.ratio) == over


@pytest.mark.parametrize("text", ["-1", "101%", "100.5", "", "%", ".", "ten", "1e3", "0x1"])
def test_invalid_margins_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="percentage"):
        parse_margin(text)


@pytest.mark.parametrize(
    "lines",
    [
        "auth = none\nlisten = unix:/run/x:mode=600",
        "auth = none\nlisten = unix:/run/x:lockfile=0:mode=0660",
        "auth = token\nlisten = unix:/run/x",
    ],
)
def test_a_private_unix_socket_needs_no_token(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "chapps.ini"
    file.write_text(f"[API]\n{lines}\n")
    assert load(str(file)).api.listen in lines


def test_local_endpoints_are_recognized() -> None:
    assert is_local("tcp:1:interface=127.0.0.1") and is_local("unix:/x") and is_local(r"tcp6:1:interface=\:\:1")
    assert not is_local("tcp:1") and not is_local("tcp:1:interface=192.0.2.1") and not is_local("ssl:1")


def test_cache_ttl_of_older_files_sets_all_four_lifetimes(tmp_path: Path) -> None:
    def lifetimes(text: str, **environ: str) -> tuple[float, ...]:
        grl = read(tmp_path, f"[GreylistingPolicy]\n{text}\n", **environ).grl
        return grl.retry_window, grl.pass_ttl, grl.tally_ttl, grl.flag_ttl

    day = 86400.0
    variable = {"CHAPPS_GREYLISTINGPOLICY_CACHE_TTL": "4000"}
    assert lifetimes("") == (2 * day, 35 * day, 35 * day, day)
    assert lifetimes("cache_ttl = 3600") == (3600.0,) * 4
    assert lifetimes("cache_ttl = 3600\npass_ttl = 7200") == (3600.0, 7200.0, 3600.0, 3600.0)
    assert lifetimes("cache_ttl = 3600\npass_ttl = 7200", **variable) == (4000.0,) * 4
    (found,) = problems(tmp_path, "[GreylistingPolicy]\n", CHAPPS_GREYLISTINGPOLICY_CACHE_TTL="1d")
    assert found.startswith("environment: CHAPPS_GREYLISTINGPOLICY_CACHE_TTL = '1d': must be a number of seconds")


def test_cache_ttl_of_older_files_is_written_as_four_options(tmp_path: Path) -> None:
    settings = read(tmp_path, "[GreylistingPolicy]\ncache_ttl = 3600\n")
    written = render(settings).partition("[GreylistingPolicy]")[2].partition("[SPF")[0]
    assert "cache_ttl" not in written and "\nflag_ttl = 3600\n" in written
    assert read(tmp_path, render(settings)).grl == settings.grl


def test_settings_are_immutable() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().path = "x"  # type: ignore[misc]


@pytest.mark.parametrize("value", ["+", "+-", "", "=", "#", "%", "-"])
def test_subaddress_separators_are_loaded_and_written_unchanged(tmp_path: Path, value: str) -> None:
    settings = read(tmp_path, f"[SenderDomainAuthPolicy]\nsubaddress_separators = {value}\n")
    assert settings.sda.subaddress_separators == value
    assert read(tmp_path, render(settings)).sda.subaddress_separators == value


@pytest.mark.parametrize("value", ["@", "+ -", "a", "+;", "ü", '"'])
def test_invalid_subaddress_separators_are_rejected(tmp_path: Path, value: str) -> None:
    [found] = problems(tmp_path, f"[SenderDomainAuthPolicy]\nsubaddress_separators = {value}\n")
    assert f"[SenderDomainAuthPolicy] subaddress_separators = {value!r}: must be punctuation" in found
