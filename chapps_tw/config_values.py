"""How the text of an option becomes a value.

Each parser takes the text of one option, stripped, and raises ``ValueError`` with what would be
right, worded to follow "must be".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from configparser import RawConfigParser
from dataclasses import dataclass


class Secret(str):
    """A value that no log line or traceback shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'" if self else "''"


@dataclass(frozen=True, slots=True)
class Margin:
    """How far a message that begins below the limit may run over it.

    :ivar count: transmissions.
    :ivar ratio: share of the limit, 0 to 1. One of the two is 0.
    """

    text: str = "0"
    count: int = 0
    ratio: float = 0.0

    def __str__(self) -> str:
        return self.text


def parse_margin(text: str) -> Margin:
    """Read a whole number, a ratio below 1, or a percentage up to 100 (``15.0`` or ``15%``).

    :raises ValueError: with what would be right.
    """
    remedy = "a whole number, a ratio below 1 (0.10) or a percentage up to 100 (10%)"
    if re.fullmatch(r"\d{1,9}", text):
        return Margin(text, count=int(text))
    match = re.fullmatch(r"(\d{0,9}(?:\.\d{1,9})?|\d{1,9}\.)(\s*%)?", text)
    if not match or not match[1]:
        raise ValueError(remedy)
    number = float(match[1])
    ratio = number if number < 1 and not match[2] else number / 100
    if ratio > 1:
        raise ValueError(remedy)
    return Margin(text, ratio=ratio)


def text(value: str) -> str:
    return value


def required(value: str) -> str:
    if not value:
        raise ValueError("a value; it cannot be empty")
    return value


def boolean(value: str) -> bool:
    states = RawConfigParser.BOOLEAN_STATES
    if value.lower() not in states:
        raise ValueError("True or False")
    return states[value.lower()]


def whole(least: int, most: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"\d{1,12}", value) or not least <= int(value) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(value)

    return parse


def seconds(least: float, most: float) -> Callable[[str], float]:
    def parse(value: str) -> float:
        if not re.fullmatch(r"\d{1,9}(\.\d{1,6})?", value) or not least <= float(value) <= most:
            raise ValueError(f"a number of seconds from {least:g} to {most:g}")
        return float(value)

    return parse


def choice(*names: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in names:
            raise ValueError("one of " + ", ".join(names))
        return value.lower()

    return parse


def encoding(value: str) -> str:
    try:
        "".encode(value)
    except LookupError as error:
        raise ValueError("the name of a text encoding, such as utf-8") from error
    return value


# The verbs of access(5) that a policy may answer with.
_VERBS = {"DUNNO", "OK", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD", "HOLD"} | {
    "PREPEND",
    "REDIRECT",
    "BCC",
    "FILTER",
    "INFO",
    "WARN",
}


def action(value: str) -> str:
    """An answer of access(5). A bare number without text would mean OK to Postfix."""
    verb, _, rest = value.partition(" ")
    if re.fullmatch(r"[45]\d\d", verb) and rest.strip():
        return value
    if verb.upper() in _VERBS:
        return value
    raise ValueError("a Postfix action such as DUNNO, REJECT text, or 450 4.7.1 text")


FIGURES = ("limit", "used", "remaining", "retry_after", "user", "sender", "recipient")


def message(value: str) -> str:
    """An answer whose text may name figures in braces."""
    for name in re.findall(r"\{(\w*)\}", value):
        if name not in FIGURES:
            raise ValueError("text with no other braces than {" + "} {".join(FIGURES) + "}")
    return action(value)


def spf_action(value: str) -> str:
    if value.lower() in ("prepend", "greylist", "dunno", "okay"):
        return value.lower()
    if value.lower() == "ok":
        raise ValueError("prepend, greylist, dunno, okay, or a Postfix reply such as 550 5.7.1 text")
    return action(value)


def addresses(value: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())
