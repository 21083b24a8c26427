"""The value of a parameter for one service: ``-o``, main.cf or the default, with ``$name`` expanded (postconf(5))."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from chapps_tw.postfix_check.source import Service, Source
from chapps_tw.postfix_check.words import in_braces

# Of the parameters that decide what is asked: https://www.postfix.org/postconf.5.html.
DEFAULTS: Final[Mapping[str, str]] = {
    "compatibility_level": "0",
    "queue_directory": "/var/spool/postfix",
    "smtpd_delay_reject": "yes",
    "smtpd_policy_service_default_action": "451 4.3.5 Server configuration problem",
    "smtpd_policy_service_timeout": "100s",
    "smtpd_relay_before_recipient_restrictions": "${{$compatibility_level} <level {3.6} ? {no} : {yes}}",
    "smtpd_relay_restrictions": (
        "${{$compatibility_level} <level {1} ? {} : "
        "{permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination}}"
    ),
    "smtpd_sasl_auth_enable": "no",
}

_NAME: Final = re.compile(r"\$(?:([A-Za-z0-9_]+)|([{(])|(\$))")
_CONDITION: Final = re.compile(r"\s*\{(.*?)\}\s*(<=|>=|==|!=|<|>)(level)?\s*\{(.*?)\}\s*$", re.DOTALL)
_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">=": operator.ge,
    ">": operator.gt,
}
# Postfix itself gives up on circular definitions.
_MAX_DEPTH: Final = 20


class Parameters:
    """The parameters of a service, or of main.cf alone.

    :param service: ``None`` for what main.cf says to services that override nothing.
    """

    def __init__(self, source: Source, service: Service | None = None) -> None:
        self._main = source.main
        self._overrides = service.overrides if service else {}

    def __getitem__(self, name: str) -> str:
        """Return a value with everything expanded; empty if nothing sets it."""
        return self._expand(self.raw(name), 0)

    def raw(self, name: str) -> str:
        """Return a value as it is written."""
        for values in (self._overrides, self._main, DEFAULTS):
            if name in values:
                return values[name]
        return ""

    def file(self, name: str) -> str:
        """Return the file that sets a parameter, or should."""
        return "master.cf" if name in self._overrides else "main.cf"

    def is_set(self, name: str) -> bool:
        """Return whether one of the files sets a parameter."""
        return name in self._overrides or name in self._main

    def is_on(self, name: str) -> bool:
        """Return whether a parameter is ``yes``."""
        return self[name].lower() == "yes"

    def _expand(self, text: str, depth: int) -> str:
        if depth > _MAX_DEPTH:
            return ""
        found, at = "", 0
        while match := _NAME.search(text, at):
            found += text[at : match.start()]
            at = match.end()
            if match[1]:
                found += self._expand(self.raw(match[1]), depth + 1)
            elif match[3]:
                found += "$"
            else:
                end = _closing(text, match.start(2))
                found += self._macro(text[match.end() : end], depth + 1)
                at = end + 1
        return found + text[at:]

    def _macro(self, text: str, depth: int) -> str:
        """Expand what is between the braces of ``${...}``."""
        subject, mark, then, otherwise = _parts(text)
        condition = _CONDITION.match(subject)
        if condition:
            one, other = (self._expand(condition[place].strip(), depth) for place in (1, 4))
            holds = _holds(one, condition[2], bool(condition[3]), other)
            value = ""
        else:
            value = self._expand(self.raw(subject.strip()), depth)
            holds = bool(value)
        if not mark:
            return value
        chosen = (then if holds else otherwise) if mark == "?" else ("" if holds else then)
        return self._expand(chosen, depth)


def _closing(text: str, begin: int) -> int:
    """Return the place of the bracket that closes the one at a place; the end if there is none."""
    depth = 0
    for place in range(begin, len(text)):
        depth += (text[place] in "{(") - (text[place] in "})")
        if not depth:
            return place
    return len(text)


def _parts(text: str) -> tuple[str, str, str, str]:
    """Split ``subject?{then}:{otherwise}``, or ``subject:{then}``, at the marks outside of braces."""
    marks, depth = [], 0
    for place, letter in enumerate(text):
        depth += (letter in "{(") - (letter in "})")
        if not depth and letter in "?:":
            marks.append(place)
    if not marks:
        return text, "", "", ""
    first, second = marks[0], next((each for each in marks[1:] if text[each] == ":"), len(text))
    then, otherwise = text[first + 1 : second].strip(), text[second + 1 :].strip()
    return text[:first], text[first], in_braces(then), in_braces(otherwise)


def _holds(one: str, sign: str, is_level: bool, other: str) -> bool:
    if is_level or (one.isdigit() and other.isdigit()):
        return _COMPARE[sign](_level(one), _level(other))
    return _COMPARE[sign](one, other)


def _level(text: str) -> tuple[int, ...]:
    """Return a compatibility level such as 3.6 for comparisons."""
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
