"""Which process listens where: one alone, the main process, or a worker."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from twisted.internet.interfaces import IListeningPort

from chapps_tw.application.endpoints import listen
from chapps_tw.config.checks import Place, places
from chapps_tw.config.settings import Settings
from chapps_tw.sockets.shared import SharedSocket


class Opened(NamedTuple):
    """A port.

    :ivar lent: whether another process keeps using it.
    """

    port: IListeningPort
    lent: bool


class Ports(Protocol):
    """Opens ports."""

    def open(self, where: Place, factory: Any) -> Opened | None:
        """Listen at a place; return ``None`` if another process does.

        :raises StartError: on failure.
        """


class OwnPorts:
    """Those of a process that does everything."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor

    def open(self, where: Place, factory: Any) -> Opened:
        port = listen(self._settings, where, self._reactor, factory)
        return Opened(port, where.endpoint.removeprefix("haproxy:").startswith("systemd:"))


class MainPorts(OwnPorts):
    """Those of the main process: it holds the ports for Postfix open, and accepts connections of HTTP only.

    :ivar held: the descriptors of the ports for Postfix, in the order of the listeners.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        super().__init__(settings, reactor)
        self.held: list[int] = []

    def open(self, where: Place, factory: Any) -> Opened:
        opened = super().open(where, factory)
        if where.listener:
            port: Any = opened.port
            port.stopReading()
            self.held.append(port.fileno())
        return opened


class WorkerPorts:
    """Those of a worker: it accepts connections of Postfix, on ports that the main process holds.

    :param held: the descriptors, in the order of the listeners.
    :param is_first: returns whether no other worker has fewer connections.
    """

    def __init__(self, settings: Settings, reactor: Any, held: Sequence[int], is_first: Callable[[], bool]) -> None:
        names = [place.listener for place in places(settings) if place.listener]
        self._held = dict(zip(names, held, strict=True))
        self._settings = settings
        self._reactor = reactor
        self._is_first = is_first

    def open(self, where: Place, factory: Any) -> Opened | None:
        if not where.listener:
            return None
        shared = SharedSocket(self._held[where.listener], self._is_first, self._reactor)
        there = where._replace(endpoint=_of_shared_socket(where.endpoint))
        return Opened(listen(self._settings, there, shared, factory), lent=True)


def _of_shared_socket(endpoint: str) -> str:
    """Return the endpoint for a socket that was made for another one: nothing remains to be done for its address."""
    proxy = "haproxy:" if endpoint.startswith("haproxy:") else ""
    if not endpoint.removeprefix(proxy).startswith(("unix:", "systemd:")):
        return endpoint
    backlog = re.search(r":backlog=\d+", endpoint)
    return f"{proxy}tcp:0{backlog[0] if backlog else ''}"
