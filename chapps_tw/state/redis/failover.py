"""Detection of a failover: the Sentinels have named another Redis master."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import LoopingCall

POLL_INTERVAL = 1.0
"""Seconds between queries to the Sentinels."""


class FailoverMonitor:
    """Leaves a server that is no longer the master.

    After a manual failover, the old master answers for up to ten seconds before it is demoted, and its writes are lost.

    :param moved: returns whether another server is the master now; ``None`` without Sentinels.
    :param leave: called with the reason if so.
    :param reactor: for timers.
    """

    def __init__(self, moved: Callable[[], Awaitable[bool]] | None, leave: Callable[[str], None], reactor: Any) -> None:
        self._moved = moved
        self._leave = leave
        self._checking: Deferred[None] = succeed(None)
        self._loop = LoopingCall(self._check)
        self._loop.clock = reactor

    def start(self) -> None:
        """Start polling."""
        if self._moved is not None:
            self._loop.start(POLL_INTERVAL, now=False).addErrback(lambda failure: failure.trap(CancelledError))

    def stop(self) -> None:
        """Stop polling."""
        if self._loop.running:
            self._loop.stop()
            self._checking.cancel()

    def _check(self) -> Deferred[None]:
        self._checking = Deferred.fromCoroutine(self._leave_if_moved())
        return self._checking

    async def _leave_if_moved(self) -> None:
        if self._moved is not None and await self._moved():
            self._leave("it is not the master any more")
