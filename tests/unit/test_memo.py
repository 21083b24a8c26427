"""What is remembered: bounded in bytes, however long the texts are that come from outside."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chapps_tw.mail import addresses as names
from chapps_tw.mail import decision, received_spf, request
from chapps_tw.mail.memo import Answers, Memo
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.policies import inbound
from tests.support.memory import taken

MEGABYTE = 1 << 20
LONG = "x" * 60_000


def test_a_function_is_asked_once() -> None:
    asked: list[str] = []

    def upper(text: str) -> str:
        asked.append(text)
        return text.upper()

    answers = Answers(upper, MEGABYTE)
    assert [answers[text] for text in ("a", "b", "a")] == ["A", "B", "A"]
    assert asked == ["a", "b"]


def test_what_it_raises_is_raised_each_time() -> None:
    def refuse(text: str) -> str:
        raise ValueError(text)

    answers = Answers(refuse, MEGABYTE)
    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            answers["a"]


def test_a_long_text_is_answered_and_does_not_push_out_the_others() -> None:
    answers = Answers(str.upper, MEGABYTE)
    assert answers["short"] == "SHORT"
    assert answers[LONG] == LONG.upper()
    assert list(answers) == ["short"]


def test_a_long_value_takes_the_place_of_none() -> None:
    memo: Memo[str, str] = Memo(MEGABYTE)
    memo.keep("a", "1")
    memo.keep("a", LONG)
    assert "a" not in memo


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\udcff"])
@pytest.mark.parametrize("length", [0, 20, 300, 5000])
def test_no_more_than_the_room_is_taken_whatever_the_texts_are(character: str, length: int) -> None:
    room = MEGABYTE // 4
    answers = Answers(lambda text: (text + "!", text[:1]), room)
    memo: Memo[tuple[str, int], list[str]] = Memo(room)

    def fill() -> None:
        for number in range(800):
            text = f"{number}{character * length}"
            _ = answers[text]
            memo.keep((text, 1), [text + "!"])

    assert taken(fill) < 2.2 * room


def _header(text: str) -> object:
    return received_spf.received_spf(SpfResult("none", domain="example.com"), text, text, text, "mx")


@pytest.mark.parametrize(
    "function",
    [
        names.normal_domain,
        lambda text: names.normal_domain(f"{text}.example"),
        lambda text: names.split_address(f"{text}@example.com"),
        decision.stops,
        decision.wire,
        inbound.network_reader(24, 64),
        lambda text: request.parse_attributes(f"sender={text}".encode("utf-8", "surrogatepass")),
        _header,
    ],
)
def test_what_strangers_send_is_not_remembered_where_it_is_long(function: Callable[[str], object]) -> None:
    def fill() -> None:
        for number in range(100):
            function(f"{number}{LONG}")

    assert taken(fill) < MEGABYTE
