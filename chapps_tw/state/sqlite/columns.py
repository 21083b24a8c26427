"""Messages as columns, and their encoding in the file."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final, TypeAlias

from chapps_tw.state.sqlite.encoding import Damaged

Row: TypeAlias = tuple[int, bytes, float, int, bytes, float]
"""A message: its number in its account; its instance; epoch seconds when it was first counted; its cost, 0 if it was
given back; digests of the recipients that were counted one by one; epoch seconds when its cost is given back, 0.0 if it
counts for good."""

PARTS: Final = 8
"""Number of parts that columns are encoded in."""

SEPARATOR: Final = b"\xff"
"""Is between instances; none contains it (see message_key() in keys.py). Splitting is faster than slicing."""


class Columns:
    """Messages with consecutive numbers. Arrays, because the garbage collector would have to visit objects.

    :param first: number of the first one.
    :ivar seen, settle: by number, those that are not empty.
    """

    __slots__ = ("costs", "first", "instances", "seen", "settle", "times")

    def __init__(self, first: int) -> None:
        self.first = first
        self.times = array("d")
        self.costs = array("q")
        self.instances: list[bytes] = []
        self.seen: dict[int, bytes] = {}
        self.settle: dict[int, float] = {}

    @property
    def end(self) -> int:
        """The number that follows the last one."""
        return self.first + len(self.times)

    def update(self, rows: Sequence[Row]) -> None:
        """Add or replace messages, in order of their numbers. Those before the first have expired, and are ignored."""
        added = bisect_left(rows, (self.end,))
        for row in rows[:added]:
            self._put(row)
        if added < len(rows):
            if rows[-1][0] - rows[added][0] == len(rows) - added - 1:
                self.extend(Columns.of_rows(rows[added:], rows[added][0]))
            else:
                for row in rows[added:]:
                    self._put(row)

    def _put(self, row: Row) -> None:
        number, instance, at, cost, seen, settle = row
        index = number - self.first
        if index < 0:
            return
        if number >= self.end:
            self._fill(number + 1, at)
        self.instances[index], self.times[index], self.costs[index] = instance, at, cost
        self.seen.pop(number, None)
        self.settle.pop(number, None)
        if seen:
            self.seen[number] = seen
        if settle:
            self.settle[number] = settle

    def extend(self, later: Columns) -> None:
        """Add messages with higher numbers."""
        if later.first > self.end:
            self._fill(later.first, later.times[0])
        self.times += later.times
        self.costs += later.costs
        self.instances += later.instances
        self.seen |= later.seen
        self.settle |= later.settle

    def _fill(self, end: int, at: float) -> None:
        """Add messages without a cost, up to a number."""
        missing = end - self.end
        self.times.extend([at] * missing)
        self.costs.extend([0] * missing)
        self.instances += [b""] * missing

    def drop_until(self, at: float) -> None:
        """Remove messages up to a time, except the last one."""
        count = bisect_right(self.times, at, hi=len(self.times) - 1)
        if count:
            del self.times[:count], self.costs[:count], self.instances[:count]
            self.first += count
            self.seen = {number: each for number, each in self.seen.items() if number >= self.first}
            self.settle = {number: each for number, each in self.settle.items() if number >= self.first}

    def parts(self) -> list[bytes]:
        """Return them encoded, without the number of the first one."""
        return [
            self.times.tobytes(),
            self.costs.tobytes(),
            SEPARATOR.join(self.instances),
            pack("q", self.seen),
            pack("I", map(len, self.seen.values())),
            b"".join(self.seen.values()),
            pack("q", self.settle),
            pack("d", self.settle.values()),
        ]

    @classmethod
    def of_parts(cls, first: int, parts: Sequence[bytes]) -> Columns:
        """Return encoded messages.

        :raises Damaged: if the parts do not fit together.
        """
        times, costs, instances, seen_by, lengths, seen, settled_by, settle = parts
        columns = cls(first)
        try:
            columns.times.frombytes(times)
            columns.costs.frombytes(costs)
            columns.instances = instances.split(SEPARATOR) if times else []
            marks = pairwise(accumulate(array("I", lengths), initial=0))
            columns.seen = {
                number: seen[begin:end] for number, (begin, end) in zip(array("q", seen_by), marks, strict=True)
            }
            columns.settle = dict(zip(array("q", settled_by), array("d", settle), strict=True))
        except ValueError as error:
            raise Damaged(f"the columns of messages do not fit together: {error}") from error
        if not len(columns.times) == len(columns.costs) == len(columns.instances):
            raise Damaged("the columns of messages are not equally long")
        return columns

    @classmethod
    def of_rows(cls, rows: Sequence[Row], first: int = 0) -> Columns:
        """Return messages, numbered anew."""
        columns = cls(first)
        if rows:
            _, instances, times, costs, seen, settle = zip(*rows, strict=True)
            columns.instances = list(instances)
            columns.times, columns.costs = array("d", times), array("q", costs)
            columns.seen = {number: each for number, each in enumerate(seen, first) if each}
            columns.settle = {number: each for number, each in enumerate(settle, first) if each}
        return columns


def pack(kind: str, values: Iterable[float]) -> bytes:
    """Return numbers as the bytes of an array of a type code."""
    return array(kind, values).tobytes()
