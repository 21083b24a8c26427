"""Macros of SPF records (RFC 7208, section 7, and RFC 8616)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

# RFC 7208, section 7.1: macro-expand.
_MACRO = re.compile(r"%(?:\{([slodiphcrtv])([0-9]*)(r?)([-.+,/_=]*)\}|([%_-]))", re.IGNORECASE)
_LITERALS = {"%": "%", "_": " ", "-": "%20"}
_EXPLAINING = "crt"

# Characters of a macro's value. A mail address has at most 320 (RFC 5321, section 4.5.3.1).
_MAX_VALUE = 512


class MacroSyntaxError(ValueError):
    """What is no macro, or none that may stand there."""


class MatchesNothing(Exception):
    """A macro's value cannot be a part of a domain name."""


def check_macros(text: str, explaining: bool = False) -> None:
    """Check the syntax of the macros in a text.

    :param explaining: it is an explanation, in which more macros are allowed (section 7.2).
    :raises MacroSyntaxError: for what is no macro, and for one that is not allowed.
    """
    for macro in _MACRO.finditer(text):
        letter, digits, *_ = macro.groups()
        if digits and not int(digits):
            raise MacroSyntaxError(f"{macro[0]} takes no part of the value")
        if letter and letter.lower() in _EXPLAINING and not explaining:
            raise MacroSyntaxError(f"{macro[0]} is allowed in an explanation alone")
    if "%" in _MACRO.sub("", text):
        raise MacroSyntaxError(f"unknown macro in {text}")


def expand(text: str, values: Mapping[str, str], in_name: bool = True) -> str:
    """Replace macros, for which :func:`check_macros` holds, by what they stand for (section 7.3).

    :param values: by the letter.
    :param in_name: what comes of it is to be a domain name.
    :raises MatchesNothing: for a value in a domain name that is not ASCII (RFC 8616, section 4), or has no end.
    """
    expanded: dict[str, str] = {}

    def replace(macro: re.Match[str]) -> str:
        if macro[0] not in expanded:
            expanded[macro[0]] = _LITERALS[macro[5]] if macro[5] else _expanded(macro, values, in_name)
        return expanded[macro[0]]

    return _MACRO.sub(replace, text)


def _expanded(macro: re.Match[str], values: Mapping[str, str], in_name: bool) -> str:
    letter, digits, reverse, delimiters, _ = macro.groups()
    value = values[letter.lower()]
    if in_name and (not value.isascii() or len(value) > _MAX_VALUE):
        raise MatchesNothing(letter)
    value = _transformed(value[:_MAX_VALUE], digits, reverse, delimiters)
    return quote(value, safe="~", errors="surrogateescape") if letter.isupper() else value


def _transformed(value: str, digits: str, reverse: str, delimiters: str) -> str:
    """The parts of a value that are wanted, joined by dots."""
    if not (digits or reverse or delimiters):
        return value
    parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
    if reverse:
        parts.reverse()
    return ".".join(parts[-int(digits) :] if digits else parts)
