"""Ends workers that hang: nobody would ever answer the requests on their connections."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.processes.channel import Channel
from chapps_tw.processes.worker_process import WorkerProcess

INTERVAL: Final = 10.0
"""Seconds between two looks."""

MOST: Final = 3
"""Questions that a worker may leave unanswered. They are counted, not timed: this process may have been halted itself,
and the answers have arrived meanwhile."""


class Watchdog:
    """Asks all workers that are ready, again and again, and kills those that do not answer.

    :param question: that is answered at once.
    :param reactor: for the timer.
    """

    _log = Logger()

    def __init__(self, workers: Sequence[WorkerProcess], question: str, reactor: Any) -> None:
        self._workers = workers
        self._question = question
        self._unanswered: Counter[Channel] = Counter()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def start(self) -> None:
        """Start watching."""
        self._looking.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Stop watching."""
        if self._looking.running:
            self._looking.stop()

    def _look(self) -> None:
        for worker in self._workers:
            if worker.is_ready and self._unanswered[worker.channel] >= MOST:
                self._log.error("process {number} does not answer, and is killed", number=worker.number)
                worker.signal(signal.SIGKILL)
            elif worker.is_ready:
                self._ask(worker.channel)

    def _ask(self, channel: Channel) -> None:
        def answered(_: object) -> None:
            del self._unanswered[channel]

        self._unanswered[channel] += 1
        channel.ask(self._question).addBoth(answered)
