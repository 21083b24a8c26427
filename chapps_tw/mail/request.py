"""Postfix policy requests, parsed into an immutable object.

The format is defined in https://www.postfix.org/SMTPD_POLICY_README.html: ``name=value`` lines and
one empty line. Attributes may come in any order; any may be missing, and unknown ones are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

MAX_REQUEST_BYTES = 65536
MAX_ATTRIBUTES = 256

_NO_ATTRIBUTE = "a line that is not name=value"
_NAME = re.compile(r"\w{1,64}", re.ASCII)

Match = Callable[[str], re.Match[str] | None]

# Ordered attribute names of earlier requests, and the regular expression for such a request. A Postfix sends the same
# attributes in the same order each time, and matching takes half the time of splitting lines. Values are not cached:
# those that vary cost more than the others save.
_layouts: dict[tuple[str, ...], Match] = {}
_MAX_LAYOUTS = 8


class RequestError(ValueError):
    """The request is not a Postfix policy request, or is too large."""


def parse_attributes(payload: bytes, encoding: str = "utf-8") -> dict[str, str]:
    """Parse the attributes of one request, without its terminating empty line.

    :param payload: ``name=value`` lines, separated by LF.
    :param encoding: encoding of the values. Bytes that cannot be decoded become surrogate escapes.
    :returns: name to value. If a name is repeated, the last value wins.
    :raises RequestError: if a line has no ``=``, a name is not 1 to 64 letters, digits and underscores, or
        a limit is exceeded.
    """
    if len(payload) > MAX_REQUEST_BYTES:
        raise RequestError(f"a request of more than {MAX_REQUEST_BYTES} bytes")
    text = payload.decode(encoding, "surrogateescape")
    for names, match in _layouts.items():
        if found := match(text):
            return dict(zip(names, found.groups(), strict=True))
    attributes = _read_lines(text.split("\n"))
    if len(_layouts) < _MAX_LAYOUTS and len(attributes) == text.count("\n") + 1:
        _layouts[tuple(attributes)] = _matcher(attributes)
    return attributes


def _read_lines(lines: Sequence[str]) -> dict[str, str]:
    if len(lines) > MAX_ATTRIBUTES:
        raise RequestError(f"a request of more than {MAX_ATTRIBUTES} attributes")
    try:
        attributes = dict([line.split("=", 1) for line in lines])
    except ValueError:
        raise RequestError(_NO_ATTRIBUTE) from None
    if not all(map(_NAME.fullmatch, attributes)):
        raise RequestError(_NO_ATTRIBUTE)
    return attributes


def _matcher(names: Iterable[str]) -> Match:
    """Compile a regular expression for a request with these names in this order, with one group per value."""
    # Possessive: backtracking into earlier lines cannot make a later line match.
    return re.compile("\n".join([f"{name}=(.*+)" for name in names])).fullmatch


Payload = bytes | str | Iterable[str] | Mapping[str, str]

_set = object.__setattr__


class PolicyRequest:
    """One policy request. The attributes of Postfix are Python attributes; ``None`` if missing or empty.

    Immutable. Private attributes of subclasses must start with ``_``.

    :param payload: the request as Postfix sends it (bytes or str), its ``name=value`` lines, or a
        mapping of names to values.
    :raises RequestError: if it is not a policy request.
    """

    __slots__ = ("_attributes",)

    _attributes: Mapping[str, str]

    def __init__(self, payload: Payload) -> None:
        _set(self, "_attributes", payload if type(payload) is dict else _attributes_of(payload))

    def __getattr__(self, name: str) -> str | None:
        if name[0] == "_":
            raise AttributeError(name)
        return self._attributes.get(name) or None

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] == "_":
            _set(self, name, value)
            return
        raise AttributeError(f"a policy request cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a policy request cannot be changed: {name}")

    def get(self, name: str, default: str = "") -> str:
        """Return the value of an attribute, or ``default`` if it is missing or empty."""
        return self._attributes.get(name) or default

    @property
    def attributes(self) -> Mapping[str, str]:
        """All attributes as received. Do not modify."""
        return self._attributes

    @property
    def recipients(self) -> int:
        """``recipient_count``, 0 if it is not available."""
        count = self._attributes.get("recipient_count", "")
        return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PolicyRequest) and self._attributes == other._attributes

    def __hash__(self) -> int:
        return hash(frozenset(self._attributes.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self._attributes)!r})"


def _attributes_of(payload: Payload) -> Mapping[str, str]:
    if isinstance(payload, Mapping):
        return dict(payload)
    if isinstance(payload, (bytes, bytearray)):
        return parse_attributes(bytes(payload).rstrip(b"\n"))
    text = payload if isinstance(payload, str) else "\n".join(payload)
    return parse_attributes(text.rstrip("\n").encode("utf-8", "surrogateescape"))
