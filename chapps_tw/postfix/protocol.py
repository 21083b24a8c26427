"""The policy delegation protocol of Postfix (https://www.postfix.org/SMTPD_POLICY_README.html).

Connections are persistent, with one request at a time; answers are sent in the order of the requests. When the
server closes a connection, Postfix waits a second before it retries, so connections of Postfix are not closed. An
invalid request is answered once, and its connection is closed.

Other clients may send requests faster than Postfix does. Each connection gets one answer per turn of the reactor, and
no request is processed while the client does not read its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.mail.request import MAX_REQUEST_BYTES, RequestError
from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.slots import Answer
from chapps_tw.postfix.pipeline import Pipeline
from chapps_tw.postfix.run import Run
from chapps_tw.sockets.sending import sender
from chapps_tw.sockets.turn import Stage, Turn

_END = b"\n\n"

# Clients of a listener that are remembered after their connections are closed.
_MAX_PEERS = 32

Answered: TypeAlias = tuple[OutboundPPR, Answer, float]
"""A request, its answer, and the monotonic time at which it arrived."""

Report: TypeAlias = Callable[[str, Sequence[Answered]], None]


class Transport(Interface):
    """The methods of a TCP or unix transport that the protocol uses."""

    def write(self, data: bytes) -> None: ...
    def getPeer(self) -> object: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...


@implementer(IHalfCloseableProtocol, IPushProducer)
class PolicyProtocol(Protocol):
    """One connection of Postfix."""

    factory: PolicyFactory
    transport: Transport  # type: ignore[assignment]

    _log = Logger()

    def __init__(self, factory: PolicyFactory) -> None:
        self.factory = factory
        self._buffer = b""
        # The request that is being processed until its answer is sent, and the answer.
        self._run: Run | None = None
        self._answer: Answer | None = None
        self._request: OutboundPPR
        self._started = 0.0
        self._input_closed = False
        self._reading_paused = False
        self._write_blocked = False
        self._closed = False

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self.factory.changed()
        self._send = sender(self.transport)
        self.factory.adopt(self.transport)
        self.transport.registerProducer(self, True)
        if hasattr(self.transport, "setTcpKeepAlive"):  # a unix socket has none
            self.transport.setTcpKeepAlive(True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        self.factory.changed()
        if self._started:
            self.factory.note_peer(*self.asked)
        if self._run is not None and self._answer is None:
            # Postfix repeats the request on another connection, which makes the remaining changes.
            self._run.abandon()
            self._run = None
        self._discard_input()
        self.factory.check_drained()

    def dataReceived(self, data: bytes) -> None:
        if self._input_closed:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._run is None and not self._write_blocked:
            self._process_next()
        if len(self._buffer) > MAX_REQUEST_BYTES and not self._reading_paused:
            self._reading_paused = True
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The client has closed its side, but still reads answers."""
        self._input_closed = True
        self._continue()

    def pauseProducing(self) -> None:
        """The client does not read its answers: the write buffer is full."""
        self._write_blocked = True

    def resumeProducing(self) -> None:
        """The client has read its answers: the write buffer is empty."""
        self._write_blocked = False
        self._continue()

    def stopProducing(self) -> None:
        """Do nothing: ``connectionLost`` follows."""

    def writeConnectionLost(self) -> None:
        """The client no longer reads."""
        self.transport.loseConnection()

    def cancel_overdue(self, now: float) -> None:
        """Cancel the request that is being processed if it exceeds the time limit of its pipeline."""
        if self._run is not None and now - self._started > self._run.time_limit:
            self.cancel()

    def cancel(self) -> None:
        """Cancel the request that is being processed, if there is one."""
        if self._run is not None and self._answer is None:
            self._run.cancel()

    @property
    def busy(self) -> bool:
        """Whether a request is being processed."""
        return self._run is not None

    @property
    def asked(self) -> tuple[str, float]:
        """The client, and the monotonic time of its last request; 0.0 if it has sent none."""
        return _peer_of(self.transport), self._started

    def finish(self) -> None:
        """Answer the request that is being processed, and close the connection."""
        self._input_closed = True
        self._discard_input()
        self.transport.pauseProducing()
        if self._run is None:
            self._close()

    def _process_next(self) -> None:
        """Process the next request if it is complete. Further ones are processed when it is answered."""
        buffer = self._buffer
        end = buffer.find(_END, 0, MAX_REQUEST_BYTES + 2)
        if end >= 0:
            self._buffer = buffer[end + 2 :]
            self._process(buffer[:end])
        elif len(self._buffer) > MAX_REQUEST_BYTES:
            self._abort_oversized()
        elif self._input_closed:
            self._close()

    def _continue(self) -> None:
        """Process the next request, unless one is being processed or the client does not read its answers."""
        if self._run is not None or (self._write_blocked and self._buffer):
            return
        self._process_next()
        if self._reading_paused and not self._input_closed and len(self._buffer) <= MAX_REQUEST_BYTES:
            self._reading_paused = False
            self.transport.resumeProducing()

    def _process(self, payload: bytes) -> None:
        self._started = self.factory.monotonic()
        try:
            self._request = self.factory.read(payload)
        except RequestError as error:
            self.factory.note_unreadable(self.transport, f"{error}; connection closed")
            self._send(self.factory.pipeline.unreadable(str(error)).wire)
            self._started = 0.0
            self.finish()
            return
        self._run = Run(self.factory.pipeline, self._request, self._answered)
        self.factory.begin(self)

    def decide(self) -> None:
        """Decide about the request, unless the client is gone."""
        if self._run is not None:
            self._run.start()

    def _answered(self, answer: Answer) -> None:
        self._answer = answer
        self.factory.answer(self)

    def send_answer(self) -> Answered:
        """Send the answer."""
        assert self._answer is not None
        answered = self._request, self._answer, self._started
        self._answer = self._run = None
        self._send(answered[1].decision.wire)
        return answered

    def go_on(self) -> None:
        """Process the next request if there is one."""
        if self._buffer or self._input_closed or self._reading_paused:
            try:
                self._continue()
            except Exception:
                self.fail()

    def fail(self) -> None:
        """Abort the connection after an unexpected error. Postfix repeats the request on a new one."""
        self._log.failure("no answer to {peer}", peer=_peer_of(self.transport))
        self._discard_input()
        self.transport.abortConnection()

    def _abort_oversized(self) -> None:
        what = f"{len(self._buffer)} bytes without the end of a request; connection closed"
        self.factory.note_unreadable(self.transport, what)
        self._discard_input()
        self.transport.abortConnection()

    def _discard_input(self) -> None:
        """Discard unprocessed requests."""
        self._buffer = b""

    def _close(self) -> None:
        """Close the connection after all answers are sent."""
        if self._closed:
            return
        self._closed = True
        # With a registered producer that is paused, the transport would never close.
        self.transport.unregisterProducer()
        self.transport.loseConnection()


def _peer_of(transport: Transport) -> str:
    """Return the peer's address, for the log and for people."""
    return str(getattr(transport.getPeer(), "host", None) or "a unix socket")


class PolicyFactory(Factory):
    """The connections of one listener.

    :param read: parses a request; raises :class:`~chapps_tw.mail.request.RequestError`.
    :param report: called with the name of the listener, and answers that were just sent.
    :param monotonic: monotonic clock.
    :param turn: for the requests of a turn of the reactor, which are decided together, and then answered.
    :param adopt: called with the transport of each new connection: :func:`~chapps_tw.sockets.reading.adopter`.
    :ivar pipeline: answers requests; may be replaced between two of them.
    :ivar changed: called when a connection was made or lost.
    :ivar unreadable: number of invalid requests since the start.
    """

    noisy = False

    _log = Logger()

    def __init__(
        self,
        pipeline: Pipeline,
        read: Callable[[bytes], OutboundPPR],
        report: Report,
        monotonic: Callable[[], float],
        turn: Turn,
        adopt: Callable[[Transport], None],
    ) -> None:
        self.pipeline = pipeline
        self.read = read
        self.report = report
        self.monotonic = monotonic
        self.adopt = adopt
        self.connections: set[PolicyProtocol] = set()
        self.changed: Callable[[], None] = lambda: None
        self.unreadable = 0
        self._turn = turn
        # Connections with a request to decide about, and with an answer to send.
        self._begun: list[PolicyProtocol] = []
        self._answered: list[PolicyProtocol] = []
        self._limited_log = LogLimit(self._log.warn, monotonic)
        self._drained: Deferred[None] | None = None
        self._peers: dict[str, float] = {}

    def buildProtocol(self, addr: Any) -> Protocol:
        return PolicyProtocol(self)

    def begin(self, connection: PolicyProtocol) -> None:
        """Have a connection decide about its request at the end of this turn."""
        if not self._begun:
            self._turn.at_end(Stage.DECIDE, self._decide)
        self._begun.append(connection)

    def _decide(self) -> None:
        connections, self._begun = self._begun, []
        for connection in connections:
            try:
                connection.decide()
            except Exception:
                connection.fail()

    def answer(self, connection: PolicyProtocol) -> None:
        """Have a connection send its answer at the end of this turn."""
        if not self._answered:
            self._turn.at_end(Stage.ANSWER, self._send_answers)
        self._answered.append(connection)

    def _send_answers(self) -> None:
        connections, self._answered = self._answered, []
        sent: list[Answered] = []
        for connection in connections:
            try:
                sent.append(connection.send_answer())
            except Exception:
                connection.fail()
        try:
            self.report(self.pipeline.listener, sent)
        finally:
            for connection in connections:
                connection.go_on()

    def note_peer(self, peer: str, time: float) -> None:
        """Remember when a client asked last, by the monotonic clock. Of too many clients, the first is forgotten."""
        self._peers[peer] = max(time, self._peers.pop(peer, 0.0))
        if len(self._peers) > _MAX_PEERS:
            del self._peers[next(iter(self._peers))]

    @property
    def peers(self) -> Mapping[str, float]:
        """The clients that asked, and the monotonic time at which each did last."""
        for connection in self.connections:
            peer, time = connection.asked
            if time:
                self.note_peer(peer, time)
        return dict(self._peers)

    def note_unreadable(self, transport: Transport, what: str) -> None:
        """Count and log an invalid request."""
        self.unreadable += 1
        listener = self.pipeline.listener
        self._limited_log.warn("{listener}: {peer} sent {what}", listener=listener, peer=_peer_of(transport), what=what)

    def cancel_overdue(self) -> None:
        """Cancel requests that exceed their time limit. To be called several times a second."""
        now = self.monotonic()
        for connection in tuple(self.connections):
            connection.cancel_overdue(now)

    def cancel_pending(self) -> None:
        """Cancel all pending requests: ``on_failure`` of their policies answers them."""
        for connection in tuple(self.connections):
            connection.cancel()

    @property
    def in_flight(self) -> int:
        """Number of requests that are being processed."""
        return sum(connection.busy for connection in self.connections)

    def drain(self) -> Deferred[None]:
        """Answer pending requests and close all connections. Fires when the last connection is closed."""
        drained = self._drained = Deferred[None]()
        for connection in tuple(self.connections):
            connection.finish()
        self.check_drained()
        return drained

    def check_drained(self) -> None:
        """Fire the Deferred of :meth:`drain` if the last connection is closed."""
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            drained.callback(None)
