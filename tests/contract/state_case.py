"""What the promises of a LiveState share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chapps_tw.interfaces.state import LiveState

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object


class StateCase(Base):
    """A state, made anew for each test by whoever mixes this in."""

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    def another(self) -> LiveState:
        """Return another state on the same store, as of another process; the same one if there can be no other."""
        raise NotImplementedError

    async def restart(self) -> None:
        """Replace ``state`` by a new one on the same store, as after a restart of the service."""
        raise NotImplementedError
