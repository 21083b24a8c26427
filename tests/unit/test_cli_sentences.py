"""Decisions, limits and overrides as sentences, and values as text."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from typing import Any

import pytest

from chapps_tw.cli import output, sentences
from chapps_tw.cli.client import Target
from chapps_tw.cli.session import CommandError
from chapps_tw.cli.target import configured, parse_url
from chapps_tw.config.settings import API, ConfigError, Settings
from chapps_tw.mail.decision import Reason

NOW = 1790000000.0
MEANINGS = {str(reason): reason.meaning for reason in Reason}


def record(**changes: Any) -> dict[str, Any]:
    return {
        "time": NOW - 180, "action": "REJECT no", "reason": "quota_exceeded", "figures": {}, "shadow": "", "detail": "",
        "user": "", "sender": "", "recipient": "", "client": "", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("action", "verdict"),
    [
        ("DUNNO", "Accepted"), ("OK", "Accepted"), ("PREPEND X: y", "Accepted"), ("REJECT no", "Refused"),
        ("550 5.7.1 no", "Refused"), ("450 later", "Deferred"), ("DEFER_IF_PERMIT later", "Deferred"),
        ("HOLD", "Held"), ("DISCARD", "Discarded"), ("reject", "Refused"),
    ],
)  # fmt: skip
def test_the_verdict_is_what_became_of_the_mail(action: str, verdict: str) -> None:
    assert sentences.verdict(record(action=action)) == verdict


def test_a_decision_says_when_why_and_when_there_is_room() -> None:
    told = sentences.decision(
        record(user="ann", sender="a@x.example", figures={"used": 200, "limit": 200, "wait": 3600.0}), NOW, MEANINGS
    )
    assert told.startswith(
        "Refused 3 minutes ago, ann, as a@x.example: The message exceeds the user's quota (200 of 200 "
    )
    assert told.endswith(f" used). Again at {sentences.clock(NOW - 180 + 3600, NOW)}.")


def test_a_decision_without_user_names_the_client() -> None:
    about = sentences.about(record(client="192.0.2.1", recipient="bob@x.example"))
    assert about == "the null sender to bob@x.example from 192.0.2.1"


def test_an_unknown_reason_is_shown_as_it_is() -> None:
    assert sentences.because(record(reason="of_a_plug_in", detail="more"), NOW, MEANINGS) == "of_a_plug_in. [more]"
    assert "it would have been REJECT" in sentences.because(record(shadow="REJECT no"), NOW, MEANINGS)


def limit(**changes: Any) -> dict[str, Any]:
    row = {"name": "", "quota": "basic", "level": "user", "unit": "recipients", "window": 86400.0}
    return {**row, "amount": 100, "used": 50, "left": 50, "room_at": None, **changes}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (limit(), "[##########          ] basic: 50 of 100 recipients in 24 hours, 50 left"),
        (limit(amount=0, used=0, left=0), "[####################] basic: 0 of 0 recipients in 24 hours, 0 left"),
        (
            limit(used=300, left=0, level="domain pool", name="hour"),
            "[####################] hour (domain pool): 300 of ",
        ),
        (limit(amount=None, left=None), " basic: 50 recipients in 24 hours, unlimited"),
    ],
)
def test_a_limit_has_a_bar_of_what_is_used(row: Mapping[str, Any], told: str) -> None:
    assert told in sentences.limit(row, NOW)


def test_times_of_today_have_no_date() -> None:
    assert len(sentences.clock(NOW, NOW)) == 5
    assert sentences.clock(NOW + 86400 * 3, NOW) == output.local(NOW + 86400 * 3)


def test_control_characters_are_shown_as_escapes() -> None:
    evil = "a\x1b[31m\x9b\u202e\n"
    assert output.plain(evil) == r"a\x1b[31m\x9b\x202e\x0a"
    assert json.loads(output.as_json([evil])) == [evil]
    assert json.loads(output.as_json_line({"x": evil})) == {"x": evil}
    assert not {"\x1b", "\x9b", "\u202e"} & set(output.as_json(evil) + output.as_json_line(evil))


def test_csv_has_every_field_and_quotes_what_needs_it() -> None:
    text = output.as_csv([{"a": 1, "b": [{"name": "x"}, {"name": "y"}]}, {"a": 'q"\n', "c": {"d": 1}}, {"b": None}])
    rows = list(csv.DictReader(text.splitlines(keepends=True)))
    assert rows[0] == {"a": "1", "b": "x y", "c": ""}
    assert rows[1] == {"a": 'q"\n', "b": "", "c": '{"d": 1}'}


def test_a_table_is_not_cut_without_a_terminal() -> None:
    table = output.as_table([{"name": "x" * 300, "at": NOW, "n": 5}], ("name", "at", "n"))
    assert "x" * 300 in table
    assert output.local(NOW) in table


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:8080", Target("http", "127.0.0.1", 8080)),
        ("https://mail.example/chapps/", Target("https", "mail.example", 443, "/chapps")),
        ("http://[::1]:9", Target("http", "::1", 9)),
        ("unix:/run/chapps/api", Target("unix", "/run/chapps/api")),
    ],
)
def test_the_target_of_an_url(url: str, target: Target) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://x", "http://", "http://x:0", "http://x:99999", "unix://x", "http://u@x"]
)
def test_an_invalid_url_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="must be an URL such as"):
        parse_url(url)


@pytest.mark.parametrize(
    ("listen", "text"),
    [
        ("tcp:8080:interface=127.0.0.1", "http://127.0.0.1:8080"),
        ("tcp:8080", "http://127.0.0.1:8080"),
        (r"tcp6:8080:interface=\:\:", "http://[::1]:8080"),
        ("ssl:8443:privateKey=k:certKey=c", "https://127.0.0.1:8443"),
        ("unix:/run/api:mode=660", "/run/api"),
    ],
)
def test_the_target_of_a_configured_endpoint(listen: str, text: str) -> None:
    assert str(configured(Settings(api=API(listen=listen)))) == text


@pytest.mark.parametrize("listen", ["", "systemd:domain=INET:index=0", "haproxy:tcp:8080"])
def test_an_endpoint_without_address_is_reported(listen: str) -> None:
    with pytest.raises((CommandError, ConfigError), match=r"\[API\] listen"):
        configured(Settings(api=API(listen=listen)))
