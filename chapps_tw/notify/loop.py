"""Work that is repeated, with pauses that an alarm ends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import StateUnavailable

# Seconds until another turn after one that failed: because of a dependency, and for another reason.
_AWAY: Final = 2.0
_FAILED: Final = 30.0


class Loop:
    """Repeats a turn until it is stopped. A turn that fails is repeated later.

    :param turn: returns the seconds until the next turn.
    :param name: of the work, for the log.
    """

    _log = Logger()

    def __init__(self, reactor: Any, turn: Callable[[], Awaitable[float]], name: str = "Notices") -> None:
        self._reactor = reactor
        self._turn = turn
        self._name = name
        self._stopping = False
        self._woken = False
        self._pause: Deferred[None] | None = None
        self._timer: IDelayedCall | None = None
        self._ended: Deferred[None] | None = None

    def start(self) -> None:
        """Begin with the first turn."""
        self._ended = Deferred.fromCoroutine(self._run())

    def wake(self) -> None:
        """End the pause, or skip the next one."""
        pause, self._pause = self._pause, None
        if pause is None:
            self._woken = True
            return
        if self._timer and self._timer.active():
            self._timer.cancel()
        pause.callback(None)

    async def stop(self) -> None:
        """Wait for the end of a turn, and begin no other."""
        self._stopping = True
        self.wake()
        if self._ended:
            await self._ended

    async def _run(self) -> None:
        while not self._stopping:
            await self._wait(await self._next())

    async def _next(self) -> float:
        try:
            return await self._turn()
        except (BookUnavailable, StateUnavailable):
            return _AWAY
        except Exception:
            self._log.failure("{name} failed", name=self._name)
            return _FAILED

    async def _wait(self, seconds: float) -> None:
        if not self._woken:
            self._pause = pause = Deferred[None]()
            self._timer = self._reactor.callLater(seconds, self.wake)
            await pause
        self._woken = False
