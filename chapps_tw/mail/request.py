"""Postfix policy requests: bytes in, a frozen request out.

The format is that of https://www.postfix.org/SMTPD_POLICY_README.html: ``name=value`` lines and
one empty line. Attributes may come in any order, be missing or be unknown.
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

# The names that requests came with, in their order, and what matches requests with the same: one Postfix sends all of
# its requests alike, and to match one takes half the time of reading its lines. Values are not remembered: those that
# vary cost more than the others save.
_layouts: dict[tuple[str, ...], Match] = {}
_MOST_LAYOUTS = 8


class RequestError(ValueError):
    """A request that is no Postfix policy request, or is larger than one can be."""


def parse_attributes(payload: bytes, encoding: str = "utf-8") -> dict[str, str]:
    """Read the attributes of one request, given without its closing empty line.

    :param payload: ``name=value`` lines, each ending in LF but for the last.
    :param encoding: of the values. Bytes that do not decode are kept as surrogate escapes.
    :returns: name to value; of a name that comes twice, the last value.
    :raises RequestError: when a line has no ``=`` or a name of other than 1 to 64 letters, digits and
        underscores, or a bound is exceeded.
    """
    if len(payload) > MAX_REQUEST_BYTES:
        raise RequestError(f"a request of more than {MAX_REQUEST_BYTES} bytes")
    text = payload.decode(encoding, "surrogateescape")
    for names, match in _layouts.items():
        if found := match(text):
            return dict(zip(names, found.groups(), strict=True))
    attributes = _read_lines(text.split("\n"))
    if len(_layouts) < _MOST_LAYOUTS and len(attributes) == text.count("\n") + 1:
        _layouts[tuple(attributes)] = _matching(attributes)
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


def _matching(names: Iterable[str]) -> Match:
    """What matches a request with these names in their order, one value in each group."""
    # Possessive: where one line does not match, no shorter part of those before can help.
    return re.compile("\n".join([f"{name}=(.*+)" for name in names])).fullmatch


Payload = bytes | str | Iterable[str] | Mapping[str, str]

_set = object.__setattr__


class PolicyRequest:
    """One policy request. Its attributes are Postfix's; an unknown or empty one is ``None``.

    They cannot be changed. What a subclass keeps for itself has a name that begins with ``_``.

    :param payload: the request as Postfix sends it (bytes or str), its ``name=value`` lines, or a
        mapping of names to values.
    :raises RequestError: when that is no policy request.
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
        """The value of an attribute, or ``default`` where it is missing or empty."""
        return self._attributes.get(name) or default

    @property
    def attributes(self) -> Mapping[str, str]:
        """All attributes as they came. Not to be changed."""
        return self._attributes

    @property
    def recipients(self) -> int:
        """``recipient_count``, 0 when it is not available."""
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
