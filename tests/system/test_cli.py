"""``chapps-cli``: each command, run as a program."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import chapps_tw
from chapps_tw.application import admin
from chapps_tw.cli import main as cli
from chapps_tw.cli.policy_request import ask, request
from chapps_tw.cli.session import Unreachable
from chapps_tw.config.load import load
from chapps_tw.security.passcode import make_hash, verify
from chapps_tw.security.tokens import TokenError, TokenStore
from tests.support.paths import ROOT
from tests.support.scopes import scope_of
from tests.support.servers.common import free_port

WORLD = admin.dependencies(lambda: 1000000000.0)


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "chapps.ini"
    path.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def run(config: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_one(*arguments: str, file: Path = config) -> Ran:
        code = cli.run(["--config", str(file), *arguments], WORLD)
        return Ran(code, *capsys.readouterr())

    return run_one


def test_version_prints_the_version_of_the_package(run: Run) -> None:
    assert run("version").out == f"CHAPPS-TW v{chapps_tw.__version__}\n"


def test_usage_errors_exit_with_2(run: Run) -> None:
    for arguments in ((), ("admin",), ("token", "create"), ("no-such-command",)):
        assert run(*arguments).code == 2


# --- check-config ---


def test_check_config_reports_a_default_quota_that_does_not_exist(run: Run, config: Path) -> None:
    config.write_text(config.read_text() + "[OutboundQuotaPolicy]\ndefault_quota = basic\n")
    # There is no database to look into yet.
    assert run("check-config").err == ""
    run("admin", "db-setup")
    book = config.parent / "chapps.sqlite3"
    told = f"[OutboundQuotaPolicy] default_quota = basic: there is no such quota in {book}; add it"
    assert run("check-config").err == f"chapps-cli: {told}\n"
    with sqlite3.connect(book) as connection:
        connection.execute("INSERT INTO quotas (name, quota) VALUES ('basic', 5)")
    assert run("check-config").err == ""


def test_check_config_names_the_listeners(run: Run, config: Path) -> None:
    ran = run("check-config")
    assert ran.code == 0
    assert ran.out.splitlines()[0] == f"{config}: ok"
    assert "  outbound: tcp:10225:interface=127.0.0.1: SenderDomainAuthPolicy, OutboundQuotaPolicy\n" in ran.out
    assert "  HTTP API: tcp:8080:interface=127.0.0.1\n" in ran.out


def test_check_config_reports_every_problem_at_once(run: Run, config: Path) -> None:
    config.write_text(f"{config.read_text()}user_kee = x\nrequest_timeout = soon\n[Nonsense]\nx = 1\n")
    ran = run("check-config")
    assert (ran.code, ran.out) == (1, "")
    lines = ran.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith(f"chapps-cli: {config}: ") for line in lines)


def test_a_missing_file_is_reported(run: Run, tmp_path: Path) -> None:
    ran = run("check-config", file=tmp_path / "other.ini")
    assert ran.code == 1
    assert "other.ini: cannot be read" in ran.err


# --- flush-config ---


def test_flush_config_writes_a_file_with_the_same_settings(run: Run, config: Path) -> None:
    config.write_text("[Redis]\npassword = 00123%\n[OutboundQuotaPolicy]\nmargin = 15%\n")
    before = load(str(config))
    assert run("admin", "flush-config").code == 0
    assert load(str(config)) == before
    assert "# Length of the rolling interval in seconds." in config.read_text()


def test_flush_config_writes_a_file_of_mode_0600(run: Run, config: Path) -> None:
    config.chmod(0o644)
    ran = run("admin", "flush-config")
    assert config.stat().st_mode & 0o7777 == 0o600
    assert ran.out == f"{config} written, mode 0600, owner {os.getuid()}:{os.getgid()}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_flush_config_keeps_the_owner(run: Run, config: Path) -> None:
    os.chown(config, 65534, 65534)
    assert run("admin", "flush-config").code == 0
    assert (config.stat().st_uid, config.stat().st_gid) == (65534, 65534)


def test_flush_config_follows_a_symbolic_link(run: Run, config: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.ini"
    link.symlink_to(config)
    assert run("admin", "flush-config", file=link).code == 0
    assert link.is_symlink()
    assert "request_timeout" in config.read_text()


def test_a_failed_flush_config_changes_nothing(run: Run, config: Path, tmp_path: Path) -> None:
    busy = tmp_path / "directory"
    busy.mkdir()
    before = sorted(tmp_path.iterdir())
    ran = run("admin", "flush-config", "--to", str(busy))
    assert ran.code == 1
    assert ran.err == f"chapps-cli: {busy}: cannot be written: Is a directory\n"
    assert sorted(tmp_path.iterdir()) == before


# --- passcode ---


def stdin_of(monkeypatch: pytest.MonkeyPatch, path: Path, text: str) -> None:
    path.write_text(text)
    monkeypatch.setattr("sys.stdin", path.open())


def test_passcode_prints_a_line_for_the_configuration(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stdin_of(monkeypatch, tmp_path / "stdin", "correct horse\n")
    config.write_text(f"[CHAPPS]\n{run('admin', 'passcode').out}")
    stored = load(str(config)).chapps.password
    assert stored.startswith("scrypt$")
    assert verify("correct horse", stored)
    assert not verify("correct horse ", stored)


def test_an_empty_passcode_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stdin_of(monkeypatch, tmp_path / "stdin", "\n")
    assert run("admin", "passcode") == (1, "", "chapps-cli: the passcode is empty\n")


def test_a_passcode_is_salted() -> None:
    assert make_hash("same") != make_hash("same")


def test_the_hash_format_of_chapps_is_accepted() -> None:
    digest = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
    assert verify("password", digest)
    assert not verify("Password", digest)


@pytest.mark.parametrize(
    "stored",
    ["", "password", "scrypt$", "scrypt$3$8$1$c2FsdHNhbHQ=$" + "A" * 44, "scrypt$4194304$8$1$c2FsdA==$" + "A" * 44],
)
def test_no_passcode_matches_an_invalid_hash(stored: str) -> None:
    assert not verify("password", stored)
    assert not verify(stored, stored)


# --- the database ---


def test_db_setup_creates_the_tables_and_says_when_they_are_up_to_date(run: Run, tmp_path: Path) -> None:
    assert "set up at revision" in run("admin", "db-setup").out
    assert "is up to date" in run("admin", "db-setup").out
    with sqlite3.connect(tmp_path / "chapps.sqlite3") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables >= {"users", "domains", "emails", "quotas", "domain_user", "email_user", "quota_user"}


def test_examples_are_added_once(run: Run, tmp_path: Path) -> None:
    assert run("admin", "add-examples").out.endswith("alice@example.com and bob@example.org added\n")
    assert "is left as it is" in run("admin", "add-examples").out
    with sqlite3.connect(tmp_path / "chapps.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM users").fetchone() == (2,)


def test_tables_are_copied_from_the_database_of_another_configuration(run: Run, config: Path, tmp_path: Path) -> None:
    run("admin", "add-examples")
    other = tmp_path / "other.ini"
    other.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n[PolicyConfigAdapter]\ndb_name = other\n")
    ran = run("admin", "copy-tables", "--from", str(config), file=other)
    assert ran.code == 0
    assert ran.out.startswith(f"sqlite+pysqlite:///{tmp_path}/other.sqlite3: copied from sqlite+pysqlite:///{tmp_path}")
    assert "2 users" in ran.out
    again = run("admin", "copy-tables", "--from", str(config), file=other)
    assert (again.code, again.out) == (1, "")
    assert again.err.startswith(
        f"chapps-cli: {other}: [PolicyConfigAdapter] db_name: the database cannot be used: Its "
    )
    assert again.err.endswith(" has entries. Tables are copied to empty ones only.\n")


def test_tables_that_do_not_exist_are_not_copied(run: Run, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ini"
    other.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n[PolicyConfigAdapter]\ndb_name = other\n")
    ran = run("admin", "copy-tables", "--from", str(other))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"chapps-cli: {other}: [PolicyConfigAdapter] db_name: the database cannot be used: ")


def test_an_unavailable_database_is_reported_without_its_password(run: Run, config: Path) -> None:
    config.write_text(
        "[PolicyConfigAdapter]\nadapter = postgresql\ndb_host = 127.0.0.1\n"
        f"db_port = {free_port()}\ndb_pass = hunter22\n"
    )
    ran = run("admin", "db-setup")
    assert ran.code == 1
    assert f"{config}: [PolicyConfigAdapter] db_host, db_port: the database cannot be used: " in ran.err
    assert "refused" in ran.err
    assert "hunter22" not in ran.err
    assert "Traceback" not in ran.err


def test_a_file_that_is_not_a_database_is_reported(run: Run, tmp_path: Path) -> None:
    (tmp_path / "chapps.sqlite3").write_bytes(b"not a database" * 1000)
    assert run("admin", "db-setup").err.endswith(
        "/chapps.ini: [PolicyConfigAdapter] db_name: the database cannot be used: file is not a database\n"
    )


# --- tokens ---


def test_a_token_can_be_created_listed_and_revoked(run: Run, tmp_path: Path) -> None:
    token = run("token", "create", "billing").out.strip()
    reader = run("token", "create", "monitor", "--read-only").out.strip()
    operator = run("token", "create", "help desk", "--scope", "operator").out.strip()
    store = TokenStore(str(tmp_path / "api-token"))
    assert [scope_of(store, each) for each in (token, reader, operator)] == ["full", "read", "operator"]
    wanted = ("full      billing", "read      monitor", "operator  help desk")
    assert run("token", "list").out == "".join(f"2001-09-09T01:46:40Z  {line}\n" for line in wanted)
    assert run("token", "revoke", "billing").code == 0
    assert (scope_of(store, token), scope_of(store, reader)) == (None, "read")
    assert run("token", "revoke", "billing").err == "chapps-cli: there is no token named 'billing'\n"


def test_token_names_are_unique(run: Run) -> None:
    assert run("token", "create", "billing").code == 0
    assert run("token", "create", "billing") == (1, "", "chapps-cli: a token named 'billing' exists already\n")


def test_show_prints_the_first_token(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    assert (
        run("token", "show").err == f"chapps-cli: {path}: does not exist; the service creates it at its first start\n"
    )
    TokenStore(str(path)).make_first()
    assert run("token", "show").out == path.read_text()
    run("token", "revoke", "first")
    assert "was revoked" in run("token", "show").err


# --- ask ---


@contextmanager
def answering(
    *parts: bytes, family: socket.AddressFamily = socket.AF_INET, path: str = ""
) -> Iterator[tuple[int, list[bytes]]]:
    """A policy server for one connection: stores the request, sends its answer in parts."""
    asked: list[bytes] = []
    with socket.socket(family) as server:
        server.bind(path or ("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(30)
                received = b""
                while not received.endswith(b"\n\n"):
                    received += connection.recv(4096)
                asked.append(received)
                for part in parts:
                    connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield (0 if path else server.getsockname()[1]), asked
        thread.join(30)


def test_ask_sends_a_request_like_postfix_and_prints_the_answer(run: Run) -> None:
    with answering(b"action=REJ", b"ECT no\n", b"\n") as (port, asked):
        ran = run("ask", "--user", "ann", "--sender", "ann@x.example", "--port", str(port), "helo_name=h=1", "size=7")
    assert (ran.code, ran.out) == (0, "action=REJECT no\n")
    lines = asked[0].decode().split("\n")
    assert lines[0] == "request=smtpd_access_policy"
    assert lines[-2:] == ["", ""]
    assert {"protocol_state=RCPT", "sasl_username=ann", "sender=ann@x.example", "helo_name=h=1", "size=7"} < set(lines)


def test_each_request_has_another_instance() -> None:
    first, second = (request("", "", "", "192.0.2.1", {}) for _ in range(2))
    assert first != second
    same = request("", "", "", "192.0.2.1", {"instance": "1"})
    assert same == request("", "", "", "192.0.2.1", {"instance": "1"})


def test_ask_over_a_unix_socket(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "policy")
    with answering(b"action=DUNNO\n\n", family=socket.AF_UNIX, path=path):
        assert run("ask", "--socket", path).out == "action=DUNNO\n"


def test_ask_reports_a_refused_connection(run: Run) -> None:
    port = free_port()
    assert (
        run("ask", "--port", str(port)).err == f"chapps-cli: cannot connect to 127.0.0.1:{port}: Connection refused\n"
    )


def test_ask_reports_an_incomplete_answer(run: Run) -> None:
    with answering(b"action=DUNNO\n") as (port, _):
        ran = run("ask", "--port", str(port))
    assert "sent no complete answer" in ran.err


def test_ask_times_out() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    with silent, pytest.raises(Unreachable, match=r"did not answer in 0\.1 s"):
        ask(silent.getsockname()[:2], b"\n", 0.1)


@pytest.mark.parametrize("other", ["no-value-sign\nx=1", "a=b\nc=d", "=x"])
def test_ask_refuses_a_value_that_would_add_an_attribute(run: Run, other: str) -> None:
    assert "must be one line: NAME=VALUE" in run("ask", other).err


# --- whatever is given to it ---


@pytest.mark.parametrize("place", range(3))
def test_the_configuration_is_named_before_or_after_the_command(
    config: Path, capsys: pytest.CaptureFixture[str], place: int
) -> None:
    arguments = ["token", "list"]
    arguments[place:place] = ["--config", str(config)]
    config.write_text("nonsense")
    assert cli.run(arguments, WORLD) == 1
    assert f"{config}: cannot be read" in capsys.readouterr().err


def test_the_configuration_that_is_named_last_wins(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--config", "/nonesuch", "check-config", "--config", str(config)], WORLD) == 0
    assert capsys.readouterr().out.startswith(f"{config}: ok\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--timeout", value) for value in ("-1", "0", "0.0", "nan", "inf", "1e300", "soon", "")),
        *(("--port", value) for value in ("0", "65536", "-1", "1.5", "smtp", "")),
    ],
)
def test_an_invalid_number_is_a_usage_error(run: Run, option: str, value: str) -> None:
    ran = run("ask", f"{option}={value}")
    assert ran.code == 2
    assert f"Invalid value for '{option}': " in ran.err


@pytest.mark.parametrize("host", [".", "a" * 70, "a..b"])
def test_an_invalid_host_name_is_reported(run: Run, host: str) -> None:
    assert run("ask", "--host", host) == (1, "", f"chapps-cli: {host}:10225 is not a host name\n")


def test_an_attribute_without_a_value_is_reported(run: Run) -> None:
    with answering(b"action=DUNNO\n\n") as (port, asked):
        assert run("ask", "--port", str(port), "foo") == (1, "", "chapps-cli: 'foo' must be NAME=VALUE\n")
        assert run("ask", "--port", str(port), "size=").code == 0
    assert len(asked) == 1


def test_flush_config_does_not_follow_a_link_to_itself(run: Run, tmp_path: Path) -> None:
    link = tmp_path / "link.ini"
    link.symlink_to(link)
    ran = run("admin", "flush-config", "--to", str(link))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith(f"chapps-cli: {link}: cannot be written: ")


@pytest.mark.parametrize(
    "text",
    [
        "[", "[" * 100_000, "{}x", "[1]", '[{"name": 1}]', '"text"', "\0",
        '[{"name": "a", "scope": "all", "created": 1, "sha256": ""}]',
        '[{"name": ["a"], "scope": "full", "created": 1, "sha256": ""}]',
        '[{"name": "a", "scope": "full", "created": 1e300, "sha256": ""}]',
        '[{"name": "a", "scope": "full", "created": NaN, "sha256": ""}]',
        '[{"name": "a", "scope": "full", "created": 1, "sha256": null}]',
        '[{"name": "a", "scope": "full", "created": 1, "sha256": "\u00fc"}]',
    ],
)  # fmt: skip
def test_a_damaged_list_of_tokens_is_reported(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "api-tokens.json"
    path.write_text(text)
    for command in (("list",), ("create", "other"), ("revoke", "other")):
        ran = run("token", *command)
        assert (ran.code, ran.out) == (1, "")
        assert ran.err.startswith(f"chapps-cli: {path}: not a list of tokens (")
    with pytest.raises(TokenError):
        TokenStore(str(tmp_path / "api-token")).find("guess")


def test_an_unreadable_first_token_is_reported(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "api-token"
    path.write_bytes(b"\xff")
    assert run("token", "show").err == f"chapps-cli: {path}: not a token\n"
    assert run("token", "list").err == f"chapps-cli: {path}: cannot be read (not UTF-8 text)\n"
    path.unlink()
    path.mkdir()
    assert run("token", "show").err == f"chapps-cli: {path}: cannot be read (Is a directory)\n"


@pytest.mark.parametrize("closed", ["stdin", "end"])
def test_an_unreadable_passcode_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: str
) -> None:
    if closed == "stdin":
        monkeypatch.setattr("sys.stdin", None)
        assert run("admin", "passcode").err == "chapps-cli: the passcode cannot be read: the input ended\n"
    else:
        stdin_of(monkeypatch, tmp_path / "stdin", "")
        assert run("admin", "passcode").err == "chapps-cli: the passcode is empty\n"


def test_a_passcode_instead_of_its_hash_is_reported(run: Run, config: Path) -> None:
    plain = config.read_text()
    config.write_text(f"{plain}password = hunter2\n")
    ran = run("check-config")
    assert ran.code == 0
    assert "[CHAPPS] password is not a hash, so that no passcode matches; create one with" in ran.err
    assert "hunter2" not in ran.err + ran.out
    config.write_text(f"{plain}password = {make_hash('hunter2')}\n")
    config.chmod(0o600)
    assert run("check-config").err == ""


# --- the program, as a shell runs it ---


def shell(command: str, config: Path, out: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a line of sh in which ``$CLI`` is the program.

    :param out: its standard output, in place of what is returned.
    """
    program = f"{sys.executable} -m chapps_tw.application.admin --config {config}"
    environment = {**os.environ, "CLI": program, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["/bin/sh", "-c", command],
        env=environment,
        cwd=ROOT,
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("to", "why"),
    [
        (">/dev/full", "the output cannot be written: No space left on device"),
        (">&-", "there is no standard output to write to"),
    ],
)
def test_a_token_that_could_not_be_printed_is_revoked(config: Path, to: str, why: str) -> None:
    assert shell(f"$CLI token create billing {to}", config).stderr == f"chapps-cli: {why}\n"
    assert TokenStore(str(config.with_name("api-token"))).list() == []


def test_a_token_is_revoked_if_the_pipe_is_broken(config: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ran = shell("$CLI token create billing", config, writer)
    finally:
        os.close(writer)
    assert ran.stderr == "chapps-cli: the output cannot be written: Broken pipe\n"
    assert TokenStore(str(config.with_name("api-token"))).list() == []


def test_output_that_the_terminal_cannot_encode_is_printed(config: Path) -> None:
    assert shell("$CLI token create käse", config).returncode == 0
    listed = shell("PYTHONIOENCODING=ascii $CLI token list", config)
    assert (listed.returncode, listed.stdout[-8:]) == (0, r"k\xe4se" + "\n")


def test_ctrl_c_exits_without_a_traceback(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = [sys.executable, "-m", "chapps_tw.application.admin", "ask", "--port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        with silent.accept()[0] as connection:
            # It waits for the answer from here on.
            while b"\n\n" not in connection.recv(65536):
                continue
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60)[1] == "\n"
    assert process.returncode == 128 + signal.SIGINT


def test_check_config_shows_the_dns_records_that_the_helo_whitelist_needs(run: Run, config: Path) -> None:
    config.write_text(f"{config.read_text()}helo_whitelist = mx.example.org:192.0.2.1; me.example:127.0.0.1\n")
    told = [line for line in run("check-config").out.splitlines() if "helo_whitelist" in line]
    wanted = "mx.example.org has the A record 192.0.2.1, and a PTR record of that address for mx.example.org"
    assert told == [f"  helo_whitelist: mx.example.org:192.0.2.1 applies while {wanted}"]


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_of_the_shell(run: Run, shell_name: str) -> None:
    assert "_CHAPPS_CLI_COMPLETE" in run("completion", shell_name).out


def test_commands_are_completed(config: Path) -> None:
    line = 'COMP_WORDS="chapps-cli dom" COMP_CWORD=1 _CHAPPS_CLI_COMPLETE=bash_complete $CLI'
    assert shell(line, config).stdout == "plain,domain\nplain,domains\n"


def test_active_config_names_the_file(run: Run, config: Path) -> None:
    assert run("admin", "active-config").out == f"Using config from {config}\n"


def test_api_password_writes_the_configuration_with_the_hash(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config.write_text(config.read_text() + "request_timeout = 7\n")
    stdin_of(monkeypatch, tmp_path / "stdin", "correct horse\n")
    assert run("admin", "api-password").out.startswith(f"{config} written, mode 0600")
    found = load(str(config)).chapps
    assert verify("correct horse", found.password)
    assert found.request_timeout == 7
    other = tmp_path / "other.ini"
    assert run("admin", "api-password", "--password", "battery", "--to-file", str(other)).code == 0
    assert verify("battery", load(str(other)).chapps.password)
    assert verify("correct horse", load(str(config)).chapps.password)


def test_the_variables_of_the_command_line_are_no_unknown_options(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPPS_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("CHAPPS_TOKEN_FILE", "/nowhere")
    assert run("check-config").err == ""
