"""What notices say, to whom, and when."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from email import message_from_bytes
from email.policy import default
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.application.preflight import findings
from chapps_tw.config.load import load
from chapps_tw.config.notify import TimeOfDay
from chapps_tw.config.settings import ConfigError, Notify
from chapps_tw.interfaces.events import LIMIT_EVENTS
from chapps_tw.mail.addresses import mailbox
from chapps_tw.notify.facts import told, values_of
from chapps_tw.notify.message import compose
from chapps_tw.notify.notice import Channel, address_of, notices_of
from chapps_tw.notify.samples import template_problems
from chapps_tw.notify.schedule import report_due
from chapps_tw.notify.templates import TemplateProblem, Templates, Text
from chapps_tw.policies.events import EventKind, LimitEvent, event_of

EVENT = LimitEvent("near_limit", "oqp", "ann@example.com", "hour", "user", 45, 50, 3600.0, 1_790_000_000.25, "messages")
ALL = replace(Notify(), user_events=LIMIT_EVENTS, admin_events=LIMIT_EVENTS, webhook_events=("at_limit",))


def test_the_events_that_can_be_chosen_are_those_that_there_are() -> None:
    assert list(LIMIT_EVENTS) == list(EventKind)


def test_each_channel_is_told_the_events_that_are_chosen_for_it() -> None:
    assert [each.channel for each in notices_of(EVENT, ALL)] == [Channel.USER, Channel.ADMIN]
    at_limit = EVENT._replace(kind="at_limit")
    assert [each.channel for each in notices_of(at_limit, ALL)] == [Channel.USER, Channel.ADMIN, Channel.WEBHOOK]
    assert list(notices_of(at_limit, Notify())) == []


def test_every_node_gives_the_notice_of_an_event_the_same_id() -> None:
    read = event_of(json.dumps(EVENT._asdict()))
    assert read is not None
    first, second = ([each.id for each in notices_of(event, ALL)] for event in (EVENT, read))
    assert first == second and len(set(first)) == 2
    later = [each.id for each in notices_of(EVENT._replace(at=EVENT.at + 3600), ALL)]
    assert not set(first) & set(later)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "near_limit"}', '{"at": 1, "more": 2}'])
def test_an_event_in_another_form_is_left_out(text: str) -> None:
    assert event_of(text) is None


@pytest.mark.parametrize(
    ("event", "domain", "address"),
    [
        (EVENT, "", "ann@example.com"),
        (EVENT._replace(space="oqp.bytes"), "", "ann@example.com"),
        (EVENT._replace(account="ann"), "", ""),
        (EVENT._replace(account="ann"), "example.org", "ann@example.org"),
        (EVENT._replace(space="limit.messages", account="hour:ann@example.com"), "", "ann@example.com"),
        (EVENT._replace(space="limit.messages", account="hour:ann@example.com", level="sender"), "", ""),
        (EVENT._replace(space="pool", account="example.com", level="domain pool"), "example.org", ""),
        (EVENT._replace(account="a\r\nBcc: x@example.com"), "example.org", ""),
        (EVENT._replace(account='"a b"@example.com'), "", ""),
        (EVENT._replace(account="jürgen@example.com"), "", ""),
        (EVENT._replace(account="ann@example.com\u2026"), "", ""),
        (EVENT._replace(account="EXAMPLE\\ann"), "example.org", ""),
    ],
)
def test_mail_goes_to_users_that_have_an_address(event: LimitEvent, domain: str, address: str) -> None:
    assert address_of(event, domain) == address


@given(st.text(max_size=80) | st.from_regex(r"[a-z.\"<>\r\n, ]{1,8}@[a-z.\r\n>]{1,8}", fullmatch=True))
def test_a_mailbox_has_nothing_that_ends_a_command_or_a_header(text: str) -> None:
    found = mailbox(text)
    assert found.isascii() and not set(found) & set('\r\n<>,"() :;')


# --- mails ---


def test_a_mail_has_the_headers_of_one_that_nobody_wrote() -> None:
    mail = message_from_bytes(compose(Text("é", "é\n"), "a@example.com", "b@example.com", "12ab", 0.0), policy=default)
    wanted = {
        "From": "a@example.com", "To": "b@example.com", "Subject": "é", "Message-ID": "<12ab@example.com>",
        "Auto-Submitted": "auto-generated",
    }  # fmt: skip
    assert {name: str(mail[name]) for name in wanted} == wanted
    assert mail["Date"].datetime.timestamp() == 0.0
    assert mail.get_content() == "é\n"


@given(st.text(max_size=300))
def test_no_account_can_add_a_header_or_a_line(account: str) -> None:
    values = values_of(EVENT._replace(account=account), 0.0, Notify(), "mx1")
    text = Templates("").render("admin_near_limit", values)
    data = compose(text, "a@example.com", "b@example.com", "12ab", 0.0)
    mail = message_from_bytes(data, policy=default)
    assert len(mail.keys()) == 9
    assert data.isascii() and b"\n." not in data
    plain = Templates("").render("admin_near_limit", {**values, "account": "ann"})
    assert text.body.count("\n") == plain.body.count("\n")


def test_the_webhook_is_told_plain_values() -> None:
    found = json.loads(json.dumps(told(values_of(EVENT, EVENT.at + 60, Notify(), "mx1"))))
    assert found["at"].startswith("2026-09-21T") and found["at"].endswith("+00:00")
    assert (found["account"], found["left"], found["percent"], found["room_at"][:4]) == (
        "ann@example.com",
        5,
        90,
        "2026",
    )
    assert "contact" not in found


# --- templates ---


def test_the_built_in_templates_have_all_they_need() -> None:
    assert list(template_problems(Notify())) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Subject: {{ acount }}\n\n", "'acount' is undefined"),
        ("Subject: a\n\n{% if %}", "line 3: "),
        ("Hello\n", "must begin with a line 'Subject: ...'"),
        ("Subject: a\nHello\n", "must begin with a line 'Subject: ...', and an empty line"),
        ("Subject: {{ 1 / 0 }}\n\n", "division by zero"),
    ],
)
def test_a_template_that_is_wrong_is_a_config_error(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "user_at_limit.txt").write_text(text)
    config = tmp_path / "chapps.ini"
    config.write_text(f"[CHAPPS]\ndata_dir = {tmp_path}\n[Notify]\ntemplates = {tmp_path}\n")
    with pytest.raises(ConfigError) as caught:
        load(str(config), {}, findings)
    [problem] = [each for each in caught.value.problems if "[Notify]" in each]
    assert f"line 4: [Notify] templates = '{tmp_path}': contains a template" in problem
    assert f"user_at_limit.txt: {why}" in problem or why in problem


def test_a_subject_is_one_line() -> None:
    templates = Templates("")
    with pytest.raises(TemplateProblem, match="no_such"):
        templates.render("no_such", {})
    values = values_of(EVENT._replace(account="x" * 500), 0.0, Notify(), "mx1")
    assert len(templates.render("admin_at_limit", values).subject) == 200


# --- the daily report ---


@pytest.fixture
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_the_report_is_due_once_a_day_at_its_time_of_the_host(berlin: None) -> None:
    at = 1_790_055_000.0 + 30 * 60  # 2026-09-22 07:00 in Berlin
    time_of_day = TimeOfDay(7, 0)
    start = next(at + 60 * minute for minute in range(-1440, 1440) if report_due(time_of_day, at + 60 * minute))
    assert time.strftime("%H:%M", time.localtime(start)) == "07:00"
    report = report_due(time_of_day, start)
    assert report is not None and report == report_due(time_of_day, start + 3599)
    assert report_due(time_of_day, start - 1) is None and report_due(time_of_day, start + 3600) is None
    tomorrow = report_due(time_of_day, start + 86400)
    assert tomorrow is not None and tomorrow.id != report.id
    assert report_due("off", start) is None


# --- the options ---


def problems(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "chapps.ini"
    path.write_text(f"[Notify]\n{text}\n")
    path.chmod(0o600)
    try:
        load(str(path), {})
    except ConfigError as error:
        return [each.partition("[Notify] ")[2] for each in error.problems]
    return []


KEY = "webhook_secret = 0123456789abcdef\n"
MAIL = "from_address = a@example.com\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("user_events = near_limt", "user_events = 'near_limt': must be a list without duplicates of near_limit"),
        ("user_events = at_limit", "from_address = '': must be set while mail is sent"),
        (f"{MAIL}admin_events = at_limit", "admin_address = '': must be set while admin_events is"),
        (f"{MAIL}daily_report = 07:30", "admin_address = '': must be set while daily_report is"),
        ("daily_report = 7:30", "daily_report = '7:30': must be off, or a time of day"),
        ("admin_address = Ann <a@example.com>", "admin_address = 'Ann <a@example.com>': must be one mail address"),
        ("relay = mail.example.com", "relay = 'mail.example.com': must be host:port"),
        ("relay = 127.0.0.1:0", "relay = '127.0.0.1:0': must be host:port"),
        ("relay_user = chapps", "relay_user = 'chapps': needs relay_password or relay_password_file"),
        (
            "relay = mail.example.com:25\nrelay_user = a\nrelay_password = b",
            "relay_tls = 'none': sends the password unencrypted",
        ),
        ("webhook_events = at_limit", "webhook = '': must be set while webhook_events is"),
        ("webhook = https://example.com/", "webhook_secret = '': or webhook_secret_file must be set"),
        (f"{KEY}webhook = ftp://example.com/", "webhook = '********': must be a URL"),
        (f"{KEY}webhook = https://me:secret@example.com/", "webhook = '********': must be a URL"),
        (f"{KEY}webhook = https://[", "webhook = '********': must be a URL"),
        ("webhook_secret = whsec_MDEy", "webhook_secret = '********': must hold whsec_ and base64"),
        ("webhook_secret = whsec_%%%", "webhook_secret = '********': must hold whsec_ and base64"),
        ("user_domain = a b", "user_domain = 'a b': must be a domain"),
        ("give_up_after = 1", "give_up_after = '1': must be a duration with a unit"),
    ],
)
def test_an_option_that_is_wrong_names_the_remedy(tmp_path: Path, text: str, wanted: str) -> None:
    [problem] = problems(tmp_path, text)
    assert problem.startswith(wanted)


def test_all_options_together_are_right(tmp_path: Path) -> None:
    text = (
        f"{MAIL}{KEY}user_events = near_limit at_limit\nadmin_events = at_limit\nadmin_address = root@bücher.example\n"
        "daily_report = 07:30\nrelay = [2001:db8::1]:587\nrelay_tls = starttls\nrelay_user = a\nrelay_password = b\n"
        "webhook = https://example.com/hook?t=1\nwebhook_events = at_limit\nuser_domain = example.com\n"
        "give_up_after = 2d\nretry_after = 0.5\ncontact = desk@example.com, +49 30 1234"
    )
    assert problems(tmp_path, text) == []
