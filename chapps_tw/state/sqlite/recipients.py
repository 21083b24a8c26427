"""An account that counts distinct recipients: each counts from the last message to it."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeAlias

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Usage
from chapps_tw.state.sqlite.claims import MAX_UNITS, Claim, Request
from chapps_tw.state.sqlite.journal import Journal

Row: TypeAlias = tuple[bytes, bytes, float, float]
"""A recipient in the file: the key of its account; its digest; epoch seconds of the last message to it; seconds that
it has to be kept."""

# Bytes of an account without recipients, and of a recipient in one window.
_ACCOUNT_BYTES, _RECIPIENT_BYTES = 1500, 250

_ACCEPTED, _REPEATED, _EXCEEDED = Outcome.ACCEPTED, Outcome.REPEATED, Outcome.EXCEEDED


class _Window(OrderedDict[bytes, float]):
    """The recipients of the last seconds, with the time of the last message to each, in order of time.

    :ivar asked: when it was last used.
    """

    asked = 0.0


class RecipientAccount:
    """An account in memory, with the recipients of each window. :meth:`advance` has to be called before the others.

    :param key: of the account in the file.
    :param rows: its recipients in the file, in order of time.
    :ivar changed, keep, widened, accounted, turn: as in :class:`~chapps_tw.state.sqlite.messages.Messages`, with
        digests instead of numbers.
    """

    def __init__(self, key: bytes, rows: Iterable[Row], now: float) -> None:
        self.key = key
        self.changed: set[bytes] = set()
        self.keep = 0.0
        self.widened = False
        self.accounted = 0
        self.turn = 0
        self._now = now
        self._windows: dict[float, _Window] = {}
        kept = [(mark, at, keep) for _, mark, at, keep in rows if at + keep > now]
        if kept:
            # Keeps the recipients until a charge says for how long.
            self.keep = max(keep for _, _, keep in kept)
            self._windows[self.keep] = window = _Window((mark, at) for mark, at, _ in kept)
            window.asked = now
            self._count_from_now(now)

    @property
    def size(self) -> int:
        """Size in bytes, by estimate."""
        return _ACCOUNT_BYTES + _RECIPIENT_BYTES * sum(map(len, self._windows.values()))

    @classmethod
    def read(cls, db: sqlite3.Cursor, journal: Journal, key: bytes, now: float) -> RecipientAccount:
        """Return the account with a key in the file. The journal has nothing of it."""
        return cls(key, db.execute("SELECT * FROM recipient WHERE account = ? ORDER BY at", (key,)), now)

    def write(self, db: sqlite3.Cursor, journal: Journal) -> None:
        """Write what has changed to the file."""
        key, keep = self.key, self.keep
        if self.widened:
            db.execute("UPDATE recipient SET keep = ? WHERE account = ? AND keep < ?", (keep, key, keep))
        longest = self._windows[keep]
        rows = [(key, mark, longest[mark], keep) for mark in self.changed if mark in longest]
        db.executemany("INSERT OR REPLACE INTO recipient (account, recipient, at, keep) VALUES (?, ?, ?, ?)", rows)
        self.widened = False
        self.changed.clear()

    def delete(self, db: sqlite3.Cursor, journal: Journal) -> None:
        """Delete everything from the file."""
        db.execute("DELETE FROM recipient WHERE account = ?", (self.key,))

    def usage(self, seconds: float) -> Usage:
        """Return what a window contains."""
        window = self._windows.get(seconds) or self._part(seconds)
        last = max((next(reversed(each.values()), 0.0) for each in self._windows.values()), default=0.0)
        return Usage(len(window), last, next(iter(window.values()), 0.0))

    def advance(self, now: float) -> None:
        """Remove recipients that have left the windows."""
        if now < self._now:
            self._count_from_now(now)
        self._now = now
        for seconds, window in self._windows.items():
            end = now - seconds
            while window and next(iter(window.values())) <= end:
                window.popitem(last=False)

    def _count_from_now(self, now: float) -> None:
        """Count recipients with a time in the future, from before the clock was set back, from now."""
        for window in self._windows.values():
            for mark in reversed(window):
                if window[mark] <= now:
                    break
                window[mark] = now
                self.changed.add(mark)

    def _part(self, seconds: float) -> _Window:
        """Return a window that is not in use."""
        end = self._now - seconds
        longest = self._windows.get(self.keep) or _Window()
        return _Window((mark, at) for mark, at in longest.items() if at > end)

    def _use(self, seconds: float) -> None:
        """Keep a window, and the recipients for as long as it needs them."""
        window = self._windows.get(seconds)
        if window is None:
            window = self._windows[seconds] = self._part(seconds)
            if seconds > self.keep:
                self.keep = seconds
                self.widened = len(window) > 0
        window.asked = self._now
        if len(self._windows) > 1:
            self._drop_unused()

    def _drop_unused(self) -> None:
        """Drop windows that were not used for their own length."""
        used = {seconds: each for seconds, each in self._windows.items() if self._now - each.asked <= seconds}
        if len(used) < len(self._windows):
            self._windows = used
            self.keep = max(used)

    def claim(self, request: Request, charge: Charge) -> Claim:
        """Return what a charge would do; change nothing."""
        window = self._windows.get(charge.window)
        if window is None:
            window = self._part(charge.window)
        used, mark = len(window), request[1]
        if not mark or mark in window:
            return _REPEATED, used, used, 0
        if used < min(charge.limit, MAX_UNITS):
            return _ACCEPTED, used + 1, used, 1
        return _EXCEEDED, used, used, 1

    def wait(self, request: Request, charge: Charge, claim: Claim) -> float:
        """Return the seconds until a charge that does not fit may fit; 0.0 if waiting does not help."""
        if not charge.limit:
            return 0.0
        window = self._windows.get(charge.window) or self._part(charge.window)
        return next(iter(window.values())) + charge.window - self._now

    def take(self, request: Request, charge: Charge, target: int) -> bool:
        """Do what a charge claims; return whether anything has to be written."""
        self._use(charge.window)
        mark = request[1]
        if not mark:
            return self.widened
        for window in self._windows.values():
            window[mark] = self._now
            window.move_to_end(mark)
        self.changed.add(mark)
        return True

    def give_back(self, request: Request) -> bool:
        """Do nothing: distinct recipients are not given back."""
        return False
