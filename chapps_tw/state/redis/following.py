"""Following a Redis master that the Sentinels move."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall

EVERY = 1.0
"""Seconds after which the Sentinels are asked again."""


class Following:
    """Leaves a server that is not the master any more.

    After a failover by hand the old master answers for ten seconds before it is demoted, and what it counts is lost.

    :param moved: tells whether the master is elsewhere by now; ``None`` where it never is.
    :param leave: called then.
    :param reactor: for times.
    """

    def __init__(self, moved: Callable[[], Awaitable[bool]] | None, leave: Callable[[str], None], reactor: Any) -> None:
        self._moved = moved
        self._leave = leave
        self._looking: Deferred[None] = succeed(None)
        self._loop = LoopingCall(self._look)
        self._loop.clock = reactor

    def start(self) -> None:
        """Look again and again."""
        if self._moved is not None:
            self._loop.start(EVERY, now=False).addErrback(lambda failure: failure.trap(CancelledError))

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()
            self._looking.cancel()

    def _look(self) -> Deferred[None]:
        self._looking = Deferred.fromCoroutine(self._leave_if_moved())
        return self._looking

    async def _leave_if_moved(self) -> None:
        if self._moved is not None and await self._moved():
            self._leave("it is not the master any more")
