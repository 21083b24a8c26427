"""What the promises about spending share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chapps_tw.interfaces.state import LiveState, Outcome, Usage
from tests.support.charges import charge, usage_of, window_of

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object

ACCEPTED, REPEATED, EXCEEDED, TOO_SOON = Outcome.ACCEPTED, Outcome.REPEATED, Outcome.EXCEEDED, Outcome.TOO_SOON


class SpendingCase(Base):
    """Counting messages.

    Whoever mixes it in provides ``state``, made anew for each test, ``advance`` and ``restart``.
    """

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Replace ``state`` by a new one on the same store, as after a restart of the service."""
        raise NotImplementedError

    async def usage(self, user: str = "bob") -> Usage:
        return await usage_of(self.state, user)

    async def used(self, user: str = "bob") -> int:
        return (await self.usage(user)).used

    async def reset(self, *users: str) -> list[int]:
        return await self.state.reset([window_of(charge(user)) for user in users])
