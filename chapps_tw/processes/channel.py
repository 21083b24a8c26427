# mypy: allow-untyped-calls
"""The connection between the main process and a worker: JSON messages over a pair of sockets."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

# Twisted closes the connection at a larger message. The largest are the metrics, some 100 KB.
MAX_MESSAGE: Final = 16 << 20

_ANSWER: Final = "answer"

Told = Callable[..., None]
Asked = Callable[..., Coroutine[Any, Any, object]]


class ChannelLost(Exception):
    """The other process has ended, or is about to."""


@implementer(IPushProducer)
class Channel(Int32StringReceiver):
    """One end of the connection. Each message is a list: its name, and values that JSON can represent.

    :ivar is_full: whether the other end does not keep up.
    :ivar closed: fires when the connection is closed.
    :param told: by name, what is called with the values of a message that needs no answer.
    :param asked: by name, what answers a question; called with its values.
    :param resumed: called when the other end keeps up again.
    """

    MAX_LENGTH = MAX_MESSAGE
    _log = Logger()

    def __init__(
        self, told: Mapping[str, Told], asked: Mapping[str, Asked], resumed: Callable[[], None] = lambda: None
    ) -> None:
        self._told = told
        self._asked = asked
        self._resumed = resumed
        self._questions: dict[int, Deferred[Any]] = {}
        self._number = 0
        self._is_open = False
        self.is_full = False
        self.closed: Deferred[None] = Deferred()

    def tell(self, name: str, *values: object) -> None:
        """Send a message. If the connection is closed, it is lost."""
        if self._is_open:
            self.sendString(json.dumps([name, *values], separators=(",", ":")).encode("ascii"))

    def ask(self, name: str, *values: object) -> Deferred[Any]:
        """Return the answer to a question.

        :raises ChannelLost: (the Deferred) if the connection is or gets closed.
        """
        self._number = number = self._number + 1

        def forget(_: object) -> None:
            self._questions.pop(number, None)

        answer: Deferred[Any] = Deferred(forget)
        if not self._is_open:
            answer.errback(ChannelLost("the process is not running"))
            return answer
        self._questions[number] = answer
        self.tell(name, number, *values)
        return answer

    def stringReceived(self, string: bytes) -> None:
        name, *values = json.loads(string)
        try:
            if name == _ANSWER:
                self._answered(*values)
            elif name in self._asked:
                Deferred.fromCoroutine(self._answer(self._asked[name], *values))
            else:
                self._told[name](*values)
        except Exception:
            self._log.failure("A message {name} was not understood", name=name)

    def _answered(self, number: int, problem: str, value: object) -> None:
        question = self._questions.pop(number, None)
        if question is None:
            return
        if problem:
            question.errback(ChannelLost(problem))
        else:
            question.callback(value)

    async def _answer(self, asked: Asked, number: int, *values: object) -> None:
        try:
            problem, value = "", await asked(*values)
        except Exception as error:
            problem, value = str(error) or type(error).__name__, None
        self.tell(_ANSWER, number, problem, value)

    def attach(self, end: socket.socket, reactor: Any) -> None:
        """Use one end of a pair of sockets, which is duplicated."""
        factory: Factory[Channel] = Factory.forProtocol(lambda: self)
        factory.noisy = False
        end.setblocking(False)
        reactor.adoptStreamConnection(end.fileno(), socket.AF_UNIX, factory)

    def connectionMade(self) -> None:
        self._is_open = True
        self._transport.registerProducer(self, True)

    @property
    def _transport(self) -> Any:
        return self.transport

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_open = False
        questions, self._questions = self._questions, {}
        for each in questions.values():
            each.errback(ChannelLost("the process has ended"))
        self.closed.callback(None)

    def close(self) -> None:
        """Close the connection when everything is sent."""
        if self._is_open:
            self._transport.unregisterProducer()
            self._transport.loseConnection()

    def pauseProducing(self) -> None:
        self.is_full = True

    def resumeProducing(self) -> None:
        self.is_full = False
        self._resumed()

    def stopProducing(self) -> None:
        """Called when the connection is lost."""
