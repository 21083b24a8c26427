"""Connections that are read with one descriptor of the reactor."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from chapps_tw.sockets import reading
from chapps_tw.sockets.reading import SharedReader, adopter

reactor: Any = installed_reactor


class Recorder(Protocol):
    """Records what is received; fails on ``fail``."""

    def __init__(self, factory: Recorders) -> None:
        self.recorders = factory
        self.received = b""
        self.events: list[str] = []
        self.waiting: list[tuple[str, Deferred[None]]] = []

    def connectionMade(self) -> None:
        self.recorders.adopt(self.transport)
        self.recorders.made(self)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"fail"):
            raise RuntimeError("this protocol fails")
        self.note("data")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.note("lost")

    def note(self, event: str) -> None:
        self.events.append(event)
        waiting, self.waiting = self.waiting, []
        for name, deferred in waiting:
            if name == event:
                deferred.callback(None)
            else:
                self.waiting.append((name, deferred))

    def until(self, event: str) -> Deferred[None]:
        deferred: Deferred[None] = Deferred()
        self.waiting.append((event, deferred))
        return deferred


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Recorder):
    """Answers after the client has closed its side."""

    def readConnectionLost(self) -> None:
        self.note("end of input")
        transport = cast(Any, self.transport)
        transport.write(b"bye")
        transport.loseConnection()

    def writeConnectionLost(self) -> None:
        self.note("end of output")


class Recorders(Factory):
    noisy = False

    def __init__(self, kind: type[Recorder]) -> None:
        self.kind = kind
        self.adopt = adopter(reactor)
        self.connected: Deferred[Recorder] = Deferred()

    def buildProtocol(self, addr: object) -> Protocol:
        return self.kind(self)

    def made(self, recorder: Recorder) -> None:
        made, self.connected = self.connected, Deferred()
        made.callback(recorder)


def shared_readers() -> list[object]:
    return [each for each in reactor.getReaders() if isinstance(each, SharedReader)]


class SharedReaderTests(TestCase):
    async def connect(self, kind: type[Recorder] = Recorder) -> tuple[Recorder, socket.socket]:
        self.factory = Recorders(kind)
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return await self.connect_again(port.getHost().port)

    async def connect_again(self, port: int) -> tuple[Recorder, socket.socket]:
        made = self.factory.connected
        client = await deferToThread(socket.create_connection, ("127.0.0.1", port))
        self.addCleanup(client.close)
        return await made, client

    async def close(self, recorder: Recorder, client: socket.socket) -> None:
        client.close()
        if "lost" not in recorder.events:
            await recorder.until("lost")
        self.assertEqual(shared_readers(), [])

    async def test_two_connections_are_read_with_one_descriptor(self) -> None:
        first, one = await self.connect()
        second, other = await self.connect_again(one.getpeername()[1])
        self.assertEqual(len(shared_readers()), 1)
        self.assertNotIn(first.transport, reactor.getReaders())
        one.sendall(b"one")
        other.sendall(b"other")
        for recorder, text in ((first, b"one"), (second, b"other")):
            while recorder.received != text:
                await recorder.until("data")
        other.close()
        await second.until("lost")
        one.sendall(b" more")
        await first.until("data")
        self.assertEqual(first.received, b"one more")
        await self.close(first, one)

    async def test_of_many_connections_all_are_read_a_few_in_each_turn(self) -> None:
        self.patch(reading, "MAX_CONNECTIONS", 3)
        connected = [await self.connect()]
        for _ in range(7):
            connected.append(await self.connect_again(connected[0][1].getpeername()[1]))
        [reader] = shared_readers()
        for _, client in connected:
            client.sendall(b"x")
        seen: list[int] = []
        for _ in range(3):
            cast(SharedReader, reader).doRead()
            seen.append(sum(recorder.received == b"x" for recorder, _ in connected))
        self.assertEqual(seen, [3, 6, 8])
        for recorder, client in connected:
            client.close()
            await recorder.until("lost")

    async def test_a_paused_connection_is_not_read_until_it_is_resumed(self) -> None:
        recorder, client = await self.connect()
        transport = cast(Any, recorder.transport)
        transport.pauseProducing()
        self.assertEqual(shared_readers(), [])
        client.sendall(b"late")
        other, peer = await self.connect_again(client.getpeername()[1])
        peer.sendall(b"x")
        await other.until("data")
        self.assertEqual(recorder.received, b"")
        transport.resumeProducing()
        await recorder.until("data")
        self.assertEqual(recorder.received, b"late")
        peer.close()
        await other.until("lost")
        await self.close(recorder, client)

    async def test_a_client_that_closes_its_side_gets_the_answer(self) -> None:
        recorder, client = await self.connect(HalfCloseable)
        client.sendall(b"last")
        client.shutdown(socket.SHUT_WR)
        lost = recorder.until("lost")
        self.assertEqual(await deferToThread(client.recv, 100), b"bye")
        await lost
        self.assertEqual((recorder.received, recorder.events), (b"last", ["data", "end of input", "lost"]))
        await self.close(recorder, client)

    async def test_a_reset_connection_is_lost(self) -> None:
        recorder, client = await self.connect()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.close(recorder, client)

    async def test_a_protocol_that_fails_loses_its_connection_alone(self) -> None:
        recorder, client = await self.connect()
        other, peer = await self.connect_again(client.getpeername()[1])
        client.sendall(b"fail")
        await recorder.until("lost")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        peer.sendall(b"fine")
        await other.until("data")
        await self.close(other, peer)

    async def test_a_unix_socket_is_read_as_well(self) -> None:
        self.factory = Recorders(Recorder)
        path = str(Path(self.enterContext(TemporaryDirectory()), "socket"))
        port = reactor.listenUNIX(path, self.factory)
        self.addCleanup(port.stopListening)
        made, client = self.factory.connected, socket.socket(socket.AF_UNIX)
        client.connect(path)
        recorder = await made
        client.sendall(b"local")
        await recorder.until("data")
        self.assertEqual((recorder.received, len(shared_readers())), (b"local", 1))
        await self.close(recorder, client)
