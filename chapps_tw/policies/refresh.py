"""When a copy of what the book says is compared with the book again."""

from __future__ import annotations

from collections.abc import Callable, Hashable

MAX_KEYS = 50_000


class Refresh:
    """Says, once a period for each copy, that it is to be compared.

    So a change that was made in the database by hand is in force after a period, and a copy goes on for as long as
    the state keeps it where the book cannot be asked.

    :param period: seconds.
    :param seconds: the clock.
    """

    def __init__(self, period: float, seconds: Callable[[], float]) -> None:
        self._period = period
        self._seconds = seconds
        self._compared: dict[Hashable, float] = {}

    def is_due(self, key: Hashable) -> bool:
        """Whether a copy is to be compared now. Whoever asks next is told that it is not."""
        now = self._seconds()
        # The clock may have been set back.
        if abs(now - self._compared.get(key, float("-inf"))) < self._period:
            return False
        if len(self._compared) >= MAX_KEYS:
            self._compared.clear()
        self._compared[key] = now
        return True

    def forget(self) -> None:
        """Have every copy be compared when it is next wanted."""
        self._compared.clear()


def never(_key: Hashable) -> bool:
    """In place of :meth:`Refresh.is_due`: copies hold for as long as the state keeps them."""
    return False
