"""The outcome of an operation of the live state."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """The outcome of an operation. The Lua scripts return these numbers."""

    # Faster than that of Enum: outcomes are looked up for each request.
    __hash__ = int.__hash__

    MISSING = 0
    ACCEPTED = 1
    REPEATED = 2
    EXCEEDED = 3
    TOO_SOON = 4
    NOT_GREYLISTED = 5
    FIRST = 6
    EARLY = 7
    PASSED = 8
    KNOWN_CLIENT = 9
    OUTDATED = 10
