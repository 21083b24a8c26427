"""Caches are bounded in bytes, for any length of input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chapps_tw.mail import addresses as names
from chapps_tw.mail import decision, received_spf, request
from chapps_tw.mail.memo import Memo, Memoized
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.policies import inbound
from tests.support.memory import taken

MEGABYTE = 1 << 20
LONG = "x" * 60_000


def test_a_result_is_computed_once() -> None:
    asked: list[str] = []

    def upper(text: str) -> str:
        asked.append(text)
        return text.upper()

    memoized = Memoized(upper, MEGABYTE)
    assert [memoized[text] for text in ("a", "b", "a")] == ["A", "B", "A"]
    assert asked == ["a", "b"]


def test_exceptions_are_not_cached() -> None:
    def refuse(text: str) -> str:
        raise ValueError(text)

    memoized = Memoized(refuse, MEGABYTE)
    for _ in range(2):
        with pytest.raises(ValueError, match="a"):
            memoized["a"]


def test_a_long_result_is_not_cached_and_evicts_nothing() -> None:
    memoized = Memoized(str.upper, MEGABYTE)
    assert memoized["short"] == "SHORT"
    assert memoized[LONG] == LONG.upper()
    assert list(memoized) == ["short"]


def test_a_long_value_only_removes_the_previous_one() -> None:
    memo: Memo[str, str] = Memo(MEGABYTE)
    memo.keep("a", "1")
    memo.keep("a", LONG)
    assert "a" not in memo


@pytest.mark.parametrize("character", ["x", "é", "€", "\U0001f600", "\udcff"])
@pytest.mark.parametrize("length", [0, 20, 300, 5000])
def test_the_size_is_bounded_for_any_texts(character: str, length: int) -> None:
    max_bytes = MEGABYTE // 4
    memoized = Memoized(lambda text: (text + "!", text[:1]), max_bytes)
    memo: Memo[tuple[str, int], list[str]] = Memo(max_bytes)

    def fill() -> None:
        for number in range(800):
            text = f"{number}{character * length}"
            _ = memoized[text]
            memo.keep((text, 1), [text + "!"])

    assert taken(fill) < 2.2 * max_bytes


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
        inbound.cached_client_network(24, 64),
        lambda text: request.parse_attributes(f"sender={text}".encode("utf-8", "surrogatepass")),
        _header,
    ],
)
def test_long_input_is_not_cached(function: Callable[[str], object]) -> None:
    def fill() -> None:
        for number in range(100):
            function(f"{number}{LONG}")

    assert taken(fill) < MEGABYTE
