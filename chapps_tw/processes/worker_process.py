"""One worker, as the main process sees it: started, watched, and started again."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.processes.channel import Channel, Told
from chapps_tw.processes.link import READY
from chapps_tw.processes.restarts import Restarts
from chapps_tw.sockets.loads import Loads

CHANNEL: Final = 3
LOADS: Final = 4
PORTS: Final = 5
"""Descriptors in a worker: the channel, the memory with the loads, and the first port."""

# Seconds after which a worker that should stop is killed: it answers what is pending within five.
_KILL: Final = 6.0
# Seconds after its end in which the rest of its output is read.
_REST: Final = 1.0
# Bytes of a line of its output that is not over yet.
_MAX_LINE: Final = 65536


class Command(NamedTuple):
    """How to start a worker.

    :ivar arguments: the command line, without the number of the worker.
    :ivar environ: the environment.
    :ivar ports: descriptors of the ports.
    :ivar input: what it reads from its standard input.
    """

    arguments: Sequence[str]
    environ: Mapping[str, str]
    ports: Sequence[int]
    input: bytes


class WorkerProcess:
    """A worker.

    :ivar number: from 1 on.
    :ivar channel: the connection to it; replaced when it is started again.
    :ivar is_ready: whether it answers Postfix.
    :ivar was_ready: fires when it answers Postfix for the first time.
    :ivar restarts: how often it was started again.
    :param loads: the numbers of connections of all workers.
    :param told: by name, what is called with its messages.
    """

    _log = Logger()

    def __init__(self, number: int, loads: Loads, told: Mapping[str, Told], reactor: Any) -> None:
        self.number = number
        self._loads = loads
        self.channel = Channel({}, {})
        self.is_ready = False
        self.was_ready: Deferred[None] = Deferred()
        self.restarts = 0
        self._told = {**told, READY: self._ready}
        self._reactor = reactor
        self._pauses = Restarts()
        self._started = 0.0
        self._process: Any = None
        self._ended: Deferred[None] = Deferred()
        self._next: IDelayedCall | None = None
        self._command: Callable[[], Command] | None = None
        self._is_stopping = False

    def start(self, command: Callable[[], Command]) -> None:
        """Start it, and start it again whenever it ends.

        :param command: returns how to start it, each time.
        """
        self._command = command
        self._start()

    def _start(self) -> None:
        self._next, self._started = None, self._reactor.seconds()
        try:
            self._spawn()
        except OSError as error:
            # For lack of descriptors or memory; or the program is being replaced.
            self._start_later(f"process {self.number} cannot be started ({error})")

    def _spawn(self) -> None:
        """Start the process.

        :raises OSError: if that is not possible.
        """
        assert self._command is not None
        command = self._command()
        self.channel = Channel(self._told, {})
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.channel.attach(ours, self._reactor)
            inside = [theirs.fileno(), self._loads.descriptor, *command.ports]
            descriptors: dict[int, Any] = {0: "w", 1: "r", 2: "r", **dict(enumerate(inside, CHANNEL))}
            arguments = [*command.arguments, "--worker", str(self.number)]
            output = _Output(self, command.input, self._reactor)
            self._process = self._reactor.spawnProcess(
                output, arguments[0], arguments, env=dict(command.environ), childFDs=descriptors
            )
        self._ended = output.ended

    @property
    def pid(self) -> int:
        """The number of the process; 0 if it is not running."""
        return int(self._process.pid or 0) if self._process is not None else 0

    def _ready(self) -> None:
        self.is_ready = True
        self._log.info("process {number} answers Postfix (pid {pid})", number=self.number, pid=self.pid)
        if not self.was_ready.called:
            self.was_ready.callback(None)

    def ended(self, reason: Failure) -> None:
        """Start it again, at once or after a pause."""
        self._process, self.is_ready = None, False
        self._loads.end(self.number - 1)
        if self._is_stopping:
            return
        self.restarts += 1
        self._start_later(f"process {self.number} has ended ({_why(reason)})")

    def _start_later(self, why: str) -> None:
        pause = self._pauses.pause(self._reactor.seconds() - self._started)
        then = "it is started again" + (f" in {pause:g} s" if pause else "")
        self._log.error("{why}; {then}", why=why, then=then)
        self._next = self._reactor.callLater(pause, self._start)

    def output(self, line: str) -> None:
        """Log a line that it has written."""
        self._log.info("process {number}: {line}", number=self.number, line=line)

    def signal(self, number: int) -> None:
        """Send it a signal, if it is running."""
        if self.pid:
            os.kill(self.pid, number)

    async def stop(self) -> None:
        """Let it answer what is pending, and end. What it has decided has arrived then."""
        self._is_stopping = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        late = self._reactor.callLater(_KILL, self.signal, signal.SIGKILL)
        await DeferredList([self._ended, self.channel.closed])
        if late.active():
            late.cancel()


class _Output(ProcessProtocol):
    """The standard streams of a worker.

    :ivar ended: fires when it has ended.
    """

    def __init__(self, worker: WorkerProcess, input: bytes, reactor: Any) -> None:
        self.ended: Deferred[None] = Deferred()
        self._worker = worker
        self._input = input
        self._reactor = reactor
        self._closing: IDelayedCall | None = None
        self._line = b""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._input)
        self.transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > _MAX_LINE:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._worker.output(line.decode("utf-8", "backslashreplace"))

    errReceived = outReceived

    def processExited(self, reason: Failure) -> None:
        # Another process, which it has started, may hold them open for as long as it runs.
        self._closing = self._reactor.callLater(_REST, self.transport.loseConnection)  # type: ignore[union-attr]

    def processEnded(self, reason: Failure) -> None:
        if self._closing is not None and self._closing.active():
            self._closing.cancel()
        self._worker.ended(reason)
        self.ended.callback(None)


def _why(reason: Failure) -> str:
    """Say how a process has ended."""
    number, code = getattr(reason.value, "signal", None), getattr(reason.value, "exitCode", None)
    return f"killed by {signal.Signals(number).name}" if number else f"exit code {code}"
