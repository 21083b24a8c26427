# mypy: allow-untyped-calls
"""Looking names up in threads that nobody waits for.

A lookup by getaddrinfo(3) takes as long as silent name servers let it, many seconds, and cannot be cancelled. In the
threads of the reactor, it would delay all other work there, and the end of the process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from socket import gaierror, getaddrinfo
from threading import Thread
from typing import Any, Final

from twisted.internet._resolver import GAIResolver, HostResolution
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

MOST: Final = 20
"""Lookups at the same time. More than that fail at once: they would only wait for those that hang."""


@implementer(IResolutionReceiver)
class _Receiver:
    """Passes on what is found.

    :param done: called at the end.
    """

    def __init__(self, receiver: Any, done: Callable[[], None]) -> None:
        self.resolutionBegan = receiver.resolutionBegan
        self.addressResolved = receiver.addressResolved
        self._receiver = receiver
        self._done = done

    def resolutionComplete(self) -> None:
        self._done()
        self._receiver.resolutionComplete()


@implementer(IHostnameResolver)
class Lookups:
    """Looks names up for a reactor: ``reactor.installNameResolver(Lookups(reactor))``."""

    def __init__(self, reactor: Any) -> None:
        self._threads = ThreadPool(0, MOST, "lookups")
        self._threads.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
        self._threads.start()
        self._resolver = GAIResolver(reactor, lambda: self._threads, _look_up)  # type: ignore[arg-type]
        self._running = 0

    def resolveHostName(
        self,
        resolutionReceiver: Any,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """See :class:`IHostnameResolver`."""
        if self._running >= MOST:
            resolution = HostResolution(hostName)
            resolutionReceiver.resolutionBegan(resolution)
            resolutionReceiver.resolutionComplete()
            return resolution
        self._running += 1
        receiver = _Receiver(resolutionReceiver, self._done)
        return self._resolver.resolveHostName(receiver, hostName, portNumber, addressTypes, transportSemantics)

    def _done(self) -> None:
        self._running -= 1


def _look_up(*values: Any) -> Any:
    """Look a name up. Raises gaierror, also for a text that can be no name: of other errors, nobody would be told."""
    try:
        return getaddrinfo(*values)
    except (OSError, ValueError) as error:
        raise gaierror(str(error)) from error
