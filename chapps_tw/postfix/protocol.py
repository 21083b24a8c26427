"""The policy delegation protocol of Postfix (https://www.postfix.org/SMTPD_POLICY_README.html).

A connection stays open and carries one question at a time; the answers come in the order of the
questions. A connection that is closed after an answer costs Postfix a second, so none is to which
Postfix may have spoken. What no Postfix sends is answered once, and that connection is closed.

Anybody who gets to the port may ask faster than Postfix does. A connection is answered one question
in each turn of the reactor, and is asked nothing more while its client does not read the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from math import inf
from typing import Any, cast
from typing import Protocol as Interface

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chapps_tw.mail.request import MAX_REQUEST_BYTES, RequestError
from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.pipeline import Answer, Pipeline
from chapps_tw.sockets.sending import sender

_END = b"\n\n"

Report = Callable[[Pipeline, OutboundPPR, Answer, float], None]


class Transport(Interface):
    """What the protocol needs of a TCP or unix connection."""

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
        self._deciding: Coroutine[Deferred[object], None, Answer] | None = None
        self._awaited: Deferred[Any] | None = None
        self._request: OutboundPPR
        self._started = 0.0
        self._turn: IDelayedCall | None = None
        self._no_more = False
        self._paused = False
        self._unread = False
        self._closed = False

    def connectionMade(self) -> None:
        self.factory.connections.add(self)
        self._send = sender(self.transport)
        self.transport.registerProducer(self, True)
        if hasattr(self.transport, "setTcpKeepAlive"):  # a unix socket has none
            self.transport.setTcpKeepAlive(True)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.connections.discard(self)
        if self._deciding is not None:
            # Postfix asks again on another connection; what this question would still change is that one's to do.
            deciding, self._deciding = self._deciding, None
            deciding.close()
        self._forget()
        self.factory.check_drained()

    def dataReceived(self, data: bytes) -> None:
        if self._no_more:
            return
        self._buffer = self._buffer + data if self._buffer else data
        if self._deciding is None and self._turn is None and not self._unread:
            self._next()
        if len(self._buffer) > MAX_REQUEST_BYTES and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """The client has asked all it wants to ask, and still reads."""
        self._no_more = True
        self._go_on()

    def pauseProducing(self) -> None:
        """The client does not read what it is answered."""
        self._unread = True

    def resumeProducing(self) -> None:
        """The client has read what it was answered."""
        self._unread = False
        self._go_on()

    def stopProducing(self) -> None:
        """The connection is lost; it tells so itself."""

    def writeConnectionLost(self) -> None:
        """The client no longer reads."""
        self.transport.loseConnection()

    def overdue(self, before: float) -> None:
        """Take its time from a question that was asked before a moment."""
        if self._deciding is not None and self._awaited is not None and self._started < before:
            self._awaited.cancel()

    @property
    def busy(self) -> bool:
        """Whether a question waits for its answer."""
        return self._deciding is not None

    def finish(self) -> None:
        """Answer what was asked, and close."""
        self._no_more = True
        self._forget()
        self.transport.pauseProducing()
        if self._deciding is None:
            self._close()

    def _next(self) -> None:
        """Take up the next question, if all of it is there. Those behind it have their turn."""
        self._turn = None
        end = self._buffer.find(_END, 0, MAX_REQUEST_BYTES + 2)
        if end >= 0:
            payload = self._buffer[:end]
            self._buffer = self._buffer[end + 2 :]
            self._ask(payload)
            if self._deciding is None and not self._closed and (self._buffer or self._no_more):
                self._turn = self.factory.later(0, self._go_on)
        elif len(self._buffer) > MAX_REQUEST_BYTES:
            self._give_up()
        elif self._no_more:
            self._close()

    def _go_on(self) -> None:
        """Take up the next question, unless one waits for its answer, or the client does not read its answers."""
        if self._turn is not None and self._turn.active():
            return
        self._turn = None
        if self._deciding is not None or (self._unread and self._buffer):
            return
        self._next()
        if self._paused and not self._no_more and len(self._buffer) <= MAX_REQUEST_BYTES:
            self._paused = False
            self.transport.resumeProducing()

    def _ask(self, payload: bytes) -> None:
        self._started = self.factory.seconds()
        try:
            self._request = self.factory.read(payload)
        except RequestError as error:
            self.factory.note_unreadable(self.transport, f"{error}; connection closed")
            self._send(self.factory.pipeline.unreadable(str(error)).wire)
            self.finish()
            return
        self._deciding = self.factory.pipeline.decide(self._request)
        self._step(None)

    def _step(self, result: object) -> None:
        """Run the decision until it waits for something.

        This is what ``Deferred.fromCoroutine`` does, without what makes that serve every purpose: it
        runs for every request, twice at least.
        """
        deciding = self._deciding
        if deciding is None:
            return
        try:
            if isinstance(result, Failure):
                awaited: Any = deciding.throw(cast(BaseException, result.value))
            else:
                awaited = deciding.send(None)
        except StopIteration as done:
            self._answered(done.value)
        except Exception:
            self._broken(Failure())
        else:
            self._awaited = awaited
            awaited.addBoth(self._step)

    def _answered(self, answer: Answer) -> None:
        had_to_wait = self._awaited is not None
        self._deciding = self._awaited = None
        self._send(answer.decision.wire)
        self.factory.report(self.factory.pipeline, self._request, answer, self._started)
        if had_to_wait and (self._buffer or self._no_more or self._paused):
            self._go_on()

    def _broken(self, failure: Failure) -> None:
        """An answer that could not be given: Postfix asks again on a new connection."""
        self._log.failure("no answer to {peer}", failure, peer=_peer_of(self.transport))
        self._deciding = self._awaited = None
        self._forget()
        self.transport.abortConnection()

    def _give_up(self) -> None:
        what = f"{len(self._buffer)} bytes and no end of a request; connection closed"
        self.factory.note_unreadable(self.transport, what)
        self._forget()
        self.transport.abortConnection()

    def _forget(self) -> None:
        """Ask nothing of what is still there."""
        self._buffer = b""
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._turn = None

    def _close(self) -> None:
        """Close when all answers are sent."""
        if self._closed:
            return
        self._closed = True
        # A transport with a producer that it has paused would wait for it.
        self.transport.unregisterProducer()
        self.transport.loseConnection()


def _peer_of(transport: Transport) -> str:
    """Who is at the other end, for the log."""
    return str(getattr(transport.getPeer(), "host", None) or "a unix socket")


class PolicyFactory(Factory):
    """The connections of one listener.

    :param read: makes a request of its bytes; raises :class:`~chapps_tw.mail.request.RequestError`.
    :param report: told of every answer that was sent: pipeline, request, answer, and the moment
        when the request arrived.
    :param seconds: the clock.
    :param patience: seconds that one question may take.
    :param later: calls a function after some seconds; in the next turn of the reactor after 0.
    :ivar unreadable: what was sent that is no question, since the start.
    """

    noisy = False

    _log = Logger()

    def __init__(
        self,
        pipeline: Pipeline,
        read: Callable[[bytes], OutboundPPR],
        report: Report,
        seconds: Callable[[], float],
        patience: float,
        later: Callable[[float, Callable[[], None]], IDelayedCall],
    ) -> None:
        self.pipeline = pipeline
        self.read = read
        self.report = report
        self.seconds = seconds
        self.later = later
        self.connections: set[PolicyProtocol] = set()
        self.unreadable = 0
        self._complaints = LogLimit(self._log.warn, seconds)
        self._patience = patience
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: Any) -> Protocol:
        return PolicyProtocol(self)

    def note_unreadable(self, transport: Transport, what: str) -> None:
        """Count and log something that is no question."""
        self.unreadable += 1
        listener = self.pipeline.listener
        self._complaints.warn("{listener}: {peer} sent {what}", listener=listener, peer=_peer_of(transport), what=what)

    def sweep(self) -> None:
        """End the questions that take too long. To be called several times a second."""
        self._end(self.seconds() - self._patience)

    def hurry(self) -> None:
        """End the questions that wait for something now: their policies answer without it."""
        self._end(inf)

    def _end(self, before: float) -> None:
        for connection in tuple(self.connections):
            connection.overdue(before)

    @property
    def in_flight(self) -> int:
        """How many questions wait for their answer."""
        return sum(connection.busy for connection in self.connections)

    def drain(self) -> Deferred[None]:
        """Answer what was asked, take no more; fires when the last connection is closed."""
        drained = self._drained = Deferred[None]()
        for connection in tuple(self.connections):
            connection.finish()
        self.check_drained()
        return drained

    def check_drained(self) -> None:
        """Tell whoever waits for the last connection to close."""
        if self._drained is not None and not self.connections:
            drained, self._drained = self._drained, None
            drained.callback(None)
