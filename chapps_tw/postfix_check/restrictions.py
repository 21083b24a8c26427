"""Restriction lists: what they check, in order (SMTPD_ACCESS_README)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from chapps_tw.postfix_check.parameters import Parameters
from chapps_tw.postfix_check.words import WordError, in_braces, words

CHECK: Final = "check_policy_service"

_WITH_ARGUMENT: Final = re.compile(r"check_\w+_access|check_policy_service|\w*(rbl|rhsbl|dnswl|rhswl)\w*|sleep")
_WARNING: Final = "warn_if_reject"
_MAX_DEPTH: Final = 10
# Of a list, with its classes: more is not read.
_MAX_LENGTH: Final = 1000

_ATTRIBUTES: Final = (
    *("timeout", "default_action", "policy_context", "max_idle", "max_ttl", "request_limit", "retry_delay"),
    "try_limit",
)
_UNITS: Final = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


class Restriction(NamedTuple):
    """One restriction of a list.

    :ivar via: the restriction classes that it is in, the outermost first.
    :ivar is_warning: whether ``warn_if_reject`` is ahead of it.
    """

    name: str
    argument: str = ""
    via: tuple[str, ...] = ()
    is_warning: bool = False

    @property
    def is_opaque(self) -> bool:
        """Whether it looks up a table, whose contents are not known, and which may name restriction classes."""
        return self.name.endswith("_access") or (":" in self.name and self.name != CHECK)


class Call(NamedTuple):
    """A policy service that is asked.

    :ivar endpoint: such as ``inet:127.0.0.1:10225`` or ``unix:/path``.
    :ivar timeout: seconds; 0.0 if it is not set here. Likewise ``default_action``.
    :ivar problem: why Postfix cannot use it; empty if it can.
    """

    endpoint: str
    timeout: float = 0.0
    default_action: str = ""
    problem: str = ""


def read_list(text: str, parameters: Parameters) -> list[Restriction]:
    """Return the restrictions of a list, and of the classes that it names, in order.

    :raises WordError: for a brace that is not closed.
    """
    found: list[Restriction] = []
    for each in _flat(text, parameters, ()):
        found.append(each)
        if len(found) >= _MAX_LENGTH:
            break
    return found


def classes_of(parameters: Parameters) -> list[str]:
    """Return the names of the restriction classes."""
    return words(parameters["smtpd_restriction_classes"])


def _flat(text: str, parameters: Parameters, via: tuple[str, ...]) -> Iterator[Restriction]:
    left, is_warning = iter(words(text)), False
    classes = classes_of(parameters)
    for name in left:
        if name.lower() == _WARNING:
            is_warning = True
            continue
        inner = parameters[name] if name in classes else None
        if inner is None and ":" not in name:
            name = name.lower()
        argument = next(left, "") if inner is None and _WITH_ARGUMENT.fullmatch(name) else ""
        if inner is None and (match := re.fullmatch(r"static:\s*\{?(.*?)\}?", argument or name)):
            # All keys have this value, which is a list of restrictions.
            inner, name = match[1], argument or name
        if inner is not None and len(via) < _MAX_DEPTH:
            yield from _flat(inner, parameters, (*via, name))
        else:
            yield Restriction(name, argument, via, is_warning)
        is_warning = False


def misspelled(name: str) -> bool:
    """Return whether a name is probably meant to be ``check_policy_service``."""
    return name != CHECK and bool(get_close_matches(name, [CHECK], 1, 0.85))


def read_call(argument: str) -> Call:
    """Return what the argument of ``check_policy_service`` says."""
    try:
        parts = words(in_braces(argument)) if argument.startswith("{") else [argument]
    except WordError as error:
        return Call(argument, problem=str(error))
    endpoint = parts[0] if parts else ""
    if not re.fullmatch(r"inet:\S+|unix:\S+", endpoint):
        what = f"{endpoint!r} is" if endpoint else "it has"
        return Call(endpoint, problem=f"{what} no address such as inet:127.0.0.1:10225 or unix:/path")
    return _with_attributes(endpoint, parts[1:])


def _with_attributes(endpoint: str, parts: Sequence[str]) -> Call:
    values = {}
    for part in parts:
        name, equals, value = (each.strip() for each in in_braces(part).partition("="))
        if not equals or name not in _ATTRIBUTES:
            near = get_close_matches(name, _ATTRIBUTES, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return Call(endpoint, problem=f"{in_braces(part)!r} is no attribute of a policy service{hint}")
        values[name] = value
    timeout = seconds(values.get("timeout", "0"))
    if timeout is None:
        return Call(endpoint, problem=f"timeout={values['timeout']} is no time such as 5s")
    return Call(endpoint, timeout, values.get("default_action", ""))


def seconds(text: str) -> float | None:
    """Return a time of Postfix, such as ``100s``, in seconds; ``None`` if it is none."""
    match = re.fullmatch(r"(\d{1,9})\s*([smhdw]?)", text.strip(), re.IGNORECASE)
    return float(match[1]) * _UNITS[match[2].lower()] if match else None
