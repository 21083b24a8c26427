"""An account that counts messages, recipients or bytes: what a charge costs it, and whether it fits."""

from __future__ import annotations

from heapq import heappush
from typing import ClassVar

from chapps_tw.interfaces.state import Charge, Outcome, Unit
from chapps_tw.state.sqlite.claims import MAX_UNITS, Claim, Request
from chapps_tw.state.sqlite.messages import Messages

_RECIPIENTS = Unit.RECIPIENTS
_ACCEPTED, _REPEATED, _EXCEEDED, _TOO_SOON = Outcome.ACCEPTED, Outcome.REPEATED, Outcome.EXCEEDED, Outcome.TOO_SOON


class CountedAccount(Messages):
    """An account in memory. :meth:`advance` has to be called before the other methods."""

    __slots__ = ()
    table: ClassVar = "message"

    def claim(self, request: Request, charge: Charge) -> Claim:
        """Return what a charge would do; change nothing."""
        number, own = self._find(request.instance)
        target = self._target(request, charge, number, own)
        window = self._windows.get(charge.window) or self._sum(charge.window, self._now)
        used = window.used
        mine = own if number >= window.first else 0
        refused = used - mine if request.whole else used
        if target == own:
            return _REPEATED, used, refused, target
        if mine != own:
            # A message that has left this window costs nothing more in it.
            return _ACCEPTED, used, refused, target
        if not own and self._now - self._last < charge.min_delta:
            return _TOO_SOON, used, refused, target
        if target > own:
            limit = charge.limit if charge.limit < MAX_UNITS else MAX_UNITS
            if not (own or used < limit) or used - own + target > limit + charge.margin:
                return _EXCEEDED, used, refused, target
        return _ACCEPTED, used - own + target, refused, target

    def _target(self, request: Request, charge: Charge, number: int, own: int) -> int:
        """Return the new cost of a message."""
        if _is_one_more(request, charge):
            # A match across two digests is as unlikely as a collision of two digests.
            return own if own and request.mark in self._seen[number - self._base] else own + 1
        amount = charge.amount
        if amount <= 0:
            return own or 1
        return amount if amount < MAX_UNITS else MAX_UNITS

    def wait(self, request: Request, charge: Charge, claim: Claim) -> float:
        """Return the seconds until a charge that does not fit may fit; 0.0 if waiting does not help."""
        if claim[0] is _TOO_SOON:
            return self._last + charge.min_delta - self._now
        most = min(charge.limit, MAX_UNITS) + charge.margin
        if not charge.limit or (claim[3] > most and not _is_one_more(request, charge)):
            return 0.0
        window = self._windows.get(charge.window) or self._sum(charge.window, self._now)
        oldest = self._oldest(window, self._find(request.instance)[0] if request.whole else -1)
        return 0.0 if oldest is None else oldest + charge.window - self._now

    def take(self, request: Request, charge: Charge, target: int) -> bool:
        """Do what a charge claims; return whether anything has to be written."""
        self._use(charge.window)
        number, own = self._find(request.instance)
        is_one_more = _is_one_more(request, charge)
        if not own:
            self._count(request, charge, target, request.mark if is_one_more else b"")
            return True
        settled = number in self._settle and (request.whole or not request.reserve)
        if settled:
            del self._settle[number]
        if target != own:
            self._change(number, target)
            if is_one_more:
                self._seen[number - self._base] += request.mark
                self._mark_bytes += len(request.mark)
        elif not settled:
            return self.widened
        self.changed.add(number)
        return True

    def _count(self, request: Request, charge: Charge, cost: int, mark: bytes) -> None:
        """Count a new message."""
        now = self._now
        if charge.min_delta > self.keep:
            self._keep_for(charge.min_delta)
        number = self._append(now, cost, request.instance, mark)
        for window in self._windows.values():
            window.used += cost
        if len(self._windows) > 1:
            self._drop_unused()
        if request.reserve and not request.whole:
            self._settle[number] = now + request.reserve
            heappush(self._reservations, (now + request.reserve, number))
        self._last = now
        self.changed.add(number)

    def give_back(self, request: Request) -> bool:
        """Give back the cost of a message; return whether anything has to be written."""
        number, own = self._find(request.instance)
        if own:
            self._give_back(number)
            self.changed.add(number)
        return own > 0


def _is_one_more(request: Request, charge: Charge) -> bool:
    """Return whether a request adds a recipient to the cost of its message."""
    return charge.unit is _RECIPIENTS and not request.whole
