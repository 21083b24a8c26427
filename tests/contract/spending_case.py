"""What the promises about spending share."""

from __future__ import annotations

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Usage
from tests.contract.state_case import StateCase
from tests.support.charges import charge, usage_of, window_of

ACCEPTED, REPEATED, EXCEEDED, TOO_SOON = Outcome.ACCEPTED, Outcome.REPEATED, Outcome.EXCEEDED, Outcome.TOO_SOON


class SpendingCase(StateCase):
    """Counting messages."""

    async def usage(self, user: str = "bob") -> Usage:
        return await usage_of(self.state, user)

    async def used(self, user: str = "bob") -> int:
        return (await self.usage(user)).used

    async def reset(self, *users: str) -> list[int]:
        return await self.state.reset([window_of(charge(user)) for user in users])
