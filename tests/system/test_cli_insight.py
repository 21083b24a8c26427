"""``chapps-cli``: why, decisions, history, explain, events and audit, with a running service."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from chapps_tw.cli import listeners
from chapps_tw.cli.output import local
from tests.support.command_line import CommandLine
from tests.support.paths import ROOT
from tests.support.policy_client import inbound, outbound
from tests.support.servers.common import wait_until
from tests.support.servers.service import Service, new_name


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service({"CHAPPS": {"node": "mx1"}, "GreylistingPolicy": {"minimum_deferral": 1}})
    service.start().wait_ready()
    yield service
    service.remove()


@pytest.fixture
def cli(service: Service) -> CommandLine:
    return CommandLine(service.config, time.time())


@pytest.fixture
def ann(service: Service) -> str:
    """A user who may send two messages, of which both are sent, and a third one is refused."""
    name = new_name("ann") + "@example.com"
    service.add_user(name, 2, ["example.com"])
    actions = [ask(service, name) for _ in range(3)]
    assert [action[:6] for action in actions] == ["DUNNO", "DUNNO", "REJECT"]
    return name


def ask(service: Service, user: str, **more: str) -> str:
    with service.client() as policy:
        return policy.ask(outbound(sasl_username=user, sender="sales@example.com", **more))


def in_history(cli: CommandLine, *filters: str) -> list[dict[str, object]]:
    """Return decisions of the history, once there are some."""
    found: list[dict[str, object]] = []

    def search() -> bool:
        found[:] = cli.json("history", *filters)
        return bool(found)

    wait_until(search, f"{filters} in the history")
    return found


# --- why ---


def test_why_shows_what_a_user_has_used_and_why_mail_was_refused(cli: CommandLine, ann: str) -> None:
    in_history(cli, "--user", ann, "--refused")
    told = cli.ok("why", ann)
    lines = told.splitlines()
    assert lines[:3] == [f"User {ann}", "  Quota: 2 a day", "  May send from: example.com"]
    assert "[####################] 2 a day: 2 of 2 recipients in " in lines[3]
    assert ", 0 left, room at " in lines[3]
    assert lines[4].startswith("  Refused ")
    assert (
        f" ago, {ann}, as sales@example.com to bob@example.net: The message exceeds the user's quota (2 of 2 used)."
        in (lines[4])
    )
    assert lines[5].startswith("  Accepted ")


def test_why_finds_an_address_a_domain_a_client_and_a_message(cli: CommandLine, service: Service, ann: str) -> None:
    queue_id = new_name("4FQ3b2lGz")
    service.add_user("carl", 100, [], ["sales@example.com"])
    ask(service, "carl", queue_id=queue_id, client_address="198.51.100.77")
    in_history(cli, "--queue-id", queue_id)
    assert "Message " + queue_id in cli.ok("why", queue_id)
    assert "Users who may send from it: carl" in cli.ok("why", "SALES@example.com")
    assert "Mail from sales@example.com" in cli.ok("why", "sales@example.com")
    domain = cli.ok("why", "example.com")
    assert domain.startswith("Domain example.com\n  Greylisting: no; SPF: no\n")
    assert "Mail from example.com" in domain
    for client in ("198.51.100.77", "198.51.100.0/24"):
        cards = cli.json("why", client)
        assert [card["is"] for card in cards] == ["client"]
        assert queue_id in {each["queue_id"] for each in cards[0]["decisions"]}


def test_why_shows_exemptions_of_a_client(cli: CommandLine) -> None:
    cli.ok("exempt", "client", "203.0.113.128/25", "--from", "spf", "--until", "1d", "--reason", "partner")
    shown = cli.ok("why", "203.0.113.200")
    assert "  Exempt from spf as 203.0.113.128/25 until " in shown and ": partner\n" in shown


def test_why_shows_exemptions_of_a_sender_and_of_its_domain(cli: CommandLine) -> None:
    for kind, value in (
        ("sender-domain", "partner.example"),
        ("sender-domain", ".sub.example"),
        ("sender", "a@b.example"),
    ):
        cli.ok("exempt", kind, value, "--from", "greylisting", "--until", "1d", "--reason", "partner")
    for what, value in (("Partner.example", "partner.example"), ("x@partner.example", "partner.example"),
                        ("a.sub.example", ".sub.example"), ("a@b.example", "a@b.example")):  # fmt: skip
        shown = cli.ok("why", what)
        assert f"Exemptions {what}\n  Exempt from greylisting as {value} until " in shown, shown
    assert cli.run("why", "xpartner.example").code == 1
    assert "Exempt" not in cli.ok("why", "203.0.113.1")


def test_why_names_what_is_similar_to_the_unknown(cli: CommandLine, ann: str) -> None:
    ran = cli.run("why", ann[:5])
    assert ran.code == 1
    assert ran.err.startswith(
        f"chapps-cli: nothing is known of {ann[:5]}\nchapps-cli: users with {ann[:5]} in their names: "
    )
    for odd in ("a b", "<>", "", "x" * 300, "*", "@", "a@", "\x1b[31m", "../..", "%"):
        ran = cli.run("why", odd)
        assert ran.code in (0, 1), odd
        assert "Traceback" not in ran.err
        assert "\x1b[31m" not in ran.err + ran.out


# --- decisions and the history ---


def test_decisions_are_sentences_oldest_first(cli: CommandLine, ann: str) -> None:
    lines = cli.ok("decisions", "--user", ann).splitlines()
    assert [line.split()[2] for line in lines if f" {ann}," in line][-2:] == ["Accepted", "Refused"]
    rows = cli.json("decisions", "--user", ann, "--limit", "1")
    assert [row["reason"] for row in rows] == ["quota_exceeded"]
    assert next(csv.DictReader(cli.ok("decisions", "--user", ann, "--limit", "1", "--csv").splitlines()))["user"] == ann


def test_decisions_follow_until_ctrl_c(cli: CommandLine, service: Service, ann: str) -> None:
    command = [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(service.config), "decisions"]
    following = subprocess.Popen(
        [*command, "--follow", "--json", "--limit", "1", "--interval", ".05", "--user", ann],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert following.stdout is not None
    assert json.loads(following.stdout.readline())["reason"] == "quota_exceeded"
    ask(service, ann, recipient="later@example.net")
    recipients = {json.loads(following.stdout.readline())["recipient"] for _ in range(1)}
    assert recipients == {"later@example.net"}
    following.send_signal(signal.SIGINT)
    _, err = following.communicate(timeout=60)
    assert (following.returncode, err) == (128 + signal.SIGINT, "\n")


def test_the_history_is_searched_and_counted(cli: CommandLine, ann: str) -> None:
    in_history(cli, "--user", ann, "--refused")
    assert {row["node"] for row in cli.json("history", "--user", ann)} == {"mx1"}
    assert "Refused" in cli.ok("history", "--user", ann, "--refused")
    [group] = cli.json("history", "--user", ann, "--by", "user")
    assert (group["key"], group["refused"]) == (ann, 1)
    assert "quota_exceeded" in cli.ok("history", "--user", ann, "--by", "reason")
    assert "No decisions were found." in cli.ok("history", "--user", "nobody")
    assert cli.run("history", "--client", "not an address").code == 1
    assert len(cli.json("history", "--user", ann, "--limit", "1")) == 1


# --- explain ---


def test_explain_shows_every_policy_and_counts_nothing(cli: CommandLine, service: Service) -> None:
    name = new_name("eve")
    service.add_user(name, 5, ["example.com"])
    lines = cli.ok("explain", "--user", name, "--sender", "a@example.com", "--recipient", "b@c.example").splitlines()
    assert lines[0] == "Postfix would get: DUNNO"
    assert lines[1].endswith("SenderDomainAuthPolicy: Accepted: The sender's domain is linked to the user.")
    assert "OutboundQuotaPolicy: Accepted: " in lines[2]
    assert service.remaining(name) == 5
    assert cli.json("explain", "--user", name, "--sender", "a@example.org")[0]["reason"] == "sender_not_authorized"
    assert cli.run("explain", "nonsense").err == "chapps-cli: 'nonsense' must be NAME=VALUE\n"


def test_why_tells_a_user_without_a_quota_from_one_who_is_suspended(cli: CommandLine, ann: str) -> None:
    other = new_name("nobody")
    cli.ok("users", "create", other)
    assert "Cannot send mail: no quota." in cli.ok("why", other)
    cli.ok("suspend", ann, "--until", "1h")
    assert "Cannot send mail: suspended." in cli.ok("why", ann)
    cli.ok("release", ann)
    assert "Cannot send mail" not in cli.ok("why", ann)


# --- events and the audit trail ---


def test_events_name_the_limit_that_was_reached(cli: CommandLine, ann: str) -> None:
    wait_until(lambda: cli.json("events", "--kind", "at_limit", "--name", ann), "the event")
    [event] = cli.json("events", "--kind", "at_limit", "--name", ann)
    assert (event["figures"]["used"], event["figures"]["amount"]) == (2, 2)
    assert event["detail"].startswith("2 of 2, user limit ")
    assert ann in cli.ok("events", "--since", "1h")
    assert ann in cli.ok("events", "--csv")


def test_events_tell_who_suspended_whom_and_when_the_node_started(cli: CommandLine, ann: str) -> None:
    cli.ok("suspend", ann, "--until", "1h", "--reason", "hacked")
    cli.ok("release", ann)
    told = [(each["kind"], each["author"]) for each in cli.json("events", "--name", ann)]
    assert told[:2] == [("released", told[0][1]), ("suspended", told[0][1])]
    assert told[0][1]
    [started] = cli.json("events", "--kind", "node_started", "--node", "mx1")
    assert started["name"] == "mx1"
    [loaded] = cli.json("events", "--kind", "configuration_loaded")
    assert loaded["detail"].endswith("chapps.ini")


def test_audit_shows_who_changed_what(cli: CommandLine, ann: str) -> None:
    cli.ok("reset", ann)
    cli.ok("suspend", ann, "--reason", "hacked", "--until", "1h")
    records = cli.json("audit", "--name", ann)
    assert {record["kind"] for record in records} >= {"overrides", "live/quota"}
    assert {record["author"] for record in records} == {"first"}
    assert "hacked" in cli.ok("audit", "--name", ann, "--since", "1h")
    assert cli.ok("audit", "--name", "nobody") == "No changes were found.\n"


def test_audit_tells_people_times_and_no_empty_fields(cli: CommandLine, ann: str) -> None:
    cli.ok("suspend", ann, "--reason", "hacked", "--until", "2030-10-01T08:00:00+00:00")
    cli.ok("release", ann)
    shown = cli.ok("audit", "--name", ann, "--kind", "overrides", "--limit", "2")
    assert shown.count(f"until: {local(1917072000)}; reason: hacked") == 2
    assert "limit:" not in shown
    assert "->" not in shown


# --- tally ---


def test_tally_lists_and_clears_what_passed_greylisting(cli: CommandLine, service: Service) -> None:
    name = new_name("grey") + ".example"
    service.add_domain(name, greylist=True)
    request = {"recipient": f"bob@{name}", "client_address": "198.51.100.200"}
    with service.client("greylisting") as policy:
        first = policy.ask(inbound(**request))
        assert first.startswith("DEFER")
        wait_until(lambda: policy.ask(inbound(**request, instance="passed1")) == "DUNNO", "the message passing")
    assert cli.json("tally", "198.51.100.200")[0][0] == "passed1"
    assert cli.ok("tally", "198.51.100.200", "--epoch").startswith("Tally for 198.51.100.200:\n  [0] passed1: 1")
    assert "(cleared)" in cli.ok("tally", "198.51.100.200", "--clear")
    assert "No tally for" in cli.ok("tally", "198.51.100.200")


# --- what a message may contain ---


def test_control_characters_of_senders_do_not_reach_the_terminal(cli: CommandLine, service: Service, ann: str) -> None:
    ask(service, ann, recipient="\x1b[2J\x9b\u202e@example.net", queue_id="EVIL01")
    for arguments in (["decisions", "--user", ann], ["why", ann], ["history", "--user", ann], ["decisions", "--json"]):
        out = cli.ok(*arguments)
        assert not {"\x9b", "\u202e"} & set(out)
        assert "\x1b[2J" not in out


# --- top ---


def test_top_shows_senders_reasons_and_events_once_if_there_is_no_terminal(
    cli: CommandLine, service: Service, ann: str
) -> None:
    for _ in range(20):
        ask(service, ann)
    wait_until(lambda: len(cli.json("history", "--user", ann)) > 20, "all decisions in the history")
    told = cli.ok("top")
    for title in ("Top senders of 5m", "Reasons of 5m", "Near a limit", "Events"):
        assert title in told
    assert "state up  database up" in told
    shown = cli.json("top")
    assert next(each["key"] for each in shown["senders"] if each["key"]) == ann
    assert shown["near"][0]["limits"][0]["left"] == 0
    assert "quota_exceeded" in {each["key"] for each in shown["reasons"]}


@pytest.mark.parametrize(("key", "status"), [("q", 0), ("\x03", 128 + signal.SIGINT)])
def test_top_ends_by_a_key_and_restores_the_terminal(service: Service, key: str, status: int) -> None:
    ours, theirs = pty.openpty()
    before = termios.tcgetattr(theirs)
    command = [sys.executable, "-m", "chapps_tw.application.admin", "--config", str(service.config), "top"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    shown = b""
    try:
        running = subprocess.Popen(
            [*command, "--interval", ".1"],
            cwd=ROOT,
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        while b"decisions/s" not in shown:
            shown += os.read(ours, 65536)
        if key == "\x03":
            running.send_signal(signal.SIGINT)
        else:
            os.write(ours, key.encode())
        reading = threading.Thread(target=_drain, args=(ours,))
        reading.start()
        assert running.wait(60) == status
        assert termios.tcgetattr(theirs) == before
    finally:
        os.close(theirs)
    reading.join()
    os.close(ours)


def _drain(terminal: int) -> None:
    """Read what is written to a terminal until it is closed."""
    with suppress(OSError):
        while os.read(terminal, 65536):
            continue


def test_a_listener_that_was_not_asked_is_told() -> None:
    never: dict[str, object] = {
        "listener": "bulk",
        "at": None,
        "requests": 0,
        "stages": [],
        "peers": [],
        "warnings": [],
    }
    assert list(listeners.lines([never])) == ["bulk: not asked since the start of the service"]


def test_listeners_shows_when_where_and_by_whom_each_was_asked(cli: CommandLine, service: Service, ann: str) -> None:
    with service.client("inbound") as policy:
        policy.ask(inbound())
        found = {each["listener"]: each for each in cli.json("listeners")}
        text = cli.ok("listeners")
    out, mail = found["outbound"], found["inbound"]
    assert out["requests"] >= 3 and out["stages"][0]["with_login"] >= 3
    assert mail["stages"] == [{"stage": "RCPT", "with_login": 0, "without_login": mail["requests"]}]
    assert [each["peer"] for each in mail["peers"]] == ["127.0.0.1"]
    assert abs(mail["peers"][0]["at"] - mail["at"]) < 60
    assert "  RCPT: 0 with login" in text
