"""How many decisions there were in each second of the last hour."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import Final, NamedTuple

from chapps_tw.observe.decision_record import Entry

HOUR: Final = 3600


class Bucket(NamedTuple):
    """The decisions of some seconds.

    :ivar start: epoch seconds.
    :ivar stopped: those that refused, deferred or discarded mail.
    """

    start: int
    decisions: int
    stopped: int


class DecisionRates:
    """Counters per second, fed with each decision."""

    def __init__(self) -> None:
        self._second = self._stopped = 0
        self._reasons: dict[str, int] = defaultdict(int)
        self._past: deque[tuple[Bucket, dict[str, int]]] = deque()
        self._of_hour: Counter[str] = Counter()

    def extend(self, entries: Iterable[Entry]) -> None:
        """Count decisions."""
        for entry in entries:
            second, decision = int(entry[0]), entry[9]
            if second != self._second:
                self._roll(second)
            self._reasons[decision.reason] += 1
            if decision.stops:
                self._stopped += 1

    def _present(self) -> Bucket:
        return Bucket(self._second, sum(self._reasons.values()), self._stopped)

    def _roll(self, second: int) -> None:
        """Begin another second."""
        if self._reasons:
            self._past.append((self._present(), self._reasons))
            self._of_hour.update(self._reasons)
        self._second, self._stopped, self._reasons = second, 0, defaultdict(int)
        self._forget(second)

    def _forget(self, second: int) -> None:
        # The clock may have been set back: then those of the future go, too.
        while self._past and not 0 <= second - self._past[0][0].start <= HOUR:
            self._of_hour.subtract(self._past.popleft()[1])

    def buckets(self, now: float, seconds: int) -> list[Bucket]:
        """Return the last hour in buckets of so many seconds, oldest first; the last one is not over."""
        if int(now) != self._second:
            self._roll(int(now))
        first = (int(now) - HOUR) // seconds + 1
        decisions, stopped = [0] * (HOUR // seconds), [0] * (HOUR // seconds)
        for bucket in (*(each for each, _ in self._past), self._present()):
            place = bucket.start // seconds - first
            if 0 <= place < len(decisions):
                decisions[place] += bucket.decisions
                stopped[place] += bucket.stopped
        counted = zip(decisions, stopped, strict=True)
        return [Bucket((first + place) * seconds, *each) for place, each in enumerate(counted)]

    def reasons(self, now: float) -> list[tuple[str, int]]:
        """Return the decisions of the last hour by reason, the largest first."""
        if int(now) != self._second:
            self._roll(int(now))
        found = Counter(self._reasons)
        found.update(self._of_hour)
        return [(str(reason), count) for reason, count in found.most_common() if count > 0]
