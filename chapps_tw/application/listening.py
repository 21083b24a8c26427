"""The part with all ports, which answers pending requests at a stop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from chapps_tw.application import VERSION
from chapps_tw.application.endpoints import has_certificate, tls_factory
from chapps_tw.application.part import Part
from chapps_tw.application.ports import Opened, Ports
from chapps_tw.application.start_errors import StartError, place
from chapps_tw.config.checks import Place, places
from chapps_tw.config.settings import Settings
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.server import BoundedSite

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
    :param end_checks: ends SPF checks; called when a stop takes long, since they may take longer.
    :param ports: opens them.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        factories: Mapping[str, PolicyFactory],
        site: BoundedSite,
        end_checks: Callable[[], object],
        ports: Ports,
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._factories = factories
        self._site = site
        self._end_checks = end_checks
        self._opener = ports
        # Each port with its place in the configuration.
        self._ports: list[tuple[Opened, Place]] = []
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor

    def open(self) -> None:
        """Listen on all ports. Connections are served once the reactor runs."""
        for where in places(self._settings):
            opened = self._opener.open(where, self._factory(where))
            if opened is None:
                continue
            self._ports.append((opened, where))
            self.log.info("{version}: {what} on {endpoint}", version=VERSION, what=where.what, endpoint=where.endpoint)

    def _factory(self, where: Place) -> PolicyFactory | BoundedSite:
        return self._factories[where.listener] if where.listener else self._site

    def prepare(self, settings: Settings) -> Callable[[], object]:
        """Read the certificates again. Connections that exist go on with the former ones."""
        renewed: list[tuple[Any, TLSMemoryBIOFactory]] = []
        for opened, where in self._ports:
            if has_certificate(where.endpoint):
                try:
                    renewed.append((opened.port, tls_factory(where.endpoint, self._factory(where))))
                except ValueError as error:
                    raise StartError(f"{place(settings, where.section, where.option)}: {error}") from None
        return partial(_renew, renewed)

    def start(self) -> None:
        """Start checking for overdue requests."""
        self._sweeping.start(SWEEP_SECONDS, now=False)

    def _sweep(self) -> None:
        for factory in self._factories.values():
            factory.cancel_overdue()

    async def stop(self) -> None:
        """Stop accepting connections, and answer pending requests."""
        await gatherResults([self._stop_listening(*opened) for opened, _ in self._ports])
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
            (SPF_SECONDS, self._end_checks),
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


def _renew(renewed: Iterable[tuple[Any, TLSMemoryBIOFactory]]) -> None:
    """Let ports accept connections with other factories."""
    for port, factory in renewed:
        before, port.factory = port.factory, factory
        factory.doStart()
        before.doStop()
