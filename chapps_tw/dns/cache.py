"""A cache with a time to live per entry, bounded in entries and in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

from chapps_tw.mail.memo import size_of

# Bytes of overhead per entry, besides its key and value.
_OVERHEAD = 700

V = TypeVar("V")


class _Entry(NamedTuple, Generic[V]):
    expires: float
    size: int
    value: V


class Cache(Generic[V]):
    """A FIFO cache: when it is full, the oldest entry is evicted first.

    :param max_entries: maximum number of entries.
    :param max_bytes: maximum total size, estimated.
    :ivar size: current total size in bytes, estimated.
    """

    def __init__(self, max_entries: int, max_bytes: int) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Hashable, _Entry[V]] = OrderedDict()
        self.size = 0

    def get(self, key: Hashable, time: float) -> V | None:
        """Return the value of a key; ``None`` if there is none, or it has expired.

        :param time: now, on the clock that ``expires`` of :meth:`set` refers to.
        """
        entry = self._entries.get(key)
        return entry.value if entry is not None and entry.expires > time else None

    def set(self, key: Hashable, value: V, expires: float) -> None:
        """Store a value, replacing the previous one. A value larger than the cache is not stored."""
        self.delete(key)
        entry = _Entry(expires, _OVERHEAD + size_of(key) + size_of(value), value)
        self._entries[key] = entry
        self.size += entry.size
        while len(self._entries) > self._max_entries or self.size > self._max_bytes:
            self.delete(next(iter(self._entries)))

    def delete(self, key: Hashable) -> None:
        """Remove a key, if it is there."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size
