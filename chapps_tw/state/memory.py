"""Cached values of the book in the memory of this process, where they may be outdated."""

from __future__ import annotations

from collections.abc import Callable

from chapps_tw.interfaces.state import CacheVersion, ValueKey
from chapps_tw.mail.memo import Memo

SECONDS = 10.0
"""Lifetime of a value in memory. Then it is read again, and compared with the book if that is due."""

RENEWAL = 5.0
"""Seconds after which there is a new version, so that what depends on the values is found anew."""

# Maximum size in bytes, and its part that a single value may take: all exemptions are one value.
_MAX_BYTES, _PART = 16 << 20, 4


class ValueMemory:
    """Values that were read from a store since its stamp was last changed.

    :param now: epoch seconds. When this clock is set back, all values are outdated: they may have been cached while it
        was ahead.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._values: Memo[ValueKey, tuple[float, str]] = Memo(_MAX_BYTES, _PART)
        self._version = CacheVersion(b"")
        # When there was a version last, and when there is to be a new one.
        self._latest = self._renewal = 0.0

    @property
    def stamp(self) -> bytes:
        """The stamp of the store with which the values were read."""
        return self._version.stamp

    def version(self) -> CacheVersion:
        """Return the version of all values."""
        now = self._now()
        if not self._latest <= now < self._renewal:
            if now < self._latest:
                self._values.clear()
            self._version = CacheVersion(self._version.stamp)
            self._renewal = now + RENEWAL
        self._latest = now
        return self._version

    def recall(self, key: ValueKey) -> str | None:
        """Return a value, ``None`` if there is none."""
        found = self._values.get(key)
        return found[1] if found is not None and self._now() < found[0] else None

    def set_stamp(self, stamp: bytes) -> None:
        """Note the stamp of the store. If it is another one, all values are outdated."""
        if stamp != self._version.stamp:
            self._values.clear()
            self._version = CacheVersion(stamp)

    def remember(self, key: ValueKey, value: str) -> None:
        """Add a value that was read together with the current stamp. Without one, it could not be confirmed."""
        if self._version.stamp:
            self._values.keep(key, (self._now() + SECONDS, value))

    def forget(self, key: ValueKey) -> None:
        """Remove a value."""
        self._values.pop(key, None)
