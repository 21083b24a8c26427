"""The application of a worker: it answers Postfix, and leaves everything else to the main process."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from chapps_tw.application.application import Application
from chapps_tw.application.asked import ListenerStates
from chapps_tw.application.asked_of_workers import Telling
from chapps_tw.application.database import Book
from chapps_tw.application.events import EventLog
from chapps_tw.application.history import History
from chapps_tw.application.http import Http, PageForPeople, Tokens
from chapps_tw.application.log_output import LogOutput
from chapps_tw.application.nodes import Nodes
from chapps_tw.application.notices import Notices
from chapps_tw.application.part import Part
from chapps_tw.application.ports import Ports, WorkerPorts
from chapps_tw.application.reloading import Reloading
from chapps_tw.config.changes import in_force
from chapps_tw.config.load import load
from chapps_tw.config.settings import Settings
from chapps_tw.database.writable_book import WritableSqlBook
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.observe.decision_record import Entry
from chapps_tw.observe.metric_sums import Family
from chapps_tw.policies.events import LimitEvent
from chapps_tw.policies.registry import BUILT_IN, Registry
from chapps_tw.processes.channel import Asked
from chapps_tw.processes.configuration import content_of, unpacked
from chapps_tw.processes.link import Link
from chapps_tw.processes.worker_process import CHANNEL, LOADS, PORTS
from chapps_tw.processes.workers import CHANGE, CHECK, COMPARE, METRICS
from chapps_tw.sockets.loads import Loads

# What the main process does for all.
_LEFT_TO_MAIN: Final = (
    LogOutput, History, Tokens, Book, Nodes, EventLog, Notices, Http, ListenerStates, PageForPeople, Reloading,
)  # fmt: skip


class Linked(Part):
    """The connection to the main process. It is the last part to stop, since all others tell it something.

    :param stop: ends this process; called when the main process has ended.
    """

    def __init__(self, link: Link, reactor: Any, stop: Callable[[], object]) -> None:
        self._link = link
        self._reactor = reactor
        self._stop = stop
        self._is_stopping = False

    def open(self) -> None:
        """Take the descriptor that this process was started with."""
        self._link.channel.closed.addCallback(self._closed)
        with socket.socket(fileno=CHANNEL) as ours:
            self._link.channel.attach(ours, self._reactor)

    def _closed(self, _: None) -> None:
        if not self._is_stopping:
            self._stop()

    def stop(self) -> Awaitable[None]:
        """Pass on what waits."""
        self._is_stopping = True
        self._link.finish()
        return self._link.channel.closed


class BookConnections(Part):
    """The connections of the book. What maintains it is left to the main process."""

    def __init__(self, book: WritableSqlBook) -> None:
        self._book = book

    def stop(self) -> Awaitable[None]:
        """Close them."""
        return self._book.stop()


class Worker(Application):
    """The parts of a worker.

    :param number: of the worker, from 1 on.
    """

    def __init__(self, settings: Settings, reactor: Any, number: int, registry: Registry = BUILT_IN) -> None:
        self._place, self._loads = number - 1, Loads(LOADS)
        asked: dict[str, Asked] = {
            METRICS: self._families,
            CHECK: self._check,
            COMPARE: self._compare_here,
            CHANGE: self._change,
        }
        self._link = Link(asked, reactor)
        super().__init__(settings, reactor, registry=registry)
        self.reporter.observe(self._link.event)
        own = (part for part in self.parts if not isinstance(part, _LEFT_TO_MAIN))
        names = [each.name for each in settings.listeners]
        telling = Telling(self.listeners, names, self._link.heard, reactor)
        linked = Linked(self._link, reactor, reactor.stop)
        self.parts = (linked, BookConnections(self.database.book), telling, *own)

    def start(self) -> None:
        """Start working, and say so."""
        self._note_load()
        for factory in self.factories.values():
            factory.changed = self._note_load
        super().start()
        self._link.ready()

    def _lost_lines(self) -> int:
        return self._link.lost

    def reload(self) -> None:
        """Leave it to the main process, which passes on what it has read."""

    async def _change(self, content: str) -> None:
        """Put another configuration in force.

        :raises StartError, ConfigError: if that is not possible.
        """
        await self.change_to(await self._in_thread(_changed, self.settings, content_of(content), self.registry))

    def _sinks(self) -> Sequence[Callable[[Sequence[Entry]], None]]:
        return [self._link.extend]

    def _make_ports(self) -> Ports:
        held = range(PORTS, PORTS + len(self.settings.listeners))
        return WorkerPorts(self.settings, self.reactor, held, partial(self._loads.is_least, self._place))

    def _note_load(self) -> None:
        """Let the other workers know how many connections of Postfix this one has."""
        self._loads.set(self._place, sum(len(factory.connections) for factory in self.factories.values()))

    def _observe(self, observer: Callable[[LimitEvent], None]) -> None:
        """Leave events to the main process, which keeps them and sends notices."""

    async def _families(self) -> Sequence[Family]:
        return self.metrics.families()

    async def _check(self) -> None:
        problem = self.state.store.problem or self.database.book.problem
        if problem:
            raise StateUnavailable(problem)

    async def _compare_here(self) -> None:
        await self._compare()


def settings_from(passed_on: bytes, path: str | None, registry: Registry) -> Settings:
    """Return the settings in force in the main process.

    :param passed_on: by the main process: :func:`~chapps_tw.processes.configuration.packed`.
    :raises ConfigError: for example, if a file that the configuration names is missing now.
    """
    first, current = unpacked(passed_on)
    started = load(path, os.environ, added=registry.added, content=first)
    return _changed(started, current, registry) if current != first else started


def _changed(running: Settings, content: bytes, registry: Registry) -> Settings:
    return in_force(running, load(running.path, os.environ, added=registry.added, content=content))
