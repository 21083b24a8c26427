"""The part that monitors the state store and the database."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from twisted.internet.task import LoopingCall

from chapps_tw.application.part import Part
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import StateUnavailable

# Seconds between pings of the state store and the database.
PING_SECONDS = 10.0


class Health(Part):
    """Pings the state store and the database, so that failures are noticed without traffic too.

    :param pings: raise StateUnavailable or BookUnavailable on failure.
    """

    def __init__(self, reactor: Any, *pings: Callable[[], Awaitable[object]]) -> None:
        self._pings = pings
        self._pinging = LoopingCall(self._ping)
        self._pinging.clock = reactor

    async def _ping(self) -> None:
        for ping in self._pings:
            with suppress(StateUnavailable, BookUnavailable):
                await ping()

    def start(self) -> None:
        """Start pinging."""
        self._pinging.start(PING_SECONDS)

    def stop(self) -> None:
        """Stop pinging."""
        if self._pinging.running:
            self._pinging.stop()
