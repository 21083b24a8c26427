"""One DNS question to one server, over UDP or TCP (RFC 1035, section 4.2)."""

from __future__ import annotations

from collections.abc import Callable
from socket import AF_INET, AF_INET6, SOCK_DGRAM, socket
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConnector, IReactorFDSet, IReactorTCP, IReadDescriptor
from twisted.internet.protocol import ClientFactory, connectionDone
from twisted.protocols.basic import Int16StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.dns.messages import Foreign, Query, Reply, may_answer
from chapps_tw.mail.network import Server

# More than we ask for, since some servers do not heed that.
_MAX_UDP_BYTES = 4096


class Unusable(Exception):
    """What a server did is of no use; another one may know better. Says what that was, to follow the server's name."""


@implementer(IReadDescriptor)
class Datagrams:
    """One question over UDP, from a port of its own: its number makes forged answers harder (RFC 5452).

    The reactor's own ports are not for one datagram: each writes a line into the log when it is opened,
    and one when it is closed.

    :param read: reads what was received; raises Foreign, Unreadable.
    :ivar reply: fails with Unusable, Unreadable.
    :raises OSError: when there is no socket to be had, or no way to the server.
    """

    def __init__(
        self, reactor: IReactorFDSet, asked: Query, server: Server, read: Callable[[bytes, Query], Deferred[Reply]]
    ) -> None:
        self.reply: Deferred[Reply] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._asked = asked
        self._read = read
        self._socket = socket(AF_INET6 if ":" in server[0] else AF_INET, SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(asked.wire)
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "DNS"

    def doRead(self) -> None:
        try:
            wire = self._socket.recv(_MAX_UDP_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.connectionLost(Failure())
            return
        if may_answer(wire, self._asked):
            self._read(wire, self._asked).addCallbacks(self._told, self._failed)

    def _told(self, reply: Reply) -> None:
        if not self.reply.called:
            self._close()
            self.reply.callback(reply)

    def _failed(self, failure: Failure) -> None:
        # The answer to another question is somebody else's: the right one may still come.
        if not self.reply.called and not failure.check(Foreign):
            self._close()
            self.reply.errback(failure)

    def connectionLost(self, reason: Failure) -> None:
        self._failed(Failure(Unusable("cannot be reached")))

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Int16StringReceiver):
    """The connection of a :class:`Conversation`."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.MAX_LENGTH = self.factory.most
        message = self.factory.query.wire
        self.transport.write(len(message).to_bytes(2) + message)

    def stringReceived(self, string: bytes) -> None:
        self.factory.hear(string)
        self.transport.abortConnection()

    def lengthLimitExceeded(self, length: int) -> None:
        self.factory.fail(f"answered with {length} octets, {self.MAX_LENGTH} are allowed")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.fail("closed the connection")


class Conversation(ClientFactory):
    """One question over TCP (RFC 7766).

    :param most: octets that the answer may have.
    :ivar received: the answer, in wire form. Fails with Unusable where there is none.
    :ivar query: what is asked.
    """

    protocol = _Stream
    # Else there are two lines in the log for each.
    noisy = False

    def __init__(self, reactor: IReactorTCP, query: Query, server: Server, most: int) -> None:
        self.query = query
        self.most = most
        self.received: Deferred[bytes] = Deferred(self._give_up)
        self._connector = reactor.connectTCP(server.host, server.port, self)

    def _give_up(self, received: Deferred[bytes]) -> None:
        received.errback(CancelledError())
        self._connector.disconnect()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.fail(f"cannot be reached over TCP: {reason.getErrorMessage()}")

    def hear(self, wire: bytes) -> None:
        """Take what the server says first."""
        if not may_answer(wire, self.query):
            self.fail("answered something else")
        elif not self.received.called:
            self.received.callback(wire)

    def fail(self, why: str) -> None:
        """Take that there is no answer, unless there was one."""
        if not self.received.called:
            self.received.errback(Unusable(why))
