"""What is remembered to save work, within a bound of bytes.

What comes from outside decides how long the texts are, so a bound of entries alone would be none.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from sys import getsizeof
from typing import TypeVar

# Bytes that an entry takes besides its characters: the place in the table, and what holds key and value.
_ENTRY = 400

# Bytes for a character of a text, in what was asked and in what was answered.
_CHARACTER = 12

# An entry that would take more than this part of the room is not remembered: a few would push out all others.
_PART = 256

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def size_of(value: object) -> int:
    """About how many bytes a text, a number, or a tuple or list of such takes."""
    if isinstance(value, tuple | list):
        return getsizeof(value) + sum(map(size_of, value))
    return getsizeof(value)


class Memo(dict[K, V]):
    """What was found before. Emptied when it is full; what is too large is not remembered.

    :param room: bytes, by estimate.
    :ivar taken: bytes that were taken since it was empty.
    """

    __slots__ = ("_largest", "_room", "taken")

    def __init__(self, room: int) -> None:
        super().__init__()
        self._room = room
        self._largest = room // _PART
        self.taken = 0

    def keep(self, key: K, value: V, size: int = 0) -> None:
        """Remember a value, in place of the one before.

        :param size: bytes of both, where they are known; else they are looked at.
        """
        self._keep(key, value, _ENTRY + (size or size_of(key) + size_of(value)))

    def _keep(self, key: K, value: V, size: int) -> None:
        if size > self._largest:
            self.pop(key, None)
            return
        if self.taken + size > self._room:
            self.clear()
        self.taken += size
        self[key] = value

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self.taken = 0


class Answers(Memo[str, V]):
    """What a function answered, by what it was asked; what is not there is asked of it.

    :param function: of one text, which the answer is not much longer than. Its answer is always the same. What it
        raises is not remembered.
    """

    __slots__ = ("_function",)

    def __init__(self, function: Callable[[str], V], room: int) -> None:
        super().__init__(room)
        self._function = function

    def __missing__(self, key: str) -> V:
        value = self._function(key)
        self._keep(key, value, _ENTRY + _CHARACTER * len(key))
        return value
