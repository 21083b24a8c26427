"""Parsers for values of options.

A parser takes the stripped text of an option and raises ``ValueError`` with the expected form, worded to follow
"must be".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from configparser import RawConfigParser
from dataclasses import dataclass
from difflib import SequenceMatcher

from chapps_tw.mail.addresses import normal_domain
from chapps_tw.mail.durations import Duration, parse_duration


class Secret(str):
    """A string that is masked in log lines, f-strings and tracebacks. ``str()`` returns the value."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_hidden(self))

    def __format__(self, spec: str) -> str:
        return format(_hidden(self), spec)


def _hidden(secret: str) -> str:
    return "********" if secret else ""


COMMENT = "a comment needs its own line"


def has_comment(value: str) -> bool:
    """Whether a value seems to be followed by a comment: ``5 ; five``."""
    return bool(re.search(r"\s[#;](\s|$)", value))


@dataclass(frozen=True, slots=True)
class Margin:
    """How far a message may exceed the limit if the user was below it. One of ``count`` and ``ratio`` is 0.

    :ivar count: transmissions.
    :ivar ratio: share of the limit, 0 to 1.
    """

    text: str = "0"
    count: int = 0
    ratio: float = 0.0

    def __str__(self) -> str:
        return self.text


def parse_margin(text: str) -> Margin:
    """Parse a whole number, a ratio below 1, or a percentage up to 100 (``15.0`` or ``15%``).

    :raises ValueError: with the expected form.
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


def nearest_first(wrong: str, known: Iterable[str]) -> list[str]:
    """Sort names by similarity, ignoring case, the most similar first."""
    return sorted(known, key=lambda name: -SequenceMatcher(None, wrong.lower(), name.lower()).ratio())


def nearest(wrong: str, known: Iterable[str], similarity: float = 0.5) -> str:
    """Return ``; did you mean ...?``, or ``""`` if no name is similar enough.

    :param similarity: threshold, from 0 to 1.
    """
    near = nearest_first(wrong, known)[:1]
    alike = near and SequenceMatcher(None, wrong.lower(), near[0].lower()).ratio() >= similarity
    return f"; did you mean {near[0]}?" if alike else ""


def plain(number: float) -> str:
    """Format a number for a file."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def text(value: str) -> str:
    """Any text without a trailing comment, which would become part of a name or a path."""
    if re.search(r"\s[#;]", value):
        raise ValueError(f"a plain value; {COMMENT}")
    return value


def required(value: str) -> str:
    if not value:
        raise ValueError("a value; it cannot be empty")
    return text(value)


def host(value: str) -> str:
    """A name, an address or a path, without a port or a scheme."""
    if re.fullmatch(r"[^:]*:\d+", value) or re.fullmatch(r"\[.*\]:\d+", value):
        raise ValueError("a name or an address without a port, which has its own option")
    if "://" in value or re.search(r"\s", value):
        raise ValueError("a plain name or address")
    return value


def attribute(value: str) -> str:
    """The name of a request attribute, or empty."""
    if not re.fullmatch(r"[A-Za-z0-9_]*", value):
        raise ValueError("the name of one attribute of Postfix' policy requests, such as sasl_username")
    return value


def separators(value: str) -> str:
    """Characters that separate an address from its extension, like Postfix' ``recipient_delimiter``, or empty."""
    if not re.fullmatch(r"[!#$%&'*+\-./=?^_`{|}~]*", value):
        raise ValueError("punctuation that is valid in a local part, such as + or +-, without spaces")
    return value


def host_names(value: str) -> tuple[str, ...]:
    """Names for the Host header, without ports."""
    names = addresses(value)
    if not names or has_comment(value) or any("/" in name or re.search(r"(^[^:]*|\]):\d*$", name) for name in names):
        raise ValueError("one or more names or addresses, each without a port, IPv6 in brackets")
    return tuple(f"[{name}]" if name.count(":") > 1 and name[0] != "[" else name for name in names)


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
            raise ValueError(f"a number of seconds, without a unit, from {plain(least)} to {plain(most)}")
        return float(value)

    return parse


# A shorter time would remove decisions before anyone looks for them.
_LEAST_KEPT, _MOST_KEPT = 3600, 3660 * 86400


def kept_time(value: str) -> Duration:
    """A duration from an hour to ten years."""
    duration = parse_duration(value)
    if duration is None or not _LEAST_KEPT <= duration.seconds <= _MOST_KEPT:
        raise ValueError("a duration with a unit (h, d or w) from 1h to 3660d, such as 30d")
    return duration


MAX_NODE = 64


def node_name(value: str) -> str:
    """The name of a node, or empty."""
    if not re.fullmatch(rf"[A-Za-z0-9._-]{{0,{MAX_NODE}}}", value):
        raise ValueError(f"at most {MAX_NODE} letters, digits, dots, hyphens and underscores, such as mx1.example.com")
    return value


def choice(*names: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.lower() not in names:
            raise ValueError("one of " + ", ".join(names) + nearest(value, names))
        return value.lower()

    return parse


def parse_recipients(value: str) -> frozenset[str]:
    """Recipients in lower case: ``local@`` for every domain, or full addresses with domains as A-labels."""
    return frozenset(map(_recipient, addresses(value.lower())))


def _recipient(text: str) -> str:
    local, at, domain = text.partition("@")
    name = normal_domain(domain)
    if not local or not at or bool(domain) != bool(name):
        raise ValueError(f"recipients such as postmaster@ (every domain) or noc@example.com, not {text!r}")
    return f"{local}@{name}"


def encoding(value: str) -> str:
    """The name of a codec for requests. It must be ASCII-compatible and must not swallow line ends."""
    try:
        fits = "".encode(value) == b"" and _keeps_lines(value)
    except (LookupError, UnicodeError):
        fits = False
    if not fits:
        raise ValueError("the name of an ASCII-compatible text encoding, such as utf-8")
    return value


# Includes sequences that some codecs treat as escapes.
_LINES = bytes(range(128)) + b"a=b\na=\\u\\x\\N{ +AGE- ~{ \x1b(~ \x1b$+ \x1b.\n"


def _keeps_lines(codec: str) -> bool:
    ends = (bytes((byte,)) + b"=b\n" for byte in range(128, 256))
    return (
        _LINES.decode(codec, "surrogateescape") == _LINES.decode("ascii")
        and _LINES.decode("ascii").encode(codec) == _LINES
        and all(each.decode(codec, "surrogateescape").endswith("=b\n") for each in ends)
    )


def names(value: str) -> tuple[str, ...]:
    """A list of names, each once."""
    found = addresses(text(value))
    if len(set(found)) < len(found):
        raise ValueError("a list without duplicates")
    return found


def addresses(value: str) -> tuple[str, ...]:
    return tuple(value.replace(",", " ").split())
