"""When to compare cached values with the policy book."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from chapps_tw.mail.memo import Memo

# Size of the cache of compared keys, in bytes.
_CACHE_BYTES = 24 << 20


class Refresh:
    """Schedules one comparison per period for each cached value.

    A change made directly in the database thus takes effect within a period. While the book is unavailable, cached
    values stay valid until they expire.

    :param period: seconds.
    :param monotonic: monotonic clock.
    """

    def __init__(self, period: float, monotonic: Callable[[], float]) -> None:
        self._period = period
        self._monotonic = monotonic
        self._due: Memo[Hashable, float] = Memo(_CACHE_BYTES)

    def is_due(self, key: Hashable) -> bool:
        """Whether to compare a cached value now. True once per period and key."""
        time = self._monotonic()
        if time < self._due.get(key, time):
            return False
        self._due.keep(key, time + self._period)
        return True

    def forget(self) -> None:
        """Make every cached value due when it is next used."""
        self._due.clear()


def never(_key: Hashable) -> bool:
    """Replacement for :meth:`Refresh.is_due` that never compares: cached values stay until they expire."""
    return False
