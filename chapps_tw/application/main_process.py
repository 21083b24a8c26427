"""The application of the main process: it supervises workers that answer Postfix, and does everything else."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred

from chapps_tw.application.application import Application
from chapps_tw.application.asked import ListenerStates
from chapps_tw.application.asked_of_workers import StatesOfAll, WorkerReports
from chapps_tw.application.part import Part
from chapps_tw.application.ports import MainPorts, Ports
from chapps_tw.config.settings import Settings
from chapps_tw.observe.decision_record import Entry
from chapps_tw.observe.log_file import LogFile
from chapps_tw.policies.events import LimitEvent
from chapps_tw.policies.registry import BUILT_IN, Registry
from chapps_tw.processes.configuration import packed
from chapps_tw.processes.worker_process import Command
from chapps_tw.processes.workers import Workers
from chapps_tw.rest.routers.insight import Check

# What the service manager tells the main process alone.
_OWN_VARIABLES = frozenset({"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})

# Writes what a worker logs, without the time, which the main process adds.
_LOGGER = "chapps_tw.processes.lines.observer"


class Supervision(Part):
    """Runs the workers. It is the first part to stop: what the workers have decided is written by the others."""

    def __init__(self, workers: Workers, command: Callable[[], Command]) -> None:
        self._workers = workers
        self._command = command

    def start(self) -> None:
        """Start the workers."""
        self._workers.start(self._command)

    def stop(self) -> Awaitable[None]:
        """Stop the workers."""
        return self._workers.stop()


class MainProcess(Application):
    """The parts of the main process. It listens for HTTP, and holds the ports for Postfix open.

    :ivar workers: the processes that answer Postfix.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        output: LogFile | None = None,
        registry: Registry = BUILT_IN,
        read: Callable[[], Settings] | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._content = settings.content
        self._ports = MainPorts(settings, reactor)
        reasons = {str(reason): reason for reason in registry.reasons}
        self._reports = WorkerReports()
        self.workers = Workers(settings.chapps.processes, self._take, self._note, self._reports.take, reasons, reactor)
        super().__init__(settings, reactor, output, registry, read, tell)
        self.metrics.add_counter(
            "chapps_process_restarts", "Processes that were started again.", (), lambda: [((), self.workers.restarts)]
        )
        self.parts = (*self.parts, Supervision(self.workers, self._command))

    def ready(self) -> Deferred[object]:
        """Fire when all workers answer Postfix."""
        return self.workers.ready()

    def _command(self) -> Command:
        """Return how to start a worker: with the configuration as it is now, not as the file is then."""
        settings = self.settings
        arguments = [sys.executable, sys.argv[0], "--nodaemon", "--pidfile=", f"--logger={_LOGGER}", "chapps"]
        environ = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
        return Command(
            [*arguments, "--config", settings.path], environ, self._ports.held, packed(self._content, settings.content)
        )

    async def change_to(self, settings: Settings) -> None:
        await super().change_to(settings)
        await self.workers.change_to(settings.content)

    def _take(self, entries: Sequence[Entry]) -> None:
        self.reporter.pass_on(entries)

    def _note(self, event: LimitEvent) -> None:
        # The worker has counted and logged it.
        self.reporter.tell(event)

    def _make_states(self, *values: Any) -> ListenerStates:
        return StatesOfAll(*values, reports=self._reports)

    def _make_ports(self) -> Ports:
        return self._ports

    async def _compare(self) -> None:
        await super()._compare()
        await self.workers.compare()

    async def _metrics(self) -> bytes:
        return self.metrics.text(await self.workers.metrics())

    def _checks(self) -> Mapping[str, Check]:
        return {**super()._checks(), **self.workers.checks}
