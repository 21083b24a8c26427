"""One DNS query to one server, over UDP or TCP (RFC 1035, section 4.2)."""

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

from chapps_tw.dns.messages import MismatchedResponse, Query, Response, may_answer
from chapps_tw.mail.network import Server

# More than we advertise, since some servers ignore that.
_MAX_UDP_BYTES = 4096


class ServerFailure(Exception):
    """A server gave no usable response: try the next. The text completes a sentence that begins with its name."""


@implementer(IReadDescriptor)
class UDPQuery:
    """A query over UDP, from a random source port: this makes forging responses harder (RFC 5452).

    Does not use ``reactor.listenUDP``, which logs a line for each port it opens or closes.

    :param parse: parses a response; raises MismatchedResponse, MalformedResponse.
    :ivar response: fails with ServerFailure, MalformedResponse.
    :raises OSError: if no socket can be opened, or the server is unreachable.
    """

    def __init__(
        self, reactor: IReactorFDSet, query: Query, server: Server, parse: Callable[[bytes, Query], Deferred[Response]]
    ) -> None:
        self.response: Deferred[Response] = Deferred(lambda _: self._close())
        self._reactor = reactor
        self._query = query
        self._parse = parse
        self._socket = socket(AF_INET6 if ":" in server[0] else AF_INET, SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.connect(server)
            self._socket.send(query.wire)
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
        if may_answer(wire, self._query):
            self._parse(wire, self._query).addCallbacks(self._succeeded, self._failed)

    def _succeeded(self, response: Response) -> None:
        if not self.response.called:
            self._close()
            self.response.callback(response)

    def _failed(self, failure: Failure) -> None:
        # A mismatched response may be forged: the real one may still come.
        if not self.response.called and not failure.check(MismatchedResponse):
            self._close()
            self.response.errback(failure)

    def connectionLost(self, reason: Failure) -> None:
        self._failed(Failure(ServerFailure("is unreachable")))

    def _close(self) -> None:
        self._reactor.removeReader(self)
        self._socket.close()


class _Stream(Int16StringReceiver):
    """The connection of a :class:`TCPQuery`."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.MAX_LENGTH = self.factory.max_size
        message = self.factory.query.wire
        self.transport.write(len(message).to_bytes(2) + message)

    def stringReceived(self, string: bytes) -> None:
        self.factory.message_received(string)
        self.transport.abortConnection()

    def lengthLimitExceeded(self, length: int) -> None:
        self.factory.fail(f"sent {length} octets, the limit is {self.MAX_LENGTH}")
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.fail("closed the connection")


class TCPQuery(ClientFactory):
    """A query over TCP (RFC 7766).

    :param max_size: maximum size of the response in octets.
    :ivar response: the response in wire form. Fails with ServerFailure.
    """

    protocol = _Stream
    # Otherwise each query logs two lines.
    noisy = False

    def __init__(self, reactor: IReactorTCP, query: Query, server: Server, max_size: int) -> None:
        self.query = query
        self.max_size = max_size
        self.response: Deferred[bytes] = Deferred(self._cancel)
        self._connector = reactor.connectTCP(server.host, server.port, self)

    def _cancel(self, response: Deferred[bytes]) -> None:
        response.errback(CancelledError())
        self._connector.disconnect()

    def clientConnectionFailed(self, connector: IConnector, reason: Failure) -> None:
        self.fail(f"is unreachable over TCP: {reason.getErrorMessage()}")

    def message_received(self, wire: bytes) -> None:
        """Accept the first message of the server."""
        if not may_answer(wire, self.query):
            self.fail("answered a different query")
        elif not self.response.called:
            self.response.callback(wire)

    def fail(self, reason: str) -> None:
        """Fail, unless there is a response already."""
        if not self.response.called:
            self.response.errback(ServerFailure(reason))
