# mypy: allow-untyped-calls
"""Listening on a socket that several processes share.

Another process has made it, and hands it over. Connections that wait in it are lost only when the last process closes
it, unlike with SO_REUSEPORT, where each process has its own queue.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.protocols.tls import TLSMemoryBIOFactory

# Seconds that a process leaves a connection to those that have fewer.
_COURTESY: Final = 0.005


class _Fair(tcp.Port):
    """Shares connections evenly. Postfix keeps them open, so that otherwise one process would do most of the work.

    It accepts one at a time, where Twisted accepts up to a hundred. If other processes have fewer connections, they may
    go first.

    :ivar is_first: returns whether none has fewer.
    """

    is_first: Callable[[], bool]
    reactor: Any
    _waiting: IDelayedCall | None = None

    def doRead(self) -> None:
        if self.is_first():
            self._accept()
        else:
            super().stopReading()
            self._waiting = self.reactor.callLater(_COURTESY, self._go_on)

    def _go_on(self) -> None:
        self._waiting = None
        self._accept()
        self.startReading()

    def _accept(self) -> None:
        self.numberAccepts = 1
        super().doRead()

    def stopReading(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        super().stopReading()


class _FairUnix(_Fair, unix.Port):
    """Likewise, for a unix socket."""


class SharedSocket:
    """Takes the place of the reactor for an endpoint, which then listens on a socket that exists.

    :param descriptor: of the socket, which belongs to this object from now on.
    :param is_first: returns whether no other process has fewer connections.
    :param reactor: the reactor.
    """

    def __init__(self, descriptor: int, is_first: Callable[[], bool], reactor: Any) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.setblocking(False)
        self._is_first = is_first
        self._reactor = reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        """Listen for an endpoint ``tcp:``."""
        return self._listen(factory, backlog)

    def listenSSL(
        self, port: int, factory: Any, contextFactory: Any, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """Listen for an endpoint ``ssl:``."""
        return self._listen(TLSMemoryBIOFactory(contextFactory, False, factory), backlog)

    def _listen(self, factory: Any, backlog: int) -> IListeningPort:
        name = self._socket.getsockname()
        port: Any
        if self._socket.family == socket.AF_UNIX:
            port = _FairUnix(name, factory, backlog, stat.S_IMODE(os.stat(name).st_mode), self._reactor)
        else:
            port = _Fair(name[1], factory, backlog, name[0], self._reactor)
        port.is_first = self._is_first
        # As adoptStreamPort() does, which however sets another backlog, and another mode of a unix socket.
        port._preexistingSocket = self._socket
        port.startListening()
        return port  # type: ignore[no-any-return]
