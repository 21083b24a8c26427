"""All workers: started and stopped, and asked together."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from chapps_tw.mail.decision import ReasonCode
from chapps_tw.observe.decision_record import Entry, entry_from
from chapps_tw.observe.metric_sums import Family, added, remaining
from chapps_tw.policies.events import LimitEvent
from chapps_tw.processes.channel import Channel, ChannelLost, Told
from chapps_tw.processes.configuration import as_value
from chapps_tw.processes.link import ASKED, DECISIONS, EVENT
from chapps_tw.processes.worker_process import Command, WorkerProcess
from chapps_tw.sockets.loads import Loads

METRICS: Final = "metrics"
CHECK: Final = "check"
COMPARE: Final = "compare"
CHANGE: Final = "change"

# Seconds that a worker may take to answer.
_TIMEOUT: Final = 2.0
# The same for another configuration, which it reads in a thread.
_CHANGE_TIMEOUT: Final = 10.0


class Workers:
    """The workers of a main process.

    :param count: how many.
    :param take: called with the decisions that a worker passes on.
    :param note: called with each event near a limit that a worker was the first to note.
    :param heard: called with what the listeners of a worker have heard: its pid, the report, and the pids of all.
    :param reasons: all reasons, by code.
    """

    _log = Logger()

    def __init__(
        self,
        count: int,
        take: Callable[[Sequence[Entry]], None],
        note: Callable[[LimitEvent], None],
        heard: Callable[[int, Mapping[str, Any], Collection[int]], None],
        reasons: Mapping[str, ReasonCode],
        reactor: Any,
    ) -> None:
        self._take = take
        self._note = note
        self._heard = heard
        self._reasons = reasons
        self._reactor = reactor
        told: Mapping[str, Told] = {DECISIONS: self._decisions, EVENT: self._event, ASKED: self._asked}
        loads = Loads.of(count)
        self._all = [WorkerProcess(number, loads, told, reactor) for number in range(1, count + 1)]
        # The last metrics of each channel, and what remains of those of ended processes.
        self._last: dict[Channel, list[Family]] = {}
        self._ended: list[Family] = []

    def _decisions(self, batch: Sequence[Sequence[Any]]) -> None:
        self._take([entry_from(values, self._reasons) for values in batch])

    def _event(self, values: Mapping[str, Any]) -> None:
        self._note(LimitEvent(**values))

    def _asked(self, pid: int, report: Mapping[str, Any]) -> None:
        self._heard(pid, report, [worker.pid for worker in self._all])

    def start(self, command: Callable[[], Command]) -> None:
        """Start all.

        :param command: returns how to start one, each time.
        """
        for worker in self._all:
            worker.start(command)

    def ready(self) -> Deferred[Any]:
        """Fire when all of them have been ready to answer Postfix."""
        return DeferredList([worker.was_ready for worker in self._all])

    async def stop(self) -> None:
        """Stop all at the same time."""
        await DeferredList([Deferred.fromCoroutine(worker.stop()) for worker in self._all])

    @property
    def restarts(self) -> int:
        """How often one was started again."""
        return sum(worker.restarts for worker in self._all)

    @property
    def checks(self) -> Mapping[str, Callable[[], Awaitable[object]]]:
        """For each worker, by name, a check that raises if it cannot decide about mail."""
        return {f"process {worker.number}": partial(self._ask, worker, CHECK) for worker in self._all}

    async def compare(self) -> None:
        """Have all compare each cached value with the book before its next use."""
        await DeferredList([self._ask(worker, COMPARE) for worker in self._all], consumeErrors=True)

    async def change_to(self, content: bytes) -> None:
        """Have all use another configuration, which is in force here. One that cannot is started again with it.

        :param content: of its file.
        """
        value = as_value(content)
        await DeferredList([Deferred.fromCoroutine(self._change(worker, value)) for worker in self._all])

    async def _change(self, worker: WorkerProcess, content: str) -> None:
        try:
            await self._ask(worker, CHANGE, content, timeout=_CHANGE_TIMEOUT)
        except ChannelLost as error:
            text = "process {number} is started again, with the other configuration: {why}"
            self._log.warn(text, number=worker.number, why=error)
            worker.signal(signal.SIGTERM)

    async def metrics(self) -> list[list[Family]]:
        """Return the metrics of all workers, and what remains of those that have ended.

        Of one that does not answer, those of the last time: counters must not decrease.
        """
        await DeferredList([Deferred.fromCoroutine(self._metrics(worker)) for worker in self._all])
        self._retire()
        return [*self._last.values(), self._ended]

    async def _metrics(self, worker: WorkerProcess) -> None:
        channel = worker.channel
        try:
            self._last[channel] = await self._ask(worker, METRICS)
        except ChannelLost:
            return

    def _retire(self) -> None:
        present = {worker.channel for worker in self._all}
        for channel in self._last.keys() - present:
            self._ended = added([self._ended, remaining(self._last.pop(channel))])

    def _ask(self, worker: WorkerProcess, name: str, *values: object, timeout: float = _TIMEOUT) -> Deferred[Any]:
        """Ask a worker.

        :raises ChannelLost: (the Deferred) with the reason, if it cannot answer in time.
        """

        def late(_: object, seconds: float) -> None:
            raise ChannelLost(f"no answer within {seconds:g} s")

        return worker.channel.ask(name, *values).addTimeout(timeout, self._reactor, late)
