"""Counting as it is meant: everything is kept in plain dicts, and summed anew for each answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Spent, Unit, Usage, Window

DISTINCT = Unit.DISTINCT_RECIPIENTS


@dataclass
class Entry:
    """A message, or a distinct recipient, in an account.

    :ivar held: seconds after which it is given back; ``inf`` if it counts for good.
    """

    time: float
    cost: int
    held: float = inf
    seen: set[str] = field(default_factory=set)


class Judgement(NamedTuple):
    """Whether a charge fits. ``order`` is that in which those that do not are told."""

    outcome: Outcome
    order: float
    wait: float = 0.0


FITS = Judgement(Outcome.ACCEPTED, -1.0)
HOPELESS = Judgement(Outcome.EXCEEDED, inf)


class SpendingModel:
    """What a LiveState is to answer. ``now`` is set from outside."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.accounts: dict[Account, dict[str, Entry]] = {}
        self.last: dict[Account, float] = {}
        self._longest: dict[Account, float] = {}
        self._messages = 0

    def inside(self, account: Account, seconds: float) -> dict[str, Entry]:
        """Return what the last seconds of an account contain."""
        return {
            name: entry
            for name, entry in self.accounts.get(account, {}).items()
            if entry.time > self.now - seconds and self.now < entry.time + entry.held
        }

    def used(self, account: Account, seconds: float) -> int:
        return sum(entry.cost for entry in self.inside(account, seconds).values())

    def peek(self, message: Message, charges: Sequence[Charge]) -> Spent:
        return self.spend(message, charges, dry=True)

    def spend(self, message: Message, charges: Sequence[Charge], dry: bool = False) -> Spent:
        accounts, last = self.accounts, self.last
        self.accounts, self.last = self._known(charges), dict(last)
        self._messages += 1
        spent = self._decide(message._replace(instance=message.instance or f"\0{self._messages}"), charges)
        if dry:
            self.accounts, self.last = accounts, last
        return spent

    def _known(self, charges: Sequence[Charge]) -> dict[Account, dict[str, Entry]]:
        """Return the accounts without what has left the longest window; what is in the future counts from now."""
        known = dict(self.accounts)
        for account, _, _, _, window, _, _ in charges:
            self._longest[account] = max(window, self._longest.get(account, 0.0))
            known[account] = {
                name: Entry(min(entry.time, self.now), entry.cost, entry.held, set(entry.seen))
                for name, entry in self.inside(account, self._longest[account]).items()
            }
        return known

    def _decide(self, message: Message, charges: Sequence[Charge]) -> Spent:
        judgements = [self._judge(message, charge) for charge in charges]
        worst = max(judgements, key=lambda each: each.order)
        changed = False
        if worst is FITS:
            # All are compared before the first is changed: several may share an account.
            changed = any([self._extra(message, charge) for charge in charges] + [self._grows(message, charges)])
            for charge in charges:
                self._count(message, charge)
        elif message.whole:
            for charge in charges:
                if charge.unit != DISTINCT:
                    self.accounts[charge.account].pop(message.instance, None)
        used = tuple(self.used(charge.account, charge.window) for charge in charges)
        if worst is FITS:
            return Spent(Outcome.ACCEPTED if changed else Outcome.REPEATED, -1, used, 0.0)
        decisive = judgements.index(worst)
        return Spent(worst.outcome, decisive, used, worst.wait)

    def _judge(self, message: Message, charge: Charge) -> Judgement:
        inside, known = self.inside(charge.account, charge.window), self._own(message, charge) is not None
        last = min(self.last.get(charge.account, -inf), self.now)
        if charge.unit != DISTINCT and not known and self.now - last < charge.min_delta:
            wait = last + charge.min_delta - self.now
            return Judgement(Outcome.TOO_SOON, wait, wait)
        used, extra, most = self.used(charge.account, charge.window), self._extra(message, charge), charge.limit
        if charge.unit != DISTINCT:
            most += charge.margin
        if extra <= 0 or ((known or used < charge.limit) and used + extra <= most):
            return FITS
        back = {message.instance} if message.whole and charge.unit != DISTINCT else set()
        rest = [entry.time for name, entry in inside.items() if name not in back]
        if not charge.limit or (_is_replaced(message, charge) and charge.amount > most):
            return HOPELESS
        wait = min(rest) + charge.window - self.now
        return Judgement(Outcome.EXCEEDED, wait, wait)

    def _own(self, message: Message, charge: Charge) -> Entry | None:
        return self.accounts[charge.account].get(message.instance) if charge.unit != DISTINCT else None

    def _cost(self, message: Message, charge: Charge) -> int:
        """Return what a message costs its account, all in all."""
        own = self._own(message, charge) or Entry(self.now, 0)
        if _is_replaced(message, charge):
            return charge.amount or max(own.cost, 1)
        return own.cost + (message.recipient not in own.seen)

    def _extra(self, message: Message, charge: Charge) -> int:
        """Return what it costs a window more than before."""
        inside = self.inside(charge.account, charge.window)
        if charge.unit == DISTINCT:
            return int(message.recipient not in inside) if message.recipient else 0
        own = self._own(message, charge)
        if own is None:
            return self._cost(message, charge)
        return self._cost(message, charge) - own.cost if message.instance in inside else 0

    def _grows(self, message: Message, charges: Sequence[Charge]) -> bool:
        owns = [(self._own(message, charge), charge) for charge in charges]
        return any(own is not None and own.cost != self._cost(message, charge) for own, charge in owns)

    def _count(self, message: Message, charge: Charge) -> None:
        entries = self.accounts[charge.account]
        if charge.unit == DISTINCT:
            if message.recipient:
                entries[message.recipient] = Entry(self.now, 1)
                self.last[charge.account] = self.now
            return
        held = inf if message.whole or not message.reserve else message.reserve
        cost = self._cost(message, charge)
        if message.instance not in entries:
            entries[message.instance] = Entry(self.now, 0, held)
            self.last[charge.account] = self.now
        entry = entries[message.instance]
        entry.cost = cost
        entry.held = max(entry.held, inf if held == inf else 0.0)
        if not message.whole:
            entry.seen.add(message.recipient)

    def usage(self, windows: Sequence[Window]) -> list[Usage]:
        found = []
        for account, _, seconds in windows:
            times = [min(entry.time, self.now) for entry in self.inside(account, seconds).values()]
            last = min(self.last.get(account, 0.0), self.now)
            found.append(Usage(self.used(account, seconds), last, min(times, default=0.0)))
        return found

    def reset(self, windows: Sequence[Window]) -> list[int]:
        used = [self.used(account, seconds) for account, _, seconds in windows]
        for account, _, _ in windows:
            self.accounts.pop(account, None)
            self.last.pop(account, None)
        return used


def _is_replaced(message: Message, charge: Charge) -> bool:
    """Return whether ``amount`` replaces what a message has cost."""
    return charge.unit != DISTINCT and (message.whole or charge.unit != Unit.RECIPIENTS)
