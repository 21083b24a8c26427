"""Reads many connections with one descriptor of the reactor.

For each event of a descriptor, Twisted's reactor takes as long as parsing a policy request. The connections of Postfix
are therefore in an epoll of their own, which is itself one descriptor of the reactor (epoll descriptors can be nested:
epoll(7)). Only reading is done here. A connection with any other event, such as the end of its input, is returned to
the reactor, which then sees the same event.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_MAX_READ = 65536
# Connections that are read in a turn: their requests are answered together, some 5 ms later.
MAX_CONNECTIONS = 128
_KNOWN = (tcp.Server, unix.Server)


@implementer(IReadDescriptor)
class SharedReader:
    """Reads connections instead of their reactor. Their transports use it as their reactor.

    :param reactor: the reactor, which does everything but reading.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._transports: dict[int, Any] = {}
        self._epoll = select.epoll()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adopt(self, transport: Any) -> None:
        """Read a connection from now on. Transports of unknown types stay with the reactor."""
        if type(transport) in _KNOWN:
            transport.stopReading()
            transport.reactor = self
            transport.startReading()

    def addReader(self, transport: Any) -> None:
        """Start reading a connection."""
        number = transport.fileno()
        if number not in self._transports:
            if not self._transports:
                self._reactor.addReader(self)
            self._transports[number] = transport
            self._epoll.register(number, select.EPOLLIN)

    def removeReader(self, transport: Any) -> None:
        """Stop reading a connection."""
        number = transport.fileno()
        if self._transports.get(number) is transport:
            del self._transports[number]
            self._epoll.unregister(number)
            if not self._transports:
                self._reactor.removeReader(self)

    def fileno(self) -> int:
        """Return the descriptor of the epoll."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """Return the name for Twisted's log context."""
        return type(self).__name__

    def doRead(self) -> None:
        """Pass the data that has arrived to the protocols."""
        # First all system calls: between two of them, a processor forgets the code of the protocols.
        received: list[tuple[int, Any, bytes | None]] = []
        for number, event in self._epoll.poll(0, MAX_CONNECTIONS):
            transport = self._transports[number]
            received.append((number, transport, self._receive(transport) if event == select.EPOLLIN else b""))
        for number, transport, data in received:
            present: Any = self._transports.get(number)
            if present is not transport:
                # An earlier connection of this loop has closed it.
                continue
            if data:
                try:
                    transport.protocol.dataReceived(data)
                except Exception:
                    self._log.failure("a connection failed and is closed", Failure())
                    transport.abortConnection()
            elif data is not None:
                self.removeReader(transport)
                transport.reactor = self._reactor
                transport.startReading()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor stops."""

    @staticmethod
    def _receive(transport: Any) -> bytes | None:
        """Return data; ``b""`` at the end of the input or after an error; ``None`` if there is nothing to read."""
        try:
            received: bytes = transport.socket.recv(_MAX_READ)
        except BlockingIOError:
            return None
        except OSError:
            return b""
        return received


def adopter(reactor: Any) -> Callable[[Any], None]:
    """Return a function that lets a new :class:`SharedReader` read a transport; it does nothing without epoll."""
    return SharedReader(reactor).adopt if hasattr(select, "epoll") else _leave


def _leave(_transport: Any) -> None:
    """Leave a transport to the reactor."""
