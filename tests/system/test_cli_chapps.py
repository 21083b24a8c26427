"""The commands of CHAPPS 0.5's ``chapps-cli``, with a running service."""

from __future__ import annotations

import json
import re
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.support.command_line import CommandLine
from tests.support.policy_client import outbound
from tests.support.servers.service import Service, new_name, shared_service


@pytest.fixture
def service() -> Service:
    return shared_service()


@pytest.fixture
def cli(service: Service) -> CommandLine:
    return CommandLine(service.config, time.time())


@pytest.fixture
def ann(service: Service) -> str:
    """A user with a quota of 50, who may send from one domain and as one address."""
    name = new_name("ann") + "@example.com"
    service.add_user(name, 50, [new_name("d") + ".example"], [new_name("sales") + "@example.org"])
    return name


def send(service: Service, user: str, sender: str) -> str:
    """Return the answer to a message."""
    with service.client() as policy:
        return policy.ask(outbound(sasl_username=user, sender=sender))


# --- show ---


def test_show_prints_the_quota_the_domains_and_the_addresses(cli: CommandLine, ann: str) -> None:
    user = cli.json("show", ann)
    [domain], [email] = user["domains"], user["emails"]
    assert cli.ok("show", ann) == (
        f"User: {ann}\n  Quota: 50 a day (50)\n  E: {email['name']}\n  D: {domain['name']}\n"
    )


def test_show_finds_a_user_in_any_spelling(cli: CommandLine, ann: str) -> None:
    assert cli.json("show", ann.upper())["name"] == ann


def test_show_quota_prints_what_is_left(cli: CommandLine, service: Service, ann: str) -> None:
    send(service, ann, cli.json("show", ann)["emails"][0]["name"])
    assert "Outbound email quota remaining: 49/50\nThe last attempt was at " in cli.ok("show", ann, "--quota")


def test_show_says_that_a_user_cannot_send(cli: CommandLine) -> None:
    name = new_name("nobody")
    cli.ok("users", "create", name)
    shown = cli.ok("show", name)
    assert "This user has no quota, or is suspended, and cannot send mail." in shown
    assert "This user has no domain or address" in shown


def test_an_unknown_user_is_reported(cli: CommandLine) -> None:
    for command in (["show"], ["reset"], ["refresh"], ["set-quota"], ["allow"], ["deny"]):
        more = ["other.example"] if command[0] in ("set-quota", "allow", "deny") else []
        assert cli.run(*command, "nobody@nowhere.example", *more) == (
            1, "", "chapps-cli: There is no user named nobody@nowhere.example.\n"
        )  # fmt: skip


# --- allow, deny, set-quota ---


@pytest.mark.parametrize("sender", ["{}.example", "{}@example.org"])
def test_allow_and_deny_are_in_effect_for_the_next_message(
    cli: CommandLine, service: Service, ann: str, sender: str
) -> None:
    name = sender.format(new_name("s"))
    address = name if "@" in name else f"any@{name}"
    assert send(service, ann, address).startswith("REJECT")
    kind = "email" if "@" in name else "domain"
    assert cli.run("allow", ann, name) == (
        1, "", f"chapps-cli: there is no {kind} named {name}: --create creates it\n"
    )  # fmt: skip
    assert cli.ok("allow", ann, name, "--create").startswith(f"User {ann} may send from {kind} {name}.\nUser: {ann}\n")
    assert send(service, ann, address) == "DUNNO"
    assert cli.ok("deny", ann, name).startswith(f"User {ann} may no longer send from {kind} {name}.\n")
    assert send(service, ann, address).startswith("REJECT")
    assert name in json.dumps(cli.json("allow", ann, name, "--no-flush"))
    assert send(service, ann, address) == "DUNNO"


def test_deny_of_an_unknown_domain_is_reported(cli: CommandLine, ann: str) -> None:
    assert cli.run("deny", ann, "nowhere.example").err == "chapps-cli: There is no domain named nowhere.example.\n"


def test_set_quota_gives_an_existing_quota(cli: CommandLine, service: Service, ann: str) -> None:
    name = new_name("plan")
    assert cli.run("set-quota", ann, name) == (1, "", f"chapps-cli: There is no quota named {name}.\n")
    cli.ok("quotas", "create", name, "7")
    assert f"User {ann} has quota {name} now.\nUser: {ann}\n  Quota: {name} (7)\n" in cli.ok("set-quota", ann, name)
    assert service.remaining(ann) == 7


# --- reset, refresh ---


@pytest.mark.parametrize("option", ["--refresh", "--no-refresh"])
def test_reset_forgets_what_was_sent(cli: CommandLine, service: Service, ann: str, option: str) -> None:
    sender = cli.json("show", ann)["emails"][0]["name"]
    for _ in range(3):
        send(service, ann, sender)
    assert service.remaining(ann) == 47
    told = cli.ok("reset", ann, option)
    assert told.startswith("Dropped 3 xmits from log; new log has 0\n")
    assert "Outbound email quota remaining: 50/50\n" in told


def test_refresh_shows_the_limit(cli: CommandLine, ann: str) -> None:
    assert "Outbound email quota remaining: 50/50\n" in cli.ok("refresh", ann)


def test_reset_of_a_user_without_a_quota_says_so(cli: CommandLine) -> None:
    name = new_name("nobody")
    cli.ok("users", "create", name)
    assert f"User {name} has no quota." in cli.ok("reset", name)


# --- domain ---


def test_domain_show_lists_flags_and_users(cli: CommandLine, ann: str) -> None:
    name = cli.json("show", ann)["domains"][0]["name"]
    assert cli.ok("domain", "show", name) == f"Domain: {name}\n  Greylisting: no  SPF: no\n"
    shown = cli.ok("domain", "show", name, "--users", "--no-live")
    assert re.fullmatch(rf"Domain: {name}\n  Greylisting: no  SPF: no\nUsers:\n  {ann} \[#\d+\]\n", shown)


@pytest.mark.parametrize(("command", "flag"), [("greylist", "greylist"), ("check-spf", "check_spf")])
def test_the_flags_of_a_domain_are_toggled_or_set(cli: CommandLine, command: str, flag: str) -> None:
    name = new_name("flags") + ".example"
    cli.ok("domains", "create", name)
    assert cli.json("domain", command, name)[flag] is True
    assert cli.json("domain", command, name)[flag] is False
    for text, value in (
        ("Y", True),
        ("y", True),
        ("N", False),
        ("true", True),
        ("no", False),
        ("1", True),
        ("0", False),
    ):
        assert cli.json("domain", command, name, "--enforce", text, "--no-flush")[flag] is value


def test_domain_flush_keeps_the_flags(cli: CommandLine) -> None:
    name = new_name("flush") + ".example"
    cli.ok("domains", "create", name, "--greylist")
    assert "Greylisting: yes" in cli.ok("domain", "flush", name)
    assert cli.run("domain", "flush", "nowhere.example").code == 1


# --- tally ---


def test_an_empty_tally_is_told_as_such(cli: CommandLine) -> None:
    network = "203.0.113"
    assert "No tally for" in cli.ok("tally", f"{network}.1")
    assert cli.json("tally", f"{network}.1") == []
    assert cli.run("tally", "not an address").err.endswith("must be an IPv4 or IPv6 address, or a domain name\n")
    assert cli.ok("tally", f"{network}.1", "--clear", "--csv") == ""


# --- whatever is given ---


def test_json_and_csv_have_the_same_fields(cli: CommandLine, ann: str) -> None:
    user = cli.json("show", ann)
    header, row = cli.ok("show", ann, "--csv").splitlines()
    assert header.split(",") == list(user)
    assert row.split(",")[:3] == [str(user["id"]), ann, "50 a day"]


def test_the_api_is_found_by_its_url_and_a_token_file(cli: CommandLine, service: Service, ann: str) -> None:
    url, token = f"http://127.0.0.1:{service.ports['api']}", str(service.directory / "api-token")
    assert cli.run_bare(["show", ann, "--url", url, "--token-file", token]).code == 0
    refused = cli.run_bare(["show", ann, "--url", url])
    assert refused == (1, "", "chapps-cli: A token is required: Authorization: Bearer TOKEN.\n")


def test_the_environment_names_the_api(
    cli: CommandLine, service: Service, ann: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAPPS_URL", f"http://127.0.0.1:{service.ports['api']}")
    monkeypatch.setenv("CHAPPS_TOKEN_FILE", str(service.directory / "api-token"))
    assert cli.run_bare(["show", ann]).code == 0


def test_a_token_that_may_only_read_is_told_what_it_needs(
    cli: CommandLine, service: Service, ann: str, tmp_path: pytest.TempPathFactory
) -> None:
    file = service.directory / new_name("reader")
    file.write_text(cli.ok("token", "create", file.name, "--scope", "read"))
    ran = cli.run("reset", ann, "--token-file", str(file))
    wanted = "This needs a token with scope operator; the scope of this one is read."
    assert ran == (1, "", f"chapps-cli: {wanted}\n")


def test_a_service_that_does_not_run_is_reported_with_status_3(cli: CommandLine) -> None:
    ran = cli.run_bare(["show", "ann", "--url", "http://127.0.0.1:1"])
    assert ran == (
        3, "", "chapps-cli: the service cannot be reached at http://127.0.0.1:1: Connection refused\n"
    )  # fmt: skip
    assert cli.run_bare(["show", "ann", "--url", "unix:/nowhere"]).code == 3


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://x", "http://", "http://x:99999", "unix://x/y", "http://[1"]
)
def test_an_invalid_url_is_reported(cli: CommandLine, url: str) -> None:
    ran = cli.run_bare(["--config", "/nowhere", "show", "ann", "--url", url])
    assert ran.code == 1
    assert "must be an URL such as" in ran.err or "/nowhere" in ran.err


def test_what_is_not_the_api_is_reported(cli: CommandLine, service: Service) -> None:
    token = str(service.directory / "api-token")
    with ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler) as other:
        threading.Thread(target=other.serve_forever).start()
        ran = cli.run_bare(["show", "x", "--url", f"http://127.0.0.1:{other.server_port}", "--token-file", token])
        other.shutdown()
    told = "this is not the HTTP API of the service: it answered 404 without the JSON of one"
    assert (ran.code, ran.err.splitlines()[-1]) == (1, f"chapps-cli: {told}")


def test_names_with_slashes_and_blanks_are_found(cli: CommandLine) -> None:
    name = new_name("a/b c%2f?x=ü")
    cli.ok("users", "create", name)
    assert cli.json("show", name)["name"] == name


def test_the_api_is_called_over_a_unix_socket() -> None:
    service = Service()
    try:
        socket = service.directory / "api.sock"
        service.write_config({"API": {"listen": f"unix:{socket}:mode=600"}})
        service.start()
        found = CommandLine(service.config, time.time())
        found.ok("users", "create", "ann")
        assert found.json("show", "ann")["name"] == "ann"
        url, token = f"unix:{socket}", str(service.directory / "api-token")
        assert found.run_bare(["show", "ann", "--url", url, "--token-file", token]).code == 0
    finally:
        service.remove()
