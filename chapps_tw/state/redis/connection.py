"""One connection to Redis: pipelines commands, which are answered in order."""

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
from chapps_tw.sockets.turn import Stage
from chapps_tw.state.redis.script import Shape, command
from chapps_tw.state.reply import StoreReply

LOGIN_TIMEOUT = 1.0
"""Seconds."""

FIRST_BATCH, BATCH = 3, 16
"""Maximum number of commands per write. A full batch is sent before the turn ends, so that Redis can start on it. The
first one is smaller in a turn after one with few commands: otherwise Redis would wait for the end of the turn."""

_UNAVAILABLE = ("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "NOREPLICAS")

_NO_ANSWER = "it does not answer"

Decode = Callable[[Any], Any]

Run = tuple[Shape, bytes, bytes, bool, Decode]
"""A script in flight: shape, encoded keys and arguments, the time to use, whether it was sent again, and what makes the
result from the reply."""

Reply = Deferred[Any] | StoreReply[Any]

Entry = tuple[Reply, float, Run | bytes]
"""A pending command: its reply, its deadline, and the script run or the encoded command."""


class RedisUnavailable(StateUnavailable):
    """
    :ivar reason: the second part of a sentence.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} cannot be used: {reason}")
        self.reason = reason


class RedisConnection(txredisapi.HiredisProtocol):  # type: ignore[misc]
    """Sends the commands of one reactor turn in one write; answers are not decoded.

    It logs in by itself, since a txredisapi pool gives up for good when a login fails.

    :ivar clock_offset: the server's clock minus the reactor's, minus the time that an answer may take to return.
        Never too large, since the time that the answer to TIME took to return is included.
    :ivar clock_read: when it was measured, in the reactor's time.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reader = hiredis.Reader()
        self._pending: deque[Entry] = deque()
        self._out: list[bytes] = []
        self._batch = FIRST_BATCH
        # Commands sent in this turn.
        self._sent = 0
        self._problem = ""
        self._logged_in = False
        self._observe: Callable[[float], None] = no_observer
        self.clock_offset = 0.0
        self.clock_read = 0.0

    # --- commands ---

    @property
    def pending(self) -> int:
        """The number of commands in flight."""
        return len(self._pending)

    def call(self, deadline: float, *words: bytes) -> Deferred[Any]:
        """Send a command; fails with :class:`StateUnavailable` if it is not answered by the deadline."""
        data, deferred = command(*words), Deferred[Any]()
        self._send(deferred, data, deadline, data)
        return deferred

    def run(self, reply: Reply, deadline: float, shape: Shape, body: bytes, when: bytes, decode: Decode) -> None:
        """Run a script. It does nothing if it would start too late to be answered by the deadline.

        :param body: keys and arguments, encoded.
        :param when: the last argument, instead of the time after which the script does nothing.
        :param decode: returns the result for a reply.
        """
        self._send_script(reply, deadline, (shape, body, when, False, decode), shape.by_sha)

    def resend(self, entry: Entry) -> None:
        """Send a command that another connection was lost with. All commands that we send are idempotent."""
        reply, deadline, what = entry
        if isinstance(what, bytes):
            self._send(reply, what, deadline, what)
        else:
            self._send_script(reply, deadline, what, what[0].by_sha)

    def _send_script(self, reply: Reply, deadline: float, run: Run, head: bytes) -> None:
        when = run[2] or b"%d" % ((deadline + self.clock_offset) * 1000000)
        self._send(reply, b"%b%b$%d\r\n%b\r\n" % (head, run[1], len(when), when), deadline, run)

    def _send(self, reply: Reply, data: bytes, deadline: float, what: Run | bytes) -> None:
        self._pending.append((reply, deadline, what))
        if not self._out and not self._sent:
            self.factory.owner.turn.at_end(Stage.WRITE, self._flush)
        self._out.append(data)
        if len(self._out) >= self._batch:
            self._batch = BATCH
            self._send_out()

    def _flush(self) -> None:
        """Send what is left at the end of a turn."""
        if self._out:
            self._send_out()
        self._batch = FIRST_BATCH if self._sent <= BATCH else BATCH
        self._sent = 0

    def _send_out(self) -> None:
        self._sent += len(self._out)
        out, self._out = b"".join(self._out), []
        sender(self.transport)(out)
        self.factory.owner.schedule_sweep()

    def execute_command(self, *words: Any, **options: Any) -> Any:
        """Not supported: the command methods of txredisapi are not used on these connections."""
        raise NotImplementedError(words[0])

    # --- answers ---

    def dataReceived(self, data: bytes, unpause: bool = False) -> None:
        gets, pending, observe = self._reader.gets, self._pending, self._observe
        # The deadline of a command sent now, minus that of a pending command, is the time since that was sent.
        deadline_now = self.factory.owner.reactor.seconds() + self.factory.owner.timeout
        try:
            self._reader.feed(data)
            while (reply := gets()) is not False:
                entry = pending.popleft()
                waiting, deadline, what = entry
                if reply.__class__ is hiredis.ReplyError:
                    self._failed(entry, str(reply))
                elif not waiting.called:
                    observe(deadline_now - deadline)
                    try:
                        result = reply if isinstance(what, bytes) else what[4](reply)
                    except Exception as error:
                        waiting.errback(error)
                    else:
                        waiting.callback(result)
        except (hiredis.ProtocolError, IndexError):
            self.abandon("it does not speak the Redis protocol")
        if self._problem:
            self._close_when_idle()

    def _failed(self, entry: Entry, text: str) -> None:
        reply, deadline, what = entry
        run = None if isinstance(what, bytes) else what
        code = text.partition(" ")[0]
        if reply.called:
            return
        if run and code == "NOSCRIPT":
            self._send_script(reply, deadline, run, run[0].whole)
        elif run and code == "LATE" and not run[3] and deadline > self.factory.owner.reactor.seconds():
            self._rerun(reply, deadline, (*run[:3], True, run[4]))
        else:
            # The position in the script does not help an admin.
            message = text.partition(" script: ")[0][:200].rstrip(". ")
            error = RedisUnavailable(self.factory.owner.server.name, f"it answers: {message}")
            if code in _UNAVAILABLE:
                self.factory.owner.server_unavailable(self, error.reason)
            elif self._logged_in and code != "LATE":
                self.factory.owner.command_failed(f"{error.reason}{_remedy(error.reason)}")
            reply.errback(error)

    def _rerun(self, reply: Reply, deadline: float, run: Run) -> None:
        """Run a script again after reading the server's clock, which was set in the meantime."""

        def failed(failure: Failure) -> None:
            if not reply.called:
                reply.errback(failure)

        def clock_read(_: None) -> None:
            if not reply.called:
                self._send_script(reply, deadline, run, run[0].by_sha)

        self.read_clock(deadline).addCallbacks(clock_read, failed)

    def read_clock(self, deadline: float) -> Deferred[None]:
        """Measure the offset of the server's clock."""

        def clock_read(time: list[bytes]) -> None:
            self.clock_read = self.factory.owner.reactor.seconds()
            self.clock_offset = int(time[0]) + int(time[1]) / 1e6 - self.clock_read - self.factory.owner.tick

        return self.call(deadline, b"TIME").addCallback(clock_read)

    # --- connecting and closing ---

    def connectionMade(self) -> None:
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.factory.owner.connection_opened(self)
        Deferred.fromCoroutine(self._log_in()).addErrback(self._login_failed)

    async def _log_in(self) -> None:
        owner = self.factory.owner
        deadline = owner.reactor.seconds() + LOGIN_TIMEOUT
        steps = owner.login.steps()
        answers: list[Deferred[Any]] = [self.call(deadline, *words) for words in steps]
        results = await DeferredList([*answers, self.read_clock(deadline)], consumeErrors=True)
        for words, (success, reply) in zip([*steps, (b"TIME",)], results, strict=True):
            if not success:
                # ROLE may be denied to the user; a replica is also detected by the failing probe.
                if words[0] != b"ROLE" or not str(reply.value.reason).startswith("it answers: NOPERM"):
                    raise RedisUnavailable(owner.server.name, f"{reply.value.reason}{_remedy(reply.value.reason)}")
            elif words[0] == b"ROLE" and reply[0] != b"master":
                raise RedisUnavailable(owner.server.name, "it is not the master")
        self._logged_in = True
        # Commands of the login have another timeout, so they are not observed.
        self._observe = owner.observe
        # The factory has no password and no dbid, so this only marks the connection as ready.
        super().connectionMade()

    def _login_failed(self, failure: Failure) -> None:
        error = failure.value
        reason = error.reason if isinstance(error, RedisUnavailable) else f"unexpected answers to the login ({error})"
        self.abandon(self.factory.owner.login.hide(reason))

    def abandon(self, reason: str) -> None:
        """Send no more commands, and close when none is in flight."""
        if not self._problem:
            self._problem = reason
            self.factory.owner.connection_abandoned(self, reason)
            self._close_when_idle()

    def _close_when_idle(self) -> None:
        if all(entry[0].called for entry in self._pending):
            self.transport.abortConnection()

    def sweep(self, time: float) -> bool:
        """Fail the commands that have timed out. Return whether any are in flight."""
        late = [reply for reply, deadline, _ in self._pending if deadline <= time and not reply.called]
        if late:
            self.factory.owner.timeouts += len(late)
            self.factory.owner.server_unavailable(self, _NO_ANSWER)
            self.abandon(_NO_ANSWER)
        for reply in late:
            if not reply.called:
                self._observe(self.factory.owner.timeout)
                reply.errback(RedisUnavailable(self.factory.owner.server.name, _NO_ANSWER))
        if self._problem:
            self._close_when_idle()
        return bool(self._pending)

    def connectionLost(self, why: Failure) -> None:
        self.abandon(self.factory.owner.server.explain(why))
        super().connectionLost(why)
        self.factory.owner.connection_closed(self)
        pending, self._pending = self._pending, deque()
        for entry in pending:
            if entry[0].called:
                continue
            if self._logged_in:
                self.factory.owner.resend(entry)
            else:
                entry[0].errback(RedisUnavailable(self.factory.owner.server.name, self._problem))


def unchanged(reply: Any) -> Any:
    """Return a reply as it is."""
    return reply


def no_observer(seconds: float) -> None:
    """An observer that does nothing."""


def _remedy(reason: str) -> str:
    """Name the options to check, as a suffix to the reason."""
    answer = reason.removeprefix("it answers: ").removeprefix("ERR ")
    if answer.startswith(("WRONGPASS", "NOAUTH", "AUTH", "invalid password")):
        return " (see [Redis] username, password)"
    if answer.startswith(("DB index", "invalid DB index", "SELECT")):
        return " (see [Redis] db)"
    return " (see [Redis] username)" if answer.startswith(("NOPERM", "The user executing the script")) else ""
