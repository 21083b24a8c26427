"""``twistd chapps``: starting and stopping the process."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.usage import Options as UsageOptions

from chapps_tw.config import ConfigError, Settings
from chapps_tw.config_file import load
from chapps_tw.notify import notify
from chapps_tw.parts import VERSION, Parts, StartError

# How often questions that take too long are looked for, and how long a stop waits for the last ones.
SWEEP_SECONDS = 0.2
DRAIN_SECONDS = 3.0

# New objects until the collector looks at them, and how often at older ones (gc.set_threshold).
GC_THRESHOLDS = (50_000, 20, 100)


class Options(UsageOptions):
    """The command line of ``twistd chapps``."""

    synopsis = "[--config FILE]"
    longdesc = "CHAPPS-TW answers Postfix' policy questions, and questions about them over HTTP."
    optParameters = (
        ("config", "c", None, "The chapps.ini to read; else $CHAPPS_CONFIG, else /etc/chapps/chapps.ini."),
    )

    settings: Settings

    def postOptions(self) -> None:
        """Read the configuration; what is wrong with it ends the program, all of it told."""
        try:
            self.settings = load(self["config"], os.environ)
        except ConfigError as error:
            raise SystemExit(str(error)) from None


def makeService(options: Options, reactor: Any = None) -> Chapps:
    """Make the service of the settings. Nothing is opened before it starts."""
    if reactor is None:
        from twisted.internet import reactor
    return Chapps(options.settings, reactor, os.environ)


class Chapps(Service):
    """One process: policy listeners and HTTP over one state store and one engine."""

    log = Logger()

    def __init__(self, settings: Settings, reactor: Any, environ: Mapping[str, str]) -> None:
        self._settings = settings
        self._reactor = reactor
        self._environ = environ
        self._ports: list[IListeningPort] = []
        self._parts: Parts | None = None
        self._sweep = LoopingCall(self._sweep_once)
        self._sweep.clock = reactor

    def startService(self) -> None:
        """Open everything, and begin to answer once the reactor runs.

        twistd has given up its privileges before this, so that files belong to whom they should.

        :raises SystemExit: with a sentence, when something cannot be opened.
        """
        super().startService()  # type: ignore[no-untyped-call]
        for warning in self._settings.warnings:
            self.log.warn("{warning}", warning=warning)
        try:
            Path(self._settings.chapps.data_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._parts = parts = Parts(self._settings, self._reactor)
            parts.open()
            for listener in self._settings.listeners:
                self._listen(f"[Listener {listener.name}] listen", listener.listen, parts.factories[listener.name])
            if self._settings.api.listen:
                self._listen("[API] listen", self._settings.api.listen, parts.api.site)
        except (StartError, ConfigError, OSError) as error:
            raise SystemExit(f"chapps cannot start: {error}") from None
        self._sweep.start(SWEEP_SECONDS, now=False)
        self._reactor.callWhenRunning(self._ready)

    def _listen(self, option: str, description: str, factory: Any) -> None:
        if description.startswith("tcp") and "backlog=" not in description:
            description += f":backlog={self._settings.chapps.listener_backlog}"
        try:
            listening = serverFromString(self._reactor, description).listen(factory)
        except (ValueError, KeyError, TypeError) as error:
            raise StartError(f"{option} = {description!r} must be a Twisted endpoint ({error})") from None
        opened: list[IListeningPort] = []
        failed: list[Failure] = []
        listening.addCallbacks(opened.append, failed.append)
        if failed:
            raise StartError(f"{option} = {description!r}: {failed[0].getErrorMessage()}")
        self._ports += opened
        self.log.info("{version}: {option} = {listen}", version=VERSION, option=option, listen=description)

    def _ready(self) -> None:
        assert self._parts is not None
        self._parts.start()
        # What was made so far stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # Requests leave few cycles behind: looking for them after each 700 objects costs 7 % of the time.
        gc.set_threshold(*GC_THRESHOLDS)
        notify(self._environ, "READY=1")

    def _sweep_once(self) -> None:
        assert self._parts is not None
        for factory in self._parts.factories.values():
            factory.sweep()

    async def _stop(self) -> None:
        assert self._parts is not None
        notify(self._environ, "STOPPING=1")
        await gatherResults([maybeDeferred(port.stopListening) for port in self._ports])
        drained = gatherResults([factory.drain() for factory in self._parts.factories.values()])
        late = deferLater(self._reactor, DRAIN_SECONDS, self._abandon)
        await drained
        late.addErrback(lambda _: None)
        late.cancel()
        if self._sweep.running:
            self._sweep.stop()
        await self._parts.stop()

    def _abandon(self) -> None:
        """Close the connections that still wait for an answer: Postfix asks again elsewhere."""
        assert self._parts is not None
        for factory in self._parts.factories.values():
            for connection in tuple(factory.connections):
                connection.transport.abortConnection()

    def stopService(self) -> Deferred[None]:
        """Finish what was asked, then close everything; within five seconds."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._parts is None:
            return maybeDeferred(lambda: None)
        return Deferred.fromCoroutine(self._stop())
