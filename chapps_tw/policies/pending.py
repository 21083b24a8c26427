"""Decisions that depend on what the request costs. All policies of a listener are charged in one operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from chapps_tw.interfaces.reply import Reply
from chapps_tw.interfaces.state import Charge, Spent
from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR

Spend: TypeAlias = Callable[[Sequence[Charge]], Awaitable[Spent]]
"""Charges a request, all or nothing; or tells what that would result in."""


class PendingDecision(NamedTuple):
    """A decision that depends on whether the charges of a request fit.

    A policy returns it instead of a decision. Nothing is charged if a later policy stops the mail, or if the charges
    of another policy do not fit.

    :ivar charges: what may stop the mail.
    :ivar conclude: takes the request, charges and their result, and returns the decision: usually all charges, without
        those that do not fit and let the mail pass.
    :ivar reserve: as in :class:`~chapps_tw.interfaces.state.Message`. Charges of several policies are reserved if those
        of each may be.
    :ivar advisory: what cannot stop the mail. It is left out if it does not fit.
    """

    charges: Sequence[Charge]
    conclude: Callable[[OutboundPPR, Sequence[Charge], Spent], Decision]
    reserve: float = 0.0
    advisory: Sequence[Charge] = ()


Decided: TypeAlias = Decision | PendingDecision
"""What a policy decides."""


class Asked(NamedTuple):
    """A decision that depends on a reply of the live state. A policy may return it instead of an awaitable.

    :ivar conclude: takes the reply, and returns the decision, or an awaitable of it.
    """

    reply: Reply[Any]
    conclude: Callable[[Any], Decided | Awaitable[Decided]]


async def decided(found: Decided | Asked | Awaitable[Decided]) -> Decided:
    """Return what a policy decides, whatever it has to wait for."""
    if isinstance(found, Asked):
        found = found.conclude(await found.reply)
    return found if isinstance(found, (Decision, PendingDecision)) else await found


_Owned: TypeAlias = tuple[int, Charge]
"""The number of a policy, and one of its charges."""


async def charge(
    request: OutboundPPR, spend: Spend, peek: Spend, pending: Sequence[PendingDecision], enforced: Sequence[bool]
) -> Sequence[Decision | None]:
    """Charge a request for all policies, all or nothing, and return their decisions.

    What does not fit and cannot stop the mail is found out beforehand: a refused message would lose what it has cost
    before, and its place in the windows.

    :param enforced: whether each policy may stop the mail; otherwise it is in shadow mode.
    :returns: ``None`` for a policy that is not charged because another one stops the mail.
    """
    charging = _Charging(request, pending, enforced)
    left: list[_Owned] = []
    advisory: list[_Owned] = []
    for number, each in enumerate(pending):
        (left if enforced[number] else advisory).extend([(number, charge) for charge in each.charges])
        advisory.extend([(number, charge) for charge in each.advisory])
    await charging.until_it_fits(peek, advisory)
    left += advisory
    spent = await charging.until_it_fits(spend, left)
    decisions = charging.decisions
    if spent is not None:
        for number in {number for number, _ in left}:
            decisions[number] = decisions[number] or charging.conclude(number, left, spent)
    return decisions


class _Charging:
    """The decisions of a request that were pending.

    :ivar decisions: those that are made.
    """

    def __init__(self, request: OutboundPPR, pending: Sequence[PendingDecision], enforced: Sequence[bool]) -> None:
        self._request = request
        self._pending = pending
        self._enforced = enforced
        self.decisions: list[Decision | None] = [None] * len(pending)

    async def until_it_fits(self, ask: Spend, left: list[_Owned]) -> Spent | None:
        """Ask, and leave out what does not fit and lets the mail pass; return the result of the rest.

        :returns: ``None`` if a decision stops the mail, or if nothing is left.
        """
        while left:
            spent = await ask([charge for _, charge in left])
            if spent.decisive < 0:
                return spent
            number = left[spent.decisive][0]
            decision, before = self.conclude(number, left, spent), self.decisions[number]
            stopping = decision.stops and self._enforced[number]
            # One that only lets the mail pass, for a limit in shadow mode, must not hide that the mail is to be held.
            if stopping or before is None or before.action == "DUNNO":
                self.decisions[number] = decision
            if stopping:
                return None
            del left[spent.decisive]
        return None

    def conclude(self, number: int, left: Sequence[_Owned], spent: Spent) -> Decision:
        """Return the decision of a policy, given the result of all charges that are left."""
        places = [place for place, (owner, _) in enumerate(left) if owner == number]
        decisive = places.index(spent.decisive) if spent.decisive in places else -1
        own = Spent(spent.outcome, decisive, tuple([spent.used[place] for place in places]), spent.wait)
        return self._pending[number].conclude(self._request, [left[place][1] for place in places], own)
