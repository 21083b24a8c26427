"""An account that counts messages, recipients or bytes: what a charge costs it, and whether it fits."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from heapq import heappush

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Unit
from chapps_tw.state.sqlite import chunks
from chapps_tw.state.sqlite.claims import MAX_UNITS, Claim, Request
from chapps_tw.state.sqlite.columns import Columns, Row
from chapps_tw.state.sqlite.journal import Journal
from chapps_tw.state.sqlite.messages import Messages

_RECIPIENTS = Unit.RECIPIENTS
_ACCEPTED, _REPEATED, _EXCEEDED, _TOO_SOON = Outcome.ACCEPTED, Outcome.REPEATED, Outcome.EXCEEDED, Outcome.TOO_SOON


class CountedAccount(Messages):
    """An account in memory. :meth:`advance` has to be called before the other methods."""

    __slots__ = ()

    @classmethod
    def read(cls, db: sqlite3.Cursor, journal: Journal, key: bytes, now: float) -> CountedAccount:
        """Return the account with a key in the file.

        :raises sqlite3.DatabaseError: if its part of the file is damaged.
        """
        stored, keep = Columns(0), 0.0
        for chunk, kept in chunks.read(db, key):
            keep = max(keep, kept) if chunk.times[-1] + kept > now else keep
            if stored.times:
                stored.extend(chunk)
            else:
                stored = chunk
        unfolded = journal.unfolded(db, key)
        if unfolded and unfolded.rows:
            rows = sorted(unfolded.rows.values())
            stored = stored if stored.times else Columns(rows[0][0])
            stored.update(rows)
            keep = max(keep, unfolded.keep) if stored.times[-1] + unfolded.keep > now else keep
        return cls(key, stored, keep, now)

    def write(self, db: sqlite3.Cursor, journal: Journal) -> None:
        """Write what has changed to the file."""
        if self.is_new:
            chunks.delete(db, self.key)
        elif self.widened:
            chunks.widen(db, self.key, self.keep)
        journal.add(self.key, self.keep, self.rows(), self.is_new)
        self.is_new = self.widened = False
        self.changed.clear()

    def delete(self, db: sqlite3.Cursor, journal: Journal) -> None:
        """Delete everything from the file."""
        chunks.delete(db, self.key)
        journal.delete(self.key)

    def claim(self, request: Request, charge: Charge) -> Claim:
        """Return what a charge would do; change nothing."""
        _, unit, amount, limit, seconds, margin, min_delta = charge
        instance, mark, whole, _ = request
        number, own = self._find(instance)
        if unit is _RECIPIENTS and not whole:
            # A match across two digests is as unlikely as a collision of two digests.
            target = own if own and mark in self._seen.get(number, b"") else own + 1
        else:
            target = min(amount, MAX_UNITS) if amount > 0 else own or 1
        window = self._windows.get(seconds) or self._sum(seconds, self._now)
        used = window.used
        mine = own if number >= window.first else 0
        refused = used - mine if whole else used
        if target == own:
            return _REPEATED, used, refused, target
        if mine != own:
            # A message that has left this window costs nothing more in it.
            return _ACCEPTED, used, refused, target
        if not own and self._now - self._last < min_delta:
            return _TOO_SOON, used, refused, target
        if target > own:
            limit = min(limit, MAX_UNITS)
            if not (own or used < limit) or used - own + target > limit + margin:
                return _EXCEEDED, used, refused, target
        return _ACCEPTED, used - own + target, refused, target

    def wait(self, request: Request, charge: Charge, claim: Claim) -> float:
        """Return the seconds until a charge that does not fit may fit; 0.0 if waiting does not help."""
        if claim[0] is _TOO_SOON:
            return self._last + charge.min_delta - self._now
        most = min(charge.limit, MAX_UNITS) + charge.margin
        instance, _, whole, _ = request
        if not charge.limit or (claim[3] > most and (whole or charge.unit is not _RECIPIENTS)):
            return 0.0
        window = self._windows.get(charge.window) or self._sum(charge.window, self._now)
        oldest = self._oldest(window, self._find(instance)[0] if whole else -1)
        return 0.0 if oldest is None else oldest + charge.window - self._now

    def take(self, request: Request, charge: Charge, target: int) -> bool:
        """Do what a charge claims; return whether anything has to be written."""
        self._use(charge.window)
        instance, mark, whole, reserve = request
        number, own = self._find(instance)
        if not own:
            self._count(request, charge, target)
            return True
        settled = number in self._settle and (whole or not reserve)
        if settled:
            del self._settle[number]
        if target != own:
            self._change(number, target)
            if charge.unit is _RECIPIENTS and not whole:
                self._mark(number, mark)
        elif not settled:
            return self.widened
        self.changed.add(number)
        return True

    def _count(self, request: Request, charge: Charge, cost: int) -> None:
        """Count a new message."""
        instance, mark, whole, reserve = request
        now, windows = self._now, self._windows
        if charge.min_delta > self.keep:
            self._keep_for(charge.min_delta)
        number = self._append(now, cost, instance)
        if charge.unit is _RECIPIENTS and not whole:
            self._mark(number, mark)
        due = self._due
        for window in windows.values():
            window.used += cost
            if now + window.seconds < due:
                due = now + window.seconds
        if len(windows) > 1:
            self._drop_unused()
        if reserve and not whole:
            settle = self._settle[number] = now + reserve
            heappush(self._reservations, (settle, number))
            due = min(due, settle)
        self._due = due
        self._last = now
        self.changed.add(number)

    def adopt(self, past: Sequence[Row], seconds: float) -> CountedAccount:
        """Count messages of the past; return the account that has them: this one, or another in its place.

        :param past: at least one, in order of time, with any numbers. None was counted before.
        :param seconds: that they count for.
        """
        if past[0][2] < self._last:
            return self._inserted(past, seconds)
        self._use(seconds)
        for _, instance, at, cost, _, _ in past:
            self.changed.add(self._append(at, cost, instance))
        self._last = past[-1][2]
        self._sum_anew()
        return self

    def _inserted(self, past: Sequence[Row], seconds: float) -> CountedAccount:
        """Return an account with all messages in order of time, which replaces what is in the file."""
        self.changed.update(range(self._start, self._base + len(self._times)))
        counted = [row for row in self.rows() if row[0] >= self._start and row[3]]
        columns = Columns.of_rows(sorted([*counted, *past], key=lambda row: row[2]))
        account = CountedAccount(self.key, columns, max(self.keep, seconds), self._now)
        account.changed = set(range(len(counted) + len(past)))
        account.is_new = True
        account._last = self._last
        return account

    def counts(self, instance: bytes) -> bool:
        """Return whether a message is counted."""
        return self._find(instance)[0] >= 0

    def give_back(self, request: Request) -> bool:
        """Give back the cost of a message; return whether anything has to be written."""
        number, own = self._find(request[0])
        if own:
            self._give_back(number)
            self.changed.add(number)
        return own > 0
