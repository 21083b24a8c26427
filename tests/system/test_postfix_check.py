"""``chapps-cli postfix-check`` on a real Postfix, and what its findings say happens there."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
import time
import unittest
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from chapps_tw.config.settings import Settings
from chapps_tw.postfix_check.source import Source, read_main, read_master
from tests.support.command_line import CommandLine
from tests.support.paths import ROOT
from tests.support.servers.common import program, wait_until
from tests.support.servers.postfix import Postfix
from tests.support.servers.service import PATIENT, Options, Service, new_name
from tests.support.smtp_client import SMTPClient
from tools.run import hints

RELAY, RECIPIENT = "smtpd_relay_restrictions", "smtpd_recipient_restrictions"
FOREIGN = "victim@elsewhere.example"
# As Debian's master.cf has it, without comments.
DEBIAN = """\
smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_tls_auth_only=yes
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_recipient_restrictions=
{lines}
pickup    unix  n       -       y       60      1       pickup
relay     unix  -       -       y       -       -       smtp
        -o syslog_name=postfix/$service_name
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${{recipient}}
"""
ODD = {
    "main.cf": "a =\n   b\n# c\n\n   d\nmyhostname = $a\n",
    "master.cf": "smtps inet n - n - - smtpd -v\n\t-o { smtpd_data_restrictions =\n  # why\n   a, { b c } }\n -o x=y\n",
}


class RealPostfixTests(unittest.TestCase):
    """A service and a Postfix."""

    def start(
        self, parameters: Mapping[str, str] | None = None, submission: str = "", options: Options | None = None
    ) -> None:
        self.service = Service({**PATIENT, **(options or {})})
        self.addCleanup(self.service.remove)
        self.service.start().wait_ready()
        self.user = new_name("ann")
        self.service.add_user(self.user, 100, ["example.com"])
        filled = {name: value.format(**self.endpoints) for name, value in (parameters or {}).items()}
        self.postfix = Postfix({}, parameters=filled, submission=submission)
        self.addCleanup(self.postfix.stop)

    @property
    def endpoints(self) -> dict[str, str]:
        """What asks each listener."""
        names = ("outbound", "greylisting", "inbound")
        return {
            name: f"check_policy_service {{ {self.service.endpoint(name)}, timeout=60s, default_action=451 }}"
            for name in names
        }

    def check(self, status: int) -> dict[str, Any]:
        """Return the findings by their code."""
        cli = CommandLine(self.service.config, time.time())
        ran = cli.run("postfix-check", "--config-dir", f"{self.postfix.directory}/etc")
        self.assertEqual(ran.code, status, ran)
        other = cli.run("postfix-check", "--config-dir", f"{self.postfix.directory}/etc", "--csv")
        return {each["code"]: each for each in csv.DictReader(other.out.splitlines())}

    def send(self, recipient: str, login: str = "", port: int = 0) -> int:
        """Send a message as a stranger, or a user; return the reply to RCPT."""
        with SMTPClient(port or self.postfix.port) as client:
            client.xclient(ADDR="203.0.113.5", NAME="host.example.net", **({"LOGIN": login} if login else {}))
            return client.message("ann@example.com", [recipient]).codes[0]

    def requests(self, listener: str) -> int:
        _, answer = self.service.http("/live/listeners/")
        return int(next(each["requests"] for each in answer["response"] if each["listener"] == listener))

    def test_an_open_relay_is_one(self) -> None:
        lists = {
            "smtpd_relay_restrictions": "",
            RECIPIENT: "{greylisting} reject_unauth_destination",
        }
        self.start(lists, options={"GreylistingPolicy": {"acceptance_message": "OK"}})
        self.assertIn("open relay", self.check(1)["open-relay"]["effect"])
        self.assertEqual(self.send(FOREIGN), 250)

    def test_with_dunno_it_is_none(self) -> None:
        lists = {
            "smtpd_relay_restrictions": "",
            RECIPIENT: "{greylisting} reject_unauth_destination",
        }
        self.start(lists)
        found = self.check(0)
        self.assertNotIn("open-relay", found)
        self.assertIn("ahead-of-reject-unauth", found)
        self.assertEqual(self.send(FOREIGN), 554)
        # It was asked in vain.
        self.assertEqual(self.requests("greylisting"), 1)

    def test_a_list_that_master_cf_overrides_is_never_asked(self) -> None:
        lists = {RECIPIENT: "{outbound}", "smtpd_sasl_auth_enable": "no"}
        block = " -o smtpd_sasl_auth_enable=yes\n -o smtpd_recipient_restrictions="
        self.start(lists, block)
        self.assertEqual(self.check(1)["overridden"]["parameter"], "smtpd_recipient_restrictions")
        self.assertEqual(self.send(FOREIGN, self.user, self.postfix.submission_port), 250)
        self.assertEqual(self.requests("outbound"), 0)

    def test_outbound_for_the_world_refuses_incoming_mail(self) -> None:
        self.start({RECIPIENT: "{outbound}"})
        self.assertIn("refuses all incoming mail", self.check(1)["outbound-for-world"]["effect"])
        self.assertEqual(self.send("bob@example.com"), 554)

    def test_what_is_asked_twice_costs_two_requests(self) -> None:
        lists = {RELAY: "permit_sasl_authenticated reject_unauth_destination {inbound}"}
        self.start({**lists, RECIPIENT: "{inbound}"})
        self.assertIn("asked-twice", self.check(0))
        self.assertEqual(self.send("bob@example.com"), 250)
        self.assertEqual(self.requests("inbound"), 2)

    def test_inbound_at_data_greylists_nothing_that_goes_to_two(self) -> None:
        self.start({"smtpd_data_restrictions": "{greylisting}"})
        self.service.add_domain("example.com", greylist=True)
        self.assertIn("stage-unfit", self.check(1))
        with SMTPClient(self.postfix.port) as client:
            client.xclient(ADDR="203.0.113.5", NAME="host.example.net")
            replies = client.message("carl@example.net", ["bob@example.com", "bill@example.com"])
        self.assertEqual(replies.delivered, 2)

    def test_behind_permit_sasl_authenticated_users_are_not_asked_about(self) -> None:
        self.start({RECIPIENT: "permit_sasl_authenticated {outbound} reject"})
        self.assertIn("login-permitted-ahead", self.check(1))
        self.assertEqual(self.send(FOREIGN, self.user), 250)
        self.assertEqual(self.requests("outbound"), 0)

    def test_a_misspelled_restriction_defers_all_mail(self) -> None:
        self.start({RECIPIENT: "check_policy_servce inet:127.0.0.1:10227"})
        self.assertIn("451 4.3.5", self.check(1)["restriction-unknown"]["effect"])
        self.assertEqual(self.send("bob@example.com"), 451)

    def test_with_a_misspelled_attribute_the_smtp_server_does_not_start(self) -> None:
        self.start({RECIPIENT: "check_policy_service {{ inet:127.0.0.1:10227, timout=25s }}"})
        self.assertIn("does not start", self.check(1)["service-invalid"]["effect"])
        with socket.create_connection(("127.0.0.1", self.postfix.port)):
            wait_until(lambda: 'fatal: unknown option: "timout = 25s"' in self.postfix.log_text(), "the end of smtpd")

    def test_what_the_running_service_was_asked_is_compared(self) -> None:
        self.start({"smtpd_data_restrictions": "permit_sasl_authenticated reject {greylisting}"})
        with self.service.client("greylisting") as policy:
            policy.ask({"request": "smtpd_access_policy", "protocol_state": "RCPT"})
            self.assertIn("asked-by-others", self.check(1))


def test_the_files_are_read_as_postconf_reads_them(tmp_path: Path) -> None:
    for name in ("main.cf", "master.cf"):
        text = (ROOT / "conf" / "postfix" / f"{name}.example").read_text()
        (tmp_path / name).write_text(text + ODD[name])

    def ask(option: str) -> str:
        command = [program("postconf"), "-c", str(tmp_path), option]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    expected = read_main(ask("-n"))
    for main, master in (((tmp_path / "main.cf").read_text(), (tmp_path / "master.cf").read_text()),
                         (ask("-n"), ask("-M"))):  # fmt: skip
        source = Source(read_main(main), read_master(master))
        pairs = [(each.label, *pair) for each in source.services for pair in each.overrides.items()]
        overrides = sorted(f"{label}/{name} = {value}".rstrip() for label, name, value in pairs)
        assert overrides == sorted(line.rstrip() for line in ask("-P").splitlines())
        # postconf adds where the files are.
        assert {**source.main, "config_directory": str(tmp_path)}.items() >= expected.items()


# --- what we ship ---


def built_in(directory: Path) -> Path:
    """Return a configuration with the default listeners, of a service that does not run."""
    config = directory / "chapps.ini"
    config.write_text(f"[CHAPPS]\ndata_dir = {directory}\n")
    return config


def checked(tmp_path: Path, main: str, master: str) -> Sequence[tuple[str, str, str]]:
    """Return what is found about two files, with the built-in configuration."""
    (tmp_path / "main.cf").write_text(main)
    (tmp_path / "master.cf").write_text(master)
    cli = CommandLine(built_in(tmp_path), 0.0)
    files = ("--postconf", str(tmp_path / "main.cf"), "--master", str(tmp_path / "master.cf"))
    findings = cli.json("postfix-check", *files)["findings"]
    return [(each["severity"], each["code"], each["service"]) for each in findings]


def test_nothing_is_wrong_with_the_examples(tmp_path: Path) -> None:
    main = (ROOT / "conf" / "postfix" / "main.cf.example").read_text()
    master = "smtp inet n - y - - smtpd\n" + (ROOT / "conf" / "postfix" / "master.cf.example").read_text()
    assert checked(tmp_path, main, master) == [("note", "mynetworks-permitted", "smtp/inet")]


def test_nothing_is_wrong_with_the_lines_of_the_page_about_postfix(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "configure-postfix.md").read_text()
    master = DEBIAN.format(lines="\n".join(re.findall(r"^ +-o .*$", text, re.MULTILINE)))
    (inbound,) = re.findall(r"^ +(check_policy_service .*)$", text, re.MULTILINE)
    main = f"compatibility_level = 3.6\nsmtpd_recipient_restrictions = reject_unauth_destination, {inbound}\n"
    assert checked(tmp_path, main, master) == [("note", "local-mail", "pickup/unix")]


def test_nothing_is_wrong_with_what_make_run_prints(tmp_path: Path) -> None:
    lines = re.findall(r"^ +-o .*$", hints(Settings()), re.MULTILINE)
    assert len(lines) == 2
    found = checked(tmp_path, "compatibility_level = 3.6\n", DEBIAN.format(lines="\n".join(lines)))
    assert found == [("note", "not-asked", ""), ("note", "local-mail", "pickup/unix")]


def test_the_lines_of_the_page_mend_what_it_shows(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "check-postfix.md").read_text().replace("/tmp/", f"{tmp_path}/")
    writing = re.findall(r"^ +# (printf .*)$", text, re.MULTILINE)
    cli = CommandLine(built_in(tmp_path), 0.0)
    files = ("--postconf", str(tmp_path / "main.cf"), "--master", str(tmp_path / "master.cf"))
    for lines, code, said in (
        (writing[:2], 1, "error: main.cf: no SMTP server of this Postfix asks any of our listeners."),
        (writing[2:], 0, "submission/inet asks outbound at DATA (smtpd_data_restrictions) about logged-in users"),
    ):
        subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)
        ran = cli.run("postfix-check", *files)
        assert ran.code == code and ran.out.startswith(f"{said}\n") and f"    {said}\n" in text


# --- the command ---


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    (tmp_path / "master.cf").write_text("smtp inet n - n - - smtpd\n")
    return ["--postconf", str(tmp_path / "main.cf"), "--master", str(tmp_path / "master.cf")]


def test_errors_are_shown_and_the_exit_status_is_one(files: list[str], tmp_path: Path) -> None:
    ran = CommandLine(built_in(tmp_path), 0.0).run("postfix-check", *files)
    assert (ran.code, ran.err) == (1, "chapps-cli: 1 error\n")
    assert "error: main.cf: no SMTP server of this Postfix asks any of our listeners.\n" in ran.out
    assert "remark: the running service could not tell" in ran.out


def test_what_cannot_be_read_is_a_wrong_argument(files: list[str], tmp_path: Path) -> None:
    cli = CommandLine(built_in(tmp_path), 0.0)
    (tmp_path / "odd").write_text("smtp inet n\n")
    (tmp_path / "large").write_text("#" * (1 << 20) + "\n")
    for arguments, said in (
        (files[:2], "give --postconf and --master together"),
        ([*files, "--config-dir", "/"], "give --postconf and --master together"),
        ([*files[:3], "/nowhere"], "/nowhere cannot be read"),
        ([*files[:3], str(tmp_path / "odd")], "master.cf, line 1: must have 8 columns"),
        (["--postconf", str(tmp_path / "odd"), *files[2:]], "main.cf, line 1: must be 'name = value'"),
        (["--postconf", str(tmp_path / "large"), *files[2:]], "has more than 1048576 characters"),
        (["--config-dir", str(tmp_path / "none")], "postconf -c"),
    ):
        ran = cli.run("postfix-check", *arguments)
        assert ran.code == 2 and said in ran.err, (arguments, ran)
