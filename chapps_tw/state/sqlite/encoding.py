"""Values in the file that have several parts: with their lengths and a checksum, so that damage is noticed."""

from __future__ import annotations

import sqlite3
import sys
from array import array
from itertools import accumulate, pairwise
from zlib import crc32

# Bytes of the checksum, and of each length.
_SUM, _LENGTH = 4, 4


class Damaged(sqlite3.DatabaseError):
    """A value in the file is not one that was written there."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def seal(*parts: bytes) -> bytes:
    """Return parts as one value. Numbers are in the byte order of this machine."""
    body = b"".join((array("I", map(len, parts)).tobytes(), *parts))
    return crc32(body).to_bytes(_SUM, sys.byteorder) + body


def unseal(value: object, count: int) -> list[bytes]:
    """Return the parts of a value.

    :param count: of parts.
    :raises Damaged: if it was not made by :func:`seal`, from as many parts, on a machine with the same byte order.
    """
    start = _SUM + count * _LENGTH
    if not isinstance(value, bytes) or len(value) < start:
        raise Damaged("a value is too short")
    if crc32(memoryview(value)[_SUM:]) != int.from_bytes(value[:_SUM], sys.byteorder):
        raise Damaged("the checksum of a value is wrong")
    lengths = array("I", value[_SUM:start])
    parts = [value[begin:end] for begin, end in pairwise(accumulate(lengths, initial=start))]
    if start + sum(lengths) != len(value):
        raise Damaged("the parts of a value are not as long as it says")
    return parts
