"""Decisions that depend on what the request costs. All policies of a listener are charged in one operation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from chapps_tw.interfaces.state import Charge, Spent
from chapps_tw.mail.decision import Decision

Spend: TypeAlias = Callable[[Sequence[Charge]], Awaitable[Spent]]
"""Charges a request, all or nothing; or tells what that would result in."""


class PendingDecision(NamedTuple):
    """A decision that depends on whether the charges of a request fit.

    A policy returns it instead of a decision. Nothing is charged if a later policy stops the mail, or if the charges
    of another policy do not fit.

    :ivar charges: at least one.
    :ivar conclude: takes charges and their result, and returns the decision. Usually all charges. If a charge did not
        fit and the decision lets the mail pass nevertheless, the others are charged without it, and may not fit either.
    :ivar reserve: as in :class:`~chapps_tw.interfaces.state.Message`. Charges of several policies are reserved if those
        of each may be.
    """

    charges: Sequence[Charge]
    conclude: Callable[[Sequence[Charge], Spent], Decision]
    reserve: float = 0.0


Decided: TypeAlias = Decision | PendingDecision
"""What a policy decides."""


async def settle(
    spend: Spend, pending: Sequence[PendingDecision], enforced: Sequence[bool], spent: Spent
) -> Sequence[Decision | None]:
    """Return the decisions of all policies. Each charge that does not fit but does not stop the mail is left out.

    :param spend: charges what is left then.
    :param enforced: whether each policy may stop the mail; otherwise it is in shadow mode.
    :param spent: the result of all charges together.
    :returns: ``None`` for a policy that is not charged because another one stops the mail.
    """
    decisions: list[Decision | None] = [None] * len(pending)
    left = [(number, charge) for number, each in enumerate(pending) for charge in each.charges]
    while spent.decisive >= 0:
        number = left[spent.decisive][0]
        decision = _conclude(pending, number, left, spent)
        stopping = decision.stops and enforced[number]
        earlier = decisions[number]
        # One that only lets the mail pass, for a limit in shadow mode, must not hide that the mail is to be held.
        if stopping or earlier is None or earlier.action == "DUNNO":
            decisions[number] = decision
        del left[spent.decisive]
        if stopping or not left:
            return decisions
        spent = await spend([charge for _, charge in left])
    for number in {number for number, _ in left}:
        if decisions[number] is None:
            decisions[number] = _conclude(pending, number, left, spent)
    return decisions


def _conclude(
    pending: Sequence[PendingDecision], number: int, left: Sequence[tuple[int, Charge]], spent: Spent
) -> Decision:
    """Return the decision of a policy, given the result of all charges that are left."""
    places = [place for place, (owner, _) in enumerate(left) if owner == number]
    decisive = places.index(spent.decisive) if spent.decisive in places else -1
    own = Spent(spent.outcome, decisive, tuple([spent.used[place] for place in places]), spent.wait)
    return pending[number].conclude([left[place][1] for place in places], own)
