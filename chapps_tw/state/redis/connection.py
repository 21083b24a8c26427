"""One connection to Redis: many commands in flight, answered in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
import txredisapi
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import ITCPTransport
from twisted.python.failure import Failure

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.sockets.sending import sender
from chapps_tw.state.redis.script import Shape, command

HANDSHAKE = 1.0
"""Seconds for logging in."""

BURST = 16
"""Commands that are sent without waiting for the turn's end: Redis works on them meanwhile."""

_AWAY = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "NOREPLICAS")

_SILENT = "it does not answer"

Run = tuple[Shape, bytes, bytes, bool]
"""A script in flight: shape, encoded keys and arguments, the time to take, and whether it was sent again."""

Entry = tuple[Deferred[Any], float, Run | bytes]
"""What waits for an answer: whom to tell, when the answer is due, and the script; of another command all of it."""


class Unusable(StateUnavailable):
    """
    :ivar why: what is wrong, as the second part of a sentence.
    """

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} cannot be used: {why}")
        self.why = why


class RedisConnection(txredisapi.HiredisProtocol):  # type: ignore[misc]
    """Sends the commands of one reactor turn together, and takes whole answers as bytes.

    Logging in is done here, since txredisapi gives a pool up for good when it fails.

    :ivar ahead: by how much the server's clock is ahead of ours, less the time that an answer has for its way
        back. Never too much, since the way back of the answer about the time is counted as ours.
    :ivar learned: when we asked for that.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reader = hiredis.Reader()
        self._waiting: deque[Entry] = deque()
        self._out: list[bytes] = []
        self._problem = ""
        self._logged_in = False
        self._observe: Callable[[float], None] = not_observed
        self.ahead = 0.0
        self.learned = 0.0

    # --- commands ---

    @property
    def waiting(self) -> int:
        """How many commands were not answered yet."""
        return len(self._waiting)

    def call(self, due: float, *words: bytes) -> Deferred[Any]:
        """Send a command; fails with :class:`StateUnavailable` if it is not answered when ``due``."""
        data = command(*words)
        return self._send(Deferred(), data, due, data)

    def run(self, due: float, shape: Shape, body: bytes, when: bytes) -> Deferred[Any]:
        """Run a script, which does nothing where it would begin too late to be answered when ``due``.

        :param body: keys and arguments, encoded.
        :param when: the last argument, in place of the time after which it does nothing.
        """
        return self._send_script(Deferred(), due, (shape, body, when, False), shape.by_sha)

    def again(self, entry: Entry) -> None:
        """Send what was sent on another connection, and not answered there. All that we send may be done twice."""
        deferred, due, what = entry
        if isinstance(what, bytes):
            self._send(deferred, what, due, what)
        else:
            self._send_script(deferred, due, what, what[0].by_sha)

    def _send_script(self, deferred: Deferred[Any], due: float, run: Run, head: bytes) -> Deferred[Any]:
        when = run[2] or b"%d" % ((due + self.ahead) * 1000000)
        return self._send(deferred, b"%b%b$%d\r\n%b\r\n" % (head, run[1], len(when), when), due, run)

    def _send(self, deferred: Deferred[Any], data: bytes, due: float, what: Run | bytes) -> Deferred[Any]:
        self._waiting.append((deferred, due, what))
        if not self._out:
            self.factory.owner.reactor.callLater(0, self._flush)
        self._out.append(data)
        if len(self._out) >= BURST:
            self._flush()
        return deferred

    def _flush(self) -> None:
        if not self._out:
            return
        out, self._out = b"".join(self._out), []
        sender(self.transport)(out)
        self.factory.owner.watch()

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """The commands that txredisapi's protocol has methods for are not used on these connections."""
        raise NotImplementedError(words[0])

    # --- answers ---

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        gets, waiting, observe = self._reader.gets, self._waiting, self._observe
        # A command that is sent now is due then; from that and its own follows how long ago it was sent.
        then = self.factory.owner.reactor.seconds() + self.factory.owner.deadline
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                entry = waiting.popleft()
                if reply.__class__ is hiredis.ReplyError:
                    self._refused(entry, str(reply))
                elif not entry[0].called:
                    observe(then - entry[1])
                    entry[0].callback(reply)
        except (hiredis.ProtocolError, IndexError):
            self.abandon("what answers does not speak the Redis protocol")
        if self._problem:
            self._leave_when_done()

    def _refused(self, entry: Entry, text: str) -> None:
        deferred, due, what = entry
        run = None if isinstance(what, bytes) else what
        code = text.partition(" ")[0]
        if deferred.called:
            return
        if run and code == "NOSCRIPT":
            self._send_script(deferred, due, run, run[0].whole)
        elif run and code == "LATE" and not run[3] and due > self.factory.owner.reactor.seconds():
            self._again(deferred, due, (*run[:3], True))
        else:
            # Where in which script is of no use to an admin.
            said = text.partition(" script: ")[0][:200].rstrip(". ")
            refused = Unusable(self.factory.owner.server.name, f"it answers: {said}")
            if code in _AWAY:
                self.factory.owner.distrust(self, refused.why)
            elif self._logged_in and code != "LATE":
                self.factory.owner.refused(f"{refused.why}{_to_look_at(refused.why)}")
            deferred.errback(refused)

    def _again(self, deferred: Deferred[Any], due: float, run: Run) -> None:
        """Run a script again after a look at the server's clock, which was set since the last one."""

        def failed(failure: Failure) -> None:
            if not deferred.called:
                deferred.errback(failure)

        def learned(_: None) -> None:
            if not deferred.called:
                self._send_script(deferred, due, run, run[0].by_sha)

        self.learn(due).addCallbacks(learned, failed)

    def learn(self, due: float) -> Deferred[None]:
        """Find out by how much the server's clock differs from ours."""

        def learned(time: list[bytes]) -> None:
            self.learned = self.factory.owner.reactor.seconds()
            self.ahead = int(time[0]) + int(time[1]) / 1e6 - self.learned - self.factory.owner.tick

        return self.call(due, b"TIME").addCallback(learned)

    # --- coming and going ---

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.factory.owner.opened(self)
        Deferred.fromCoroutine(self._log_in()).addErrback(self._not_logged_in)

    async def _log_in(self) -> None:
        owner = self.factory.owner
        due = owner.reactor.seconds() + HANDSHAKE
        steps = owner.login.steps()
        answers: list[Deferred[Any]] = [self.call(due, *words) for words in steps]
        results = await DeferredList([*answers, self.learn(due)], consumeErrors=True)
        for words, (success, reply) in zip([*steps, (b"TIME",)], results, strict=True):
            if not success:
                # Not every user may ask for the role; a replica is told by the refused probe, too.
                if words[0] != b"ROLE" or not str(reply.value.why).startswith("it answers: NOPERM"):
                    raise Unusable(owner.server.name, f"{reply.value.why}{_to_look_at(reply.value.why)}")
            elif words[0] == b"ROLE" and reply[0] != b"master":
                raise Unusable(owner.server.name, "it is not the master")
        self._logged_in = True
        # What the login took has another deadline.
        self._observe = owner.observe
        # Without password and dbid, which the factory never gets, this only tells that the connection is ready.
        super().connectionMade()

    def _not_logged_in(self, failure: Failure) -> None:
        reason = failure.value
        why = reason.why if isinstance(reason, Unusable) else f"its answers to the login make no sense ({reason})"
        self.abandon(self.factory.owner.login.hide(why))

    def abandon(self, why: str) -> None:
        """Send nothing here any more, and close when nothing waits for an answer."""
        if not self._problem:
            self._problem = why
            self.factory.owner.left(self, why)
            self._leave_when_done()

    def _leave_when_done(self) -> None:
        if all(entry[0].called for entry in self._waiting):
            self.transport.abortConnection()

    def sweep(self, now: float) -> bool:
        """Fail what waits for too long. Returns whether something still waits."""
        late = [deferred for deferred, due, _ in self._waiting if due <= now and not deferred.called]
        if late:
            self.factory.owner.timeouts += len(late)
            self.factory.owner.distrust(self, _SILENT)
            self.abandon(_SILENT)
        for deferred in late:
            if not deferred.called:
                self._observe(self.factory.owner.deadline)
                deferred.errback(Unusable(self.factory.owner.server.name, _SILENT))
        if self._problem:
            self._leave_when_done()
        return bool(self._waiting)

    def connectionLost(self, why: Failure) -> None:
        self.abandon(self.factory.owner.server.explain(why))
        super().connectionLost(why)
        self.factory.owner.closed(self)
        waiting, self._waiting = self._waiting, deque()
        for entry in waiting:
            if entry[0].called:
                continue
            if self._logged_in:
                self.factory.owner.unanswered(entry)
            else:
                entry[0].errback(Unusable(self.factory.owner.server.name, self._problem))


def not_observed(seconds: float) -> None:
    """In place of an observer."""


def _to_look_at(why: str) -> str:
    """The options that a server refuses, to follow why it does."""
    answer = why.removeprefix("it answers: ").removeprefix("ERR ")
    if answer.startswith(("WRONGPASS", "NOAUTH", "AUTH", "invalid password")):
        return " (see [Redis] username, password)"
    if answer.startswith(("DB index", "invalid DB index", "SELECT")):
        return " (see [Redis] db)"
    return " (see [Redis] username)" if answer.startswith(("NOPERM", "The user executing the script")) else ""
