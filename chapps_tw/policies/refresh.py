"""When to compare cached values with the policy book."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from chapps_tw.mail.memo import Memo

MOST_PER_SECOND: Final = 100
"""Values that one policy of a listener compares in a second. A hundred thousand users who send now and then would
otherwise all be looked up with each of their messages."""

# Size of the cache of compared keys, in bytes.
_CACHE_BYTES = 24 << 20


class Refresh:
    """Schedules one comparison per period for each cached value.

    A change made directly in the database thus takes effect within a period, or later if more values are in use than
    can be compared in it. While the book is unavailable, cached values stay valid until they expire.

    :param period: seconds.
    :param monotonic: monotonic clock.
    """

    def __init__(self, period: float, monotonic: Callable[[], float]) -> None:
        self._period = period
        self._monotonic = monotonic
        self._due: Memo[Hashable, float] = Memo(_CACHE_BYTES)
        self._second, self._compared = 0.0, 0
        self._all_until = 0.0

    def is_due(self, key: Hashable) -> bool:
        """Whether to compare a cached value now. True once per period and key."""
        time = self._monotonic()
        if time < self._due.get(key, time) or not self._may_compare(time):
            return False
        self._due.keep(key, time + self._period)
        return True

    def _may_compare(self, time: float) -> bool:
        if time - self._second >= 1:
            self._second, self._compared = time, 0
        self._compared += 1
        return self._compared <= MOST_PER_SECOND or time < self._all_until

    def forget(self) -> None:
        """Make every cached value due when it is next used, however many there are."""
        self._due.clear()
        self._all_until = self._monotonic() + self._period


def never(_key: Hashable) -> bool:
    """Replacement for :meth:`Refresh.is_due` that never compares: cached values stay until they expire."""
    return False
