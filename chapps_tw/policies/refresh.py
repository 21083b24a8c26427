"""When a copy of what the book says is compared with the book again."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from chapps_tw.mail.memo import Memo

# Bytes for the keys of copies that were compared.
_CACHE_BYTES = 24 << 20


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
        self._due: Memo[Hashable, float] = Memo(_CACHE_BYTES)

    def is_due(self, key: Hashable) -> bool:
        """Whether a copy is to be compared now. Whoever asks next is told that it is not."""
        now = self._seconds()
        if now < self._due.get(key, now):
            return False
        self._due.keep(key, now + self._period)
        return True

    def forget(self) -> None:
        """Have every copy be compared when it is next wanted."""
        self._due.clear()


def never(_key: Hashable) -> bool:
    """In place of :meth:`Refresh.is_due`: copies hold for as long as the state keeps them."""
    return False
