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
    """Invalid macro syntax, or a macro that is not allowed here."""


class MacroValueError(Exception):
    """The value of a macro cannot be part of a domain name: the mechanism does not match."""


def check_macros(text: str, explaining: bool = False) -> None:
    """Check the syntax of the macros in a text.

    :param explaining: whether the text is an explanation, which allows more macros (section 7.2).
    :raises MacroSyntaxError: for an invalid macro, or one that is not allowed here.
    """
    for macro in _MACRO.finditer(text):
        letter, digits, *_ = macro.groups()
        if digits and not int(digits):
            raise MacroSyntaxError(f"{macro[0]} selects zero labels")
        if letter and letter.lower() in _EXPLAINING and not explaining:
            raise MacroSyntaxError(f"{macro[0]} is allowed in an explanation only")
    if "%" in _MACRO.sub("", text):
        raise MacroSyntaxError(f"unknown macro in {text}")


def expand(text: str, values: Mapping[str, str], in_name: bool = True) -> str:
    """Expand macros that have passed :func:`check_macros` (section 7.3).

    :param values: by macro letter.
    :param in_name: whether the text is a domain-spec.
    :raises MacroValueError: for a value in a domain-spec that is not ASCII (RFC 8616, section 4), or is too long.
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
        raise MacroValueError(letter)
    value = _transformed(value[:_MAX_VALUE], digits, reverse, delimiters)
    return quote(value, safe="~", errors="surrogateescape") if letter.isupper() else value


def _transformed(value: str, digits: str, reverse: str, delimiters: str) -> str:
    """Apply the transformers of a macro: select and reverse parts, joined by dots."""
    if not (digits or reverse or delimiters):
        return value
    parts = re.split(f"[{re.escape(delimiters or '.')}]", value)
    if reverse:
        parts.reverse()
    return ".".join(parts[-int(digits) :] if digits else parts)
