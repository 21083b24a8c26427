"""Postfix policy requests, parsed into an immutable object.

The format is defined in https://www.postfix.org/SMTPD_POLICY_README.html: ``name=value`` lines and
one empty line. Attributes may come in any order; any may be missing, and unknown ones are allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

# From https://www.postfix.org/SMTPD_POLICY_README.html, Postfix 3.10.
ATTRIBUTES = (
    *("request", "protocol_state", "protocol_name", "helo_name", "queue_id", "sender", "recipient", "recipient_count"),
    *("client_address", "client_name", "reverse_client_name", "instance", "sasl_method", "sasl_username"),
    *("sasl_sender", "size", "ccert_subject", "ccert_issuer", "ccert_fingerprint", "encryption_protocol"),
    *("encryption_cipher", "encryption_keysize", "etrn_domain", "stress", "ccert_pubkey_fingerprint"),
    *("client_port", "policy_context", "server_address", "server_port", "compatibility_level", "mail_version"),
)

# As in SMTPD_POLICY_README.
PROTOCOL_STATES = ("CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE", "VRFY", "ETRN")

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


Values: TypeAlias = dict[str, str] | re.Match[str]
"""The attributes of a request: by name, or the match of a layout, whose groups are named like the attributes.

Only some values of a request are used, and a match creates them when they are."""


def parse(payload: bytes, encoding: str = "utf-8") -> Values:
    """Parse one request, without its terminating empty line, for :class:`PolicyRequest`.

    :param payload: ``name=value`` lines, separated by LF.
    :param encoding: encoding of the values. Bytes that cannot be decoded become surrogate escapes.
    :returns: the values. If a name is repeated, the last value wins.
    :raises RequestError: if a line has no ``=``, a name is not 1 to 64 letters, digits and underscores, or
        a limit is exceeded.
    """
    if len(payload) > MAX_REQUEST_BYTES:
        raise RequestError(f"a request of more than {MAX_REQUEST_BYTES} bytes")
    text = payload.decode(encoding, "surrogateescape")
    for match in _layouts.values():
        if found := match(text):
            return found
    attributes = _read_lines(text.split("\n"))
    names = tuple(attributes)
    # A group of a regular expression cannot have any other name.
    if len(_layouts) < _MAX_LAYOUTS and len(names) == text.count("\n") + 1 and all(map(str.isidentifier, names)):
        _layouts[names] = _matcher(names)
    return attributes


def parse_attributes(payload: bytes, encoding: str = "utf-8") -> dict[str, str]:
    """Parse one request like :func:`parse`, and return all of its attributes: name to value."""
    return _all(parse(payload, encoding))


def _all(values: Values) -> dict[str, str]:
    return values if isinstance(values, dict) else values.groupdict()


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
    return re.compile("\n".join([f"{name}=(?P<{name}>.*+)" for name in names])).fullmatch


Payload = bytes | str | Iterable[str] | Mapping[str, str] | re.Match[str]

# Bytes of a name and its place in a dictionary.
_PAIR = 150

_set = object.__setattr__


class PolicyRequest:
    """One policy request. The attributes of Postfix are Python attributes; ``None`` if missing or empty.

    Immutable. Private attributes of subclasses must start with ``_``.

    :param payload: the request as Postfix sends it (bytes or str), its ``name=value`` lines, a mapping of names to
        values, or the result of :func:`parse`.
    :raises RequestError: if it is not a policy request.
    """

    __slots__ = ("_values",)

    _values: Values

    def __init__(self, payload: Payload) -> None:
        _set_values(self, payload if type(payload) is re.Match else _values_of(payload))

    def __getattr__(self, name: str) -> str | None:
        if name[0] == "_":
            raise AttributeError(name)
        return self.get(name) or None

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] == "_":
            _set(self, name, value)
            return
        raise AttributeError(f"a policy request cannot be changed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a policy request cannot be changed: {name}")

    def get(self, name: str, default: str = "") -> str:
        """Return the value of an attribute, or ``default`` if it is missing or empty."""
        try:
            return self._values[name] or default
        except LookupError:
            return default

    def select(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return the values of two or more attributes, ``""`` for each that is missing."""
        if type(self._values) is re.Match:
            try:
                return self._values.group(*names)
            except LookupError:
                pass
        return tuple([self.get(name) for name in names])

    @property
    def attributes(self) -> Mapping[str, str]:
        """All attributes as received. Do not modify. The first access creates them."""
        if type(self._values) is not dict:
            _set_values(self, _all(self._values))
        return _all(self._values)

    @property
    def text_bytes(self) -> int:
        """Size of the texts in bytes, by estimate."""
        values = self._values
        if type(values) is re.Match:
            return values.string.__sizeof__()
        return sum([_PAIR + len(name) + value.__sizeof__() for name, value in self.attributes.items()])

    @property
    def recipients(self) -> int:
        """``recipient_count``, 0 if it is not available."""
        count = self.get("recipient_count")
        return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PolicyRequest) and self.attributes == other.attributes

    def __hash__(self) -> int:
        return hash(frozenset(self.attributes.items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.attributes)!r})"


_set_values: Callable[[PolicyRequest, Values], None] = PolicyRequest.__dict__["_values"].__set__


def _values_of(payload: Payload) -> Values:
    """Return the values of a request in any form."""
    if type(payload) is re.Match or type(payload) is dict:
        return payload
    if isinstance(payload, Mapping):
        return dict(payload)
    if isinstance(payload, (bytes, bytearray)):
        return parse(bytes(payload).rstrip(b"\n"))
    text = payload if isinstance(payload, str) else "\n".join(payload)
    return parse(text.rstrip("\n").encode("utf-8", "surrogateescape"))
