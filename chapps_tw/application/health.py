"""Noticing that the state or the database is away, as a part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from twisted.internet.task import LoopingCall

from chapps_tw.application.part import Part
from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import StateUnavailable

# How often the state store and the database are asked whether they are there.
PING_SECONDS = 10.0


class Health(Part):
    """Asks the state and the database whether they are there, also while nobody else asks them anything.

    :param pings: raise StateUnavailable or BookUnavailable when it is not.
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
        """Ask for the first time."""
        self._pinging.start(PING_SECONDS)

    def stop(self) -> None:
        """Ask no more."""
        if self._pinging.running:
            self._pinging.stop()
