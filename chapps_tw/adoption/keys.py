"""The keys of CHAPPS 0.5 in Redis, of ``chapps.policy`` in https://pypi.org/project/chapps/0.5.18/.

======================================  ==========  ===============================================================
``oqp:USER:attempts``                   sorted set  an element for each transmission, also for those that were
                                                    refused; the score is its time in epoch seconds
``oqp:USER:limit``, ``oqp:USER:margin``  string      cached from the database
``sda:USER:DOMAIN``, ``sda:USER:EMAIL``  string      cached verdict, ``1`` or ``0``
``grl:CLIENT:SENDER:RECIPIENT``         string      epoch seconds of the attempt that was deferred last
``grl:CLIENT``                          sorted set  instances that passed, by their time
``grl:DOMAIN``, ``spf:DOMAIN``          string      cached flag, ``1`` or ``0``
======================================  ==========  ===============================================================
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from chapps_tw.mail.network import client_address

_ATTEMPTS = ":attempts"
_CACHED = ("sda:", "spf:", "oqp:")


class Kind(StrEnum):
    """What a key contains. ``CACHED`` is read from the database again."""

    COUNTS = "counts"
    TUPLE = "tuples"
    TALLY = "tallies"
    CACHED = "cached"
    FOREIGN = "foreign"


class Key(NamedTuple):
    """A key.

    :ivar parts: the user; or client, sender and recipient; or the client; or none.
    """

    raw: bytes
    kind: Kind
    parts: tuple[str, ...] = ()


def parse(raw: bytes) -> Key:
    """Return what a key is about.

    :raises ValueError: with the reason, if it belongs to CHAPPS 0.5, but cannot be taken apart.
    """
    try:
        prefix, _, rest = raw.decode("utf-8").partition(":")
    except UnicodeDecodeError:
        if raw.startswith((b"oqp:", b"grl:")):
            raise ValueError("is not UTF-8") from None
        return Key(raw, Kind.FOREIGN)
    if prefix == "oqp" and rest.endswith(_ATTEMPTS) and rest != _ATTEMPTS:
        return Key(raw, Kind.COUNTS, (rest.removesuffix(_ATTEMPTS),))
    if prefix == "grl" and rest:
        return _greylisting(raw, rest)
    return Key(raw, Kind.CACHED if f"{prefix}:" in _CACHED else Kind.FOREIGN)


def _greylisting(raw: bytes, rest: str) -> Key:
    if client_address(rest):
        return Key(raw, Kind.TALLY, (rest,))
    if ":" not in rest:
        return Key(raw, Kind.CACHED)
    # An IPv6 address has colons, too.
    parts = tuple(rest.rsplit(":", 2))
    if len(parts) < 3 or not client_address(parts[0]):
        raise ValueError("is not CLIENT:SENDER:RECIPIENT: an address in it contains a colon")
    return Key(raw, Kind.TUPLE, parts)
