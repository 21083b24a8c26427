"""Decisions, their form in the policy protocol, and reasons."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chapps_tw.mail.decision import Decision, Reason, fill, in_words, stops, wire


@pytest.mark.parametrize(
    "action", ["REJECT x", "reject x", "DEFER_IF_PERMIT x", "450 4.7.1 x", "554 x", "DISCARD", "DEFER"]
)
def test_actions_that_stop_the_mail(action: str) -> None:
    assert stops(action) and Decision(action, Reason.NO_USER, "P").stops


@pytest.mark.parametrize("action", ["DUNNO", "OK", "PREPEND X: y", "HOLD x", "250 x", "4 x", "WARN x"])
def test_actions_that_do_not_stop_the_mail(action: str) -> None:
    assert not stops(action)


def test_the_wire_form_is_one_line_and_an_empty_line() -> None:
    assert Decision("REJECT no", Reason.NO_USER, "P").wire == b"action=REJECT no\n\n"


@given(st.text(max_size=2000))
def test_nothing_breaks_the_wire_form(text: str) -> None:
    sent = wire("REJECT " + text)
    assert sent.startswith(b"action=REJECT") and sent.endswith(b"\n\n")
    assert sent.count(b"\n") == 2 and b"\r" not in sent and b"\0" not in sent
    assert len(sent.decode("utf-8")) <= 520


def test_figures_are_filled_in_and_cannot_add_placeholders() -> None:
    text = fill("REJECT {user} used {used} of {limit} {unknown}", {"user": "{limit}", "used": 3, "limit": 12})
    assert text == "REJECT {limit} used 3 of 12 {unknown}"
    assert len(fill("REJECT {user}", {"user": "x" * 5000})) < 300


def test_every_reason_has_a_meaning_of_its_own() -> None:
    assert all(re.fullmatch(r"[A-Z][^\n]+[.]", reason.meaning) for reason in Reason)
    assert len({reason.meaning for reason in Reason}) == len(Reason)


def test_a_reason_is_its_code() -> None:
    assert [f"{Reason.NO_USER}", str(Reason.NO_USER), json.loads(json.dumps(Reason.NO_USER))] == ["no_user"] * 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "90 seconds"),
        (121, "3 minutes"),
        (3600, "60 minutes"),
        (7201, "3 hours"),
        (86400, "24 hours"),
        (172801, "3 days"),
    ],
)
def test_a_wait_in_words_is_rounded_up(seconds: int, words: str) -> None:
    assert in_words(seconds) == words
