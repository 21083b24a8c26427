"""The nodes that share the state: each tells the others that it is there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.task import LoopingCall

from chapps_tw import __version__
from chapps_tw.application.part import Part
from chapps_tw.config.checks import port_and_interface
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState, StateUnavailable

# Seconds between two announcements, and for which one holds: a node that has not made three is not there any more.
_EVERY = 10.0
_TTL = 35.0
# Seconds that a stop waits until the others know.
_STOP = 1.0


class Nodes(Part):
    """Announces this node, and lists all."""

    def __init__(self, settings: Settings, reactor: Any, state: LiveState) -> None:
        self._name = settings.node
        self._about = {
            "name": settings.node,
            "api": api_address(settings.api.listen),
            "version": __version__,
            "processes": settings.chapps.processes,
            "started": round(time.time(), 3),
        }
        self._reactor = reactor
        self._state = state
        self._announcing = LoopingCall(self._announce)
        self._announcing.clock = reactor

    async def all(self) -> Sequence[Mapping[str, Any]]:
        """Return what the nodes say about themselves, by name; this one included.

        :raises StateUnavailable: if the state is.
        """
        found = [json.loads(each) for each in await self._tell(_TTL)]
        return sorted(({**each, "this": each["name"] == self._name} for each in found), key=lambda each: each["name"])

    def _tell(self, ttl: float) -> Awaitable[list[str]]:
        return self._state.announce(self._name, json.dumps(self._about), ttl)

    async def _announce(self) -> None:
        with suppress(StateUnavailable):
            await self._tell(_TTL)

    def start(self) -> None:
        """Announce this node from now on."""
        self._announcing.start(_EVERY)

    async def stop(self) -> None:
        """Say that it is not there any more, if that takes no time."""
        if self._announcing.running:
            self._announcing.stop()
            with suppress(StateUnavailable, TooLate):
                await Deferred.fromCoroutine(self._take_leave()).addTimeout(_STOP, self._reactor)

    async def _take_leave(self) -> None:
        await self._tell(0.0)


def api_address(endpoint: str) -> str:
    """Return the URL of an endpoint of the HTTP API as seen from here; ``""`` if it has none."""
    port, interface = port_and_interface(endpoint)
    if port < 0:
        return ""
    host = socket.gethostname() if interface in ("", "0.0.0.0", "::") else interface
    scheme = "https" if endpoint.startswith("ssl:") else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
