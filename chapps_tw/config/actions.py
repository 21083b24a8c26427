"""Parsers for options whose value is a Postfix action (access(5)).

A parser takes the stripped text of an option and raises ``ValueError`` with the expected form, worded to follow
"must be". It returns the action with its verb in upper case, for comparisons.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from chapps_tw.config.values import COMMENT, has_comment, nearest, nearest_first
from chapps_tw.mail.decision import MAX_ACTION_CHARACTERS, stops

_PLAIN = ("DUNNO", "OK", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD", "HOLD", "INFO", "WARN")
# Without a valid argument, Postfix logs a warning for these and lets the mail through.
_WITH_ARGUMENT = {
    "PREPEND": ("a header, such as X-Quota: used up", re.compile(r"[!-9;-~]+:.*")),
    "REDIRECT": ("an address", re.compile(r"\S+@\S+")),
    "BCC": ("an address", re.compile(r"\S+@\S+")),
    "FILTER": ("transport:destination", re.compile(r"\S+:\S*")),
}
_KEYWORDS = ("prepend", "greylist", "dunno", "okay")

# Leaves room for the verb.
_MAX_TEXT = MAX_ACTION_CHARACTERS - max(map(len, _PLAIN)) - 1

# A name in braces, or a stray brace.
_BRACES = re.compile(r"\{[^{}]*\}?|\}")

Parser = Callable[[str], str]


def message(*figures: str) -> Parser:
    """Return a parser for an action whose text may contain ``{name}`` for these figures."""
    read = _text(figures)
    return lambda value: _action(read(value))


def sentence(*figures: str) -> Parser:
    """Return a parser as :func:`message`, for the text of an action without its verb."""
    read = _text(figures)

    def parse(value: str) -> str:
        if not value or len(value) > _MAX_TEXT:
            raise ValueError(f"a text of 1 to {_MAX_TEXT} characters")
        return read(value)

    return parse


def _text(figures: tuple[str, ...]) -> Parser:
    known = [f"{{{name}}}" for name in figures]

    def parse(value: str) -> str:
        if has_comment(value):
            raise ValueError(f"a text with no {' or '.join('#;')} between spaces; {COMMENT}")
        for found in _BRACES.findall(value):
            if not known:
                raise ValueError("a text without braces: this option has no placeholders")
            if found not in known:
                raise ValueError(f"a text without braces other than {' '.join(nearest_first(found, known))}")
        return value

    return parse


def acceptance(*figures: str) -> Parser:
    """Return a parser as :func:`message`, for actions that let the mail pass."""
    read = message(*figures)

    def parse(value: str) -> str:
        answer = read(value)
        if stops(answer):
            raise ValueError("an action that lets mail pass, such as DUNNO; this one stops all mail")
        return answer

    return parse


def spf_action(*figures: str) -> Parser:
    """Return a parser for ``prepend``, ``greylist``, ``dunno``, ``okay``, or a :func:`message`."""
    read = message(*figures)

    def parse(value: str) -> str:
        words = value.split(None, 1)
        if value.lower() in _KEYWORDS:
            return value.lower()
        if not words or words[0].upper() == "OK" or not _is_verb(words[0]):
            known = f"{', '.join(_KEYWORDS)}, or a Postfix action such as 550 5.7.1 text"
            raise ValueError(known + nearest(value, _KEYWORDS))
        return read(value)

    return parse


def _is_verb(word: str) -> bool:
    return bool(re.fullmatch(r"[45]\d\d", word, re.ASCII)) or word.upper() in _PLAIN or word.upper() in _WITH_ARGUMENT


def _action(value: str) -> str:
    verb, _, rest = value.replace("\t", " ").partition(" ")
    name, text = verb.upper(), rest.strip()
    if not _is_verb(verb):
        known = (*_PLAIN, *_WITH_ARGUMENT)
        raise ValueError("a Postfix action such as DUNNO, REJECT text, or 450 4.7.1 text" + nearest(verb, known))
    if name.isdigit() and not text:
        # Postfix treats a bare number as OK.
        raise ValueError(f"{name} followed by a text, such as {name} {name[0]}.7.1 text")
    if name in _WITH_ARGUMENT and not _WITH_ARGUMENT[name][1].fullmatch(text):
        raise ValueError(f"{name} followed by {_WITH_ARGUMENT[name][0]}")
    if len(value) > MAX_ACTION_CHARACTERS:
        raise ValueError(f"at most {MAX_ACTION_CHARACTERS} characters long; the rest would be truncated")
    # DUNNO takes no text, and policies compare it as it is.
    return name if name == "DUNNO" or not text else f"{name} {text}"
