"""How the text of an option becomes an answer to Postfix (access(5)).

Each parser takes the text of one option, stripped, and raises ``ValueError`` with what would be
right, worded to follow "must be". An answer is returned with its verb in upper case, as policies compare it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from chapps_tw.config.values import COMMENT, has_comment, nearest, nearest_first
from chapps_tw.mail.decision import MAX_ACTION_CHARACTERS, stops

_PLAIN = ("DUNNO", "OK", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DISCARD", "HOLD", "INFO", "WARN")
# Postfix logs these and lets the mail through when what they need is not there.
_NEEDY = {
    "PREPEND": ("a header such as X-Quota: used up", re.compile(r"[!-9;-~]+:.*")),
    "REDIRECT": ("an address", re.compile(r"\S+@\S+")),
    "BCC": ("an address", re.compile(r"\S+@\S+")),
    "FILTER": ("transport:destination", re.compile(r"\S+:\S*")),
}
_KEYWORDS = ("prepend", "greylist", "dunno", "okay")

# A name in braces, and every brace that is not part of one.
_BRACES = re.compile(r"\{[^{}]*\}?|\}")

Parser = Callable[[str], str]


def message(*figures: str) -> Parser:
    """An answer in whose text figures may be named in braces."""
    known = [f"{{{name}}}" for name in figures]

    def parse(value: str) -> str:
        if has_comment(value):
            raise ValueError(f"a text with no {' or '.join('#;')} between spaces; {COMMENT}")
        for found in _BRACES.findall(value):
            if not known:
                raise ValueError("a text without braces: no figures are filled in here")
            if found not in known:
                raise ValueError(f"a text with no braces but {' '.join(nearest_first(found, known))}")
        return _action(value)

    return parse


def acceptance(*figures: str) -> Parser:
    """A :func:`message` that lets the mail pass."""
    read = message(*figures)

    def parse(value: str) -> str:
        answer = read(value)
        if stops(answer):
            raise ValueError("an action that lets the mail pass, such as DUNNO; this one stops all of it")
        return answer

    return parse


def spf_action(*figures: str) -> Parser:
    """One of CHAPPS' words for what to do, or a :func:`message`."""
    read = message(*figures)

    def parse(value: str) -> str:
        words = value.split(None, 1)
        if value.lower() in _KEYWORDS:
            return value.lower()
        if not words or words[0].upper() == "OK" or not _is_verb(words[0]):
            known = f"{', '.join(_KEYWORDS)}, or a Postfix reply such as 550 5.7.1 text"
            raise ValueError(known + nearest(value, _KEYWORDS))
        return read(value)

    return parse


def _is_verb(word: str) -> bool:
    return bool(re.fullmatch(r"[45]\d\d", word, re.ASCII)) or word.upper() in _PLAIN or word.upper() in _NEEDY


def _action(value: str) -> str:
    verb, _, rest = value.replace("\t", " ").partition(" ")
    name, text = verb.upper(), rest.strip()
    if not _is_verb(verb):
        known = (*_PLAIN, *_NEEDY)
        raise ValueError("a Postfix action such as DUNNO, REJECT text, or 450 4.7.1 text" + nearest(verb, known))
    if name.isdigit() and not text:
        # Postfix takes a bare number for OK.
        raise ValueError(f"{name} with a text behind it, such as {name} {name[0]}.7.1 text")
    if name in _NEEDY and not _NEEDY[name][1].fullmatch(text):
        raise ValueError(f"{name} with {_NEEDY[name][0]} behind it")
    if len(value) > MAX_ACTION_CHARACTERS:
        raise ValueError(f"{MAX_ACTION_CHARACTERS} characters long at most; the rest would be cut off")
    # DUNNO takes no text, and is compared with as it is.
    return name if name == "DUNNO" or not text else f"{name} {text}"
