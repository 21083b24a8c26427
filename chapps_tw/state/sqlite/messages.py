"""The messages of one account in memory, in order of time, with a running sum for each window length."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from heapq import heappop, heappush
from math import inf
from typing import TypeAlias

from chapps_tw.interfaces.state import Usage

Row: TypeAlias = tuple[bytes, int, bytes, float, float, int, bytes, float]
"""A message in the file: the key of its account; its number there; its instance; epoch seconds when it was first
counted; seconds that it has to be kept; its cost, 0 if it was given back; digests of the recipients that were counted
one by one; epoch seconds when its cost is given back, 0.0 if it counts for good."""

# Bytes of an account without messages, and of a message without its recipients.
_ACCOUNT_BYTES, _MESSAGE_BYTES = 1500, 300
# Messages that have left all windows are removed when there are more than this, and half of all.
_REMOVE_ABOVE = 64


class Window:
    """The messages of the last seconds.

    :ivar used: the sum of their costs.
    :ivar first: number of the oldest that it may contain.
    :ivar asked: when it was last used.
    """

    __slots__ = ("asked", "first", "seconds", "used")

    def __init__(self, seconds: float, used: int, first: int, asked: float) -> None:
        self.seconds = seconds
        self.used = used
        self.first = first
        self.asked = asked


class Messages:
    """Messages as columns, one list for each property: the garbage collector would have to visit objects.

    The message with number ``n`` is at index ``n - _base``. One whose cost was given back stays there with cost 0.
    Messages before ``_start`` have left all windows.

    :param key: of the account in the file.
    :param rows: its messages in the file, in order of their numbers.
    :ivar changed: numbers of the messages that have to be written to the file.
    :ivar keep: seconds that messages have to be kept.
    :ivar widened: whether this has become longer for messages in the file.
    :ivar accounted: bytes that the cache has taken into account.
    """

    __slots__ = (
        "_base",
        "_costs",
        "_due",
        "_instances",
        "_last",
        "_mark_bytes",
        "_now",
        "_numbers",
        "_reservations",
        "_seen",
        "_settle",
        "_start",
        "_times",
        "_windows",
        "accounted",
        "changed",
        "keep",
        "key",
        "widened",
    )

    def __init__(self, key: bytes, rows: Iterable[Row], now: float) -> None:
        self.key = key
        self.changed: set[int] = set()
        self.keep = 0.0
        self.widened = False
        self.accounted = 0
        self._now = now
        # When something leaves a window or is given back; not later than that.
        self._due = inf
        self._last = -inf
        self._base = self._start = 0
        self._times: list[float] = []
        self._costs: list[int] = []
        self._instances: list[bytes] = []
        self._seen: list[bytes] = []
        self._mark_bytes = 0
        self._numbers: dict[bytes, int] = {}
        # When costs are given back, by number; and in order of time, together with some that no longer are.
        self._settle: dict[int, float] = {}
        self._reservations: list[tuple[float, int]] = []
        self._windows: dict[float, Window] = {}
        self._load(list(rows), now)

    def _load(self, rows: list[Row], now: float) -> None:
        # New numbers follow those in the file.
        self._base = self._start = rows[-1][1] + 1 if rows else 0
        self.keep = max((row[4] for row in rows if row[3] + row[4] > now), default=0.0)
        if not self.keep:
            return
        _, numbers, instances, times, _, costs, seen, settle = map(list, zip(*_without_gaps(rows), strict=True))
        self._base = self._start = numbers[0]
        self._instances, self._times, self._costs, self._seen = instances, times, costs, seen
        self._mark_bytes = sum(map(len, seen))
        self._numbers = dict(zip(instances, numbers, strict=True))
        self._numbers.pop(b"", None)
        self._settle = {number: at for number, at in zip(numbers, settle, strict=True) if at}
        self._reservations = sorted((at, number) for number, at in self._settle.items())
        self._last = times[-1]
        # Keeps the messages until a charge says for how long.
        self._windows[self.keep] = self._sum(self.keep, now)
        self._due = -inf
        self.advance(now)

    @property
    def size(self) -> int:
        """Size in bytes, by estimate."""
        return _ACCOUNT_BYTES + _MESSAGE_BYTES * len(self._times) + self._mark_bytes

    def rows(self) -> list[Row]:
        """Return the messages that have to be written to the file."""
        base, keep = self._base, self.keep
        return [
            (
                self.key,
                number,
                self._instances[number - base],
                self._times[number - base],
                keep,
                self._costs[number - base],
                self._seen[number - base],
                self._settle.get(number, 0.0),
            )
            for number in self.changed
            if number >= base
        ]

    def usage(self, seconds: float) -> Usage:
        """Return what a window contains. To be called after :meth:`advance`."""
        window = self._windows.get(seconds) or self._sum(seconds, self._now)
        return Usage(window.used, max(self._last, 0.0), self._oldest(window, -1) or 0.0)

    # --- time ---

    def advance(self, now: float) -> None:
        """Subtract what has left the windows, and give back reservations that are over."""
        if self._now <= now < self._due:
            self._now = now
            return
        self._now = now
        if self._last > now:
            self._count_from_now(now)
        reservations = self._reservations
        while reservations and reservations[0][0] <= now:
            settle, number = heappop(reservations)
            if self._settle.get(number) == settle:
                self._give_back(number)
        times, costs, base = self._times, self._costs, self._base
        count = len(times)
        start = base + count
        due = reservations[0][0] if reservations else inf
        for window in self._windows.values():
            end = now - window.seconds
            index = window.first - base
            while index < count and times[index] <= end:
                window.used -= costs[index]
                index += 1
            window.first = base + index
            if window.first < start:
                start = window.first
            if index < count:
                due = min(due, times[index] + window.seconds)
        self._start = start
        self._due = due
        if start - base > _REMOVE_ABOVE and 2 * (start - base) > count:
            self._remove_expired()

    def _remove_expired(self) -> None:
        expired = self._start - self._base
        for index in range(expired):
            number, instance = self._base + index, self._instances[index]
            if self._numbers.get(instance) == number:
                del self._numbers[instance]
            self._settle.pop(number, None)
            self._mark_bytes -= len(self._seen[index])
        del self._times[:expired], self._costs[:expired], self._instances[:expired], self._seen[:expired]
        self._base = self._start

    def _count_from_now(self, now: float) -> None:
        """Count messages with a time in the future, from before the clock was set back, from now."""
        index = len(self._times)
        while index and self._times[index - 1] > now:
            index -= 1
            number = self._base + index
            if number in self._settle:
                self._settle[number] += now - self._times[index]
                heappush(self._reservations, (self._settle[number], number))
            self._times[index] = now
            self.changed.add(number)
        self._last = now
        self._due = now
        for seconds, window in list(self._windows.items()):
            self._windows[seconds] = self._sum(seconds, min(window.asked, now))

    # --- windows ---

    def _sum(self, seconds: float, asked: float) -> Window:
        first = max(bisect_right(self._times, self._now - seconds), self._start - self._base)
        return Window(seconds, sum(self._costs[first:]), self._base + first, asked)

    def _use(self, seconds: float) -> None:
        """Keep the sum of a window, and the messages for as long as it needs them."""
        window = self._windows.get(seconds)
        if window is None:
            self._windows[seconds] = self._sum(seconds, self._now)
            self._due = self._now
            self._keep_for(seconds)
        else:
            window.asked = self._now

    def _keep_for(self, seconds: float) -> None:
        if seconds > self.keep:
            self.keep = seconds
            self.widened = len(self._times) > 0

    def _drop_unused(self) -> None:
        """Drop the sums of windows that were not used for their own length."""
        used = {each.seconds: each for each in self._windows.values() if self._now - each.asked <= each.seconds}
        if len(used) < len(self._windows):
            self._windows = used
            self.keep = max(used)

    def _oldest(self, window: Window, without: int) -> float | None:
        """Return the time of the oldest message that a window contains, except one; ``None`` if there is no other."""
        costs, base = self._costs, self._base
        index, count = window.first - base, len(costs)
        while index < count and not costs[index]:
            index += 1
        # What was given back is passed once.
        window.first = base + index
        if window.first == without:
            index += 1
            while index < count and not costs[index]:
                index += 1
        return self._times[index] if index < count else None

    # --- messages ---

    def _find(self, instance: bytes) -> tuple[int, int]:
        """Return the number of a message and its cost; ``(-1, 0)`` if it is not counted."""
        number = self._numbers.get(instance, -1)
        return (number, self._costs[number - self._base]) if number >= self._start else (-1, 0)

    def _append(self, at: float, cost: int, instance: bytes, seen: bytes) -> int:
        number = self._base + len(self._times)
        self._times.append(at)
        self._costs.append(cost)
        self._instances.append(instance)
        self._seen.append(seen)
        self._mark_bytes += len(seen)
        if instance:
            self._numbers[instance] = number
        return number

    def _change(self, number: int, cost: int) -> None:
        difference = cost - self._costs[number - self._base]
        self._costs[number - self._base] = cost
        for window in self._windows.values():
            if number >= window.first:
                window.used += difference

    def _give_back(self, number: int) -> None:
        self._change(number, 0)
        self._settle.pop(number, None)
        index = number - self._base
        if self._numbers.get(self._instances[index]) == number:
            del self._numbers[self._instances[index]]
        self._instances[index] = b""


def _without_gaps(rows: list[Row]) -> list[Row]:
    """Return rows with one of no cost for each number that is missing between two others."""
    if rows[-1][1] - rows[0][1] + 1 == len(rows):
        return rows
    filled = rows[:1]
    for row in rows[1:]:
        key, _, _, at, keep, _, _, _ = row
        filled += [(key, number, b"", at, keep, 0, b"", 0.0) for number in range(filled[-1][1] + 1, row[1])]
        filled.append(row)
    return filled
