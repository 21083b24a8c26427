"""The part with all ports, which answers pending requests at a stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chapps_tw.application import VERSION
from chapps_tw.application.part import Part
from chapps_tw.application.ports import Opened, Ports
from chapps_tw.config.checks import places
from chapps_tw.config.settings import Settings
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.server import BoundedSite
from chapps_tw.spf.checker import SpfChecker

# Seconds between checks for overdue requests.
SWEEP_SECONDS = 0.2

# Seconds of a stop after which: requests that wait for DNS are answered without it, all pending requests are answered
# by on_failure of their policies, and the remaining connections are closed.
SPF_SECONDS = 2.0
DRAIN_SECONDS = 3.0
ABANDON_SECONDS = 3.5


class Listening(Part):
    """The ports of the listeners and of the HTTP API.

    :param factories: for Postfix, by the name of the listener.
    :param site: the HTTP API.
    :param checker: closed when a stop takes long, since SPF checks may take longer.
    :param ports: opens them.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        factories: Mapping[str, PolicyFactory],
        site: BoundedSite,
        checker: SpfChecker,
        ports: Ports,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._factories = factories
        self._site = site
        self._checker = checker
        self._opener = ports
        self._ports: list[Opened] = []
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor

    def open(self) -> None:
        """Listen on all ports. Connections are served once the reactor runs."""
        factories = {f"listener {name}": factory for name, factory in self._factories.items()}
        for where in places(self._settings):
            opened = self._opener.open(where, factories.get(where.what, self._site))
            if opened is None:
                continue
            self._ports.append(opened)
            self.log.info("{version}: {what} on {endpoint}", version=VERSION, what=where.what, endpoint=where.endpoint)

    def start(self) -> None:
        """Start checking for overdue requests."""
        self._sweeping.start(SWEEP_SECONDS, now=False)

    def _sweep(self) -> None:
        for factory in self._factories.values():
            factory.cancel_overdue()

    async def stop(self) -> None:
        """Stop accepting connections, and answer pending requests."""
        await gatherResults([self._stop_listening(port, lent) for port, lent in self._ports])
        drained = gatherResults([*(factory.drain() for factory in self._factories.values()), self._site.stop()])
        late = self._schedule_deadlines()
        await drained
        for each in late:
            if each.active():
                each.cancel()
        if self._sweeping.running:
            self._sweeping.stop()

    def _stop_listening(self, port: Any, lent: bool) -> Deferred[Any]:
        """Stop accepting connections.

        :param lent: whether systemd or the main process owns the port and keeps using it: Twisted would remove a unix
            socket on closing it.
        """
        if lent:
            return maybeDeferred(port.stopReading)

        def go_on(failure: Failure) -> None:
            # For example, a unix socket that was removed. Pending requests must still be answered.
            self.log.warn("{port} was not closed: {why}", port=port, why=failure.value)

        return maybeDeferred(port.stopListening).addErrback(go_on)

    def _schedule_deadlines(self) -> list[IDelayedCall]:
        ends = (
            (SPF_SECONDS, self._checker.close),
            (DRAIN_SECONDS, self._cancel_pending),
            (ABANDON_SECONDS, self._abandon),
        )
        return [self._reactor.callLater(seconds, end) for seconds, end in ends]

    def _cancel_pending(self) -> None:
        """Answer every question that still waits for something, without it."""
        for factory in self._factories.values():
            factory.cancel_pending()

    def _abandon(self) -> None:
        """Close the connections that still wait for an answer: Postfix asks again later."""
        self._site.abandon()
        for factory in self._factories.values():
            for connection in tuple(factory.connections):
                connection.transport.abortConnection()
