"""The messages of one account in memory, in order of time, with a running sum for each window length."""

from __future__ import annotations

from bisect import bisect_right
from heapq import heappop, heappush
from math import inf

from chapps_tw.interfaces.state import Usage
from chapps_tw.state.sqlite.columns import Columns, Row

# Bytes of an account without messages, and of a message without its recipients.
_ACCOUNT_BYTES, _MESSAGE_BYTES = 1500, 250
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
    """Messages as columns.

    The message with number ``n`` is at index ``n - _base``. One whose cost was given back stays there with cost 0.
    Messages before ``_start`` have left all windows.

    :param key: of the account in the file.
    :param stored: its messages in the file.
    :param keep: seconds that they have to be kept; 0.0 if all have expired.
    :ivar changed: numbers of the messages that have to be written to the file.
    :ivar widened: whether ``keep`` has become longer for messages in the file.
    :ivar is_new: whether what the file has of it has expired, and is to be deleted.
    :ivar accounted: bytes that the cache has taken into account.
    :ivar turn: in which the cache has last found it.
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
        "is_new",
        "keep",
        "key",
        "turn",
        "widened",
    )

    def __init__(self, key: bytes, stored: Columns, keep: float, now: float) -> None:
        self.key = key
        self.changed: set[int] = set()
        self.keep = keep
        self.widened = False
        self.is_new = not keep
        self.accounted = 0
        self.turn = 0
        self._now = now
        # When something leaves a window or is given back; not later than that.
        self._due = inf
        self._last = -inf
        if self.is_new:
            stored = Columns(0)
        self._base = self._start = stored.first
        self._times = stored.times
        self._costs = stored.costs
        self._instances = stored.instances
        # By number, where they are not empty: the recipients counted one by one, and when costs are given back.
        self._seen = stored.seen
        self._settle = stored.settle
        self._mark_bytes = sum(map(len, self._seen.values()))
        self._numbers = dict(zip(self._instances, range(stored.first, stored.end), strict=True))
        self._numbers.pop(b"", None)
        # In order of time, together with some that are no longer given back then.
        self._reservations = sorted((at, number) for number, at in self._settle.items())
        self._windows: dict[float, Window] = {}
        if keep:
            self._last = self._times[-1]
            # Keeps the messages until a charge says for how long.
            self._windows[keep] = self._sum(keep, now)
            self._due = -inf
            self.advance(now)

    @property
    def size(self) -> int:
        """Size in bytes, by estimate."""
        return _ACCOUNT_BYTES + _MESSAGE_BYTES * len(self._times) + self._mark_bytes

    def rows(self) -> list[Row]:
        """Return the messages that have to be written to the file."""
        rows: list[Row] = []
        for number in self.changed:
            index = number - self._base
            if index >= 0:
                seen, settle = self._seen.get(number, b""), self._settle.get(number, 0.0)
                rows.append((number, self._instances[index], self._times[index], self._costs[index], seen, settle))
        return rows

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
            self._mark_bytes -= len(self._seen.pop(number, b""))
        del self._times[:expired], self._costs[:expired], self._instances[:expired]
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
        self._sum_anew()

    # --- windows ---

    def _sum_anew(self) -> None:
        self._due = self._now
        for seconds, window in list(self._windows.items()):
            self._windows[seconds] = self._sum(seconds, min(window.asked, self._now))

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

    def _append(self, at: float, cost: int, instance: bytes) -> int:
        number = self._base + len(self._times)
        self._times.append(at)
        self._costs.append(cost)
        self._instances.append(instance)
        if instance:
            self._numbers[instance] = number
        return number

    def _mark(self, number: int, mark: bytes) -> None:
        """Add the digest of a recipient that was counted."""
        self._seen[number] = self._seen.get(number, b"") + mark
        self._mark_bytes += len(mark)

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
