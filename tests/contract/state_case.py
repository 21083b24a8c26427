"""What the promises of a LiveState share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.task import deferLater

from chapps_tw.interfaces.state import LiveState

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase as Base
else:
    Base = object


reactor: Any = installed_reactor


class StateCase(Base):
    """A state, made anew for each test by whoever mixes this in."""

    state: LiveState

    def advance(self, seconds: float) -> None:
        """Let the state's time go on."""
        raise NotImplementedError

    def another(self) -> LiveState:
        """Return another state on the same store, as of another process; the same one if there can be no other."""
        raise NotImplementedError

    async def turn(self) -> None:
        """Let the reactor go on: a state may write until then, and another of the same process cannot."""
        await deferLater(reactor, 0)

    async def restart(self) -> None:
        """Replace ``state`` by a new one on the same store, as after a restart of the service."""
        raise NotImplementedError
