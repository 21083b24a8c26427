"""What is remembered for a time, within a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from chapps_tw.mail.memo import size_of

# Bytes that one thing to remember takes besides its texts.
_ENTRY = 700

V = TypeVar("V")


class _Kept(NamedTuple, Generic[V]):
    until: float
    size: int
    value: V


class Cache(Generic[V]):
    """Remembers values for a time. What was remembered first is forgotten first when there is no more room.

    :param most: values.
    :param room: bytes, by estimate.
    :ivar size: bytes that are taken.
    """

    def __init__(self, most: int, room: int) -> None:
        self._most = most
        self._room = room
        self._kept: OrderedDict[Hashable, _Kept[V]] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable, now: float) -> V | None:
        """What is remembered; ``None`` when that is nothing, or its time is over."""
        kept = self._kept.get(key)
        return kept.value if kept is not None and kept.until > now else None

    def keep(self, key: Hashable, value: V, until: float) -> None:
        """Remember a value, in place of the one before."""
        self.forget(key)
        kept = _Kept(until, _ENTRY + size_of(key) + size_of(value), value)
        self._kept[key] = kept
        self.size += kept.size
        while len(self._kept) > self._most or self.size > self._room:
            self.forget(next(iter(self._kept)))

    def forget(self, key: Hashable) -> None:
        """Remember a value no more."""
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= kept.size
