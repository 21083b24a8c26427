"""Caches in memory, bounded in bytes.

A bound on the number of entries is not enough: clients choose the length of the texts.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import TypeVar

# Overhead of an entry in bytes: its slot in the table, and the objects of key and value.
_ENTRY = 400

# Bytes per character of a key, including its share of the value.
_CHARACTER = 12

# Entries that are freed with each new one after the cache was cleared: freeing all of them takes 10 ms.
_FREED = 16

# An entry larger than 1/256 of the cache is not stored: a few of them would evict all others.
_PART = 256

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def size_of(value: object) -> int:
    """Estimate the size in bytes of a string, a number, or a tuple or list of them."""
    if isinstance(value, tuple | list):
        return getsizeof(value) + sum(map(size_of, value))
    return getsizeof(value)


class Memo(dict[K, V]):
    """A cache that is cleared when it is full. Entries that are too large are not stored.

    :param max_bytes: maximum size, by estimate.
    :param part: an entry larger than ``max_bytes / part`` is not stored.
    :ivar size: bytes added since it was last cleared.
    """

    __slots__ = ("_cleared", "_max_bytes", "_max_entry", "size")

    def __init__(self, max_bytes: int, part: int = _PART) -> None:
        super().__init__()
        self._max_bytes = max_bytes
        self._max_entry = max_bytes // part
        self.size = 0
        # Entries that are not freed yet.
        self._cleared: dict[K, V] = {}

    def keep(self, key: K, value: V, size: int = 0) -> None:
        """Store a value, replacing the previous one.

        :param size: bytes of key and value; 0 estimates them with :func:`size_of`.
        """
        self._keep(key, value, _ENTRY + (size or size_of(key) + size_of(value)))

    def _keep(self, key: K, value: V, size: int) -> None:
        if size > self._max_entry:
            self.pop(key, None)
            return
        if self.size + size > self._max_bytes:
            self.clear()
        self.size += size
        self[key] = value
        if self._cleared:
            self._free()

    def clear(self) -> None:
        """Remove all entries. Their memory is freed little by little, as entries are added."""
        self._cleared = self.copy()
        super().clear()
        self.size = 0

    def _free(self) -> None:
        for _ in range(min(_FREED, len(self._cleared))):
            self._cleared.popitem()


class Memoized(Memo[str, V]):
    """The results of a function, by argument. A missing result is computed.

    :param function: a pure function of one string, whose result is not much longer than its argument. Exceptions
        are not cached.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[str], V], max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._function = function

    def __missing__(self, key: str) -> V:
        value = self._function(key)
        self._keep(key, value, _ENTRY + _CHARACTER * len(key))
        return value
