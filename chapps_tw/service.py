"""``twistd chapps``: starting and stopping the process."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.usage import Options as UsageOptions

from chapps_tw.application import VERSION
from chapps_tw.application.application import Application
from chapps_tw.application.notify import notify
from chapps_tw.application.preflight import findings
from chapps_tw.application.start_errors import StartError, opening
from chapps_tw.config.load import load
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.observe.decision_record import FORMATS
from chapps_tw.observe.log_limit import LogLimit
from chapps_tw.observe.log_stream import LogStream
from chapps_tw.policies.registry import BUILT_IN, Registry, installed
from chapps_tw.security.private_files import make_directory
from chapps_tw.sockets.lookups import Lookups

# Thresholds of the garbage collector for its three generations (gc.set_threshold).
GC_THRESHOLDS = (50_000, 20, 100)

# Seconds for which a computing thread, such as an SPF evaluation, may keep the interpreter from the reactor.
SWITCH_SECONDS = 0.0001


class Options(UsageOptions):
    """The command line of ``twistd chapps``."""

    synopsis = "[--config FILE]"
    longdesc = "CHAPPS-TW is a policy service for Postfix with an HTTP API."
    optParameters = (
        ("config", "c", None, "The configuration file. Default: $CHAPPS_CONFIG, or else /etc/chapps/chapps.ini."),
        ("worker", None, 0, "For the service itself, which starts others of [CHAPPS] processes.", int),
    )

    settings: Settings
    registry: Registry = BUILT_IN
    read: Callable[[], Settings]

    def postOptions(self) -> None:
        """Read the configuration; if it is invalid, exit with all errors."""
        try:
            self.registry = installed()
            self.read = partial(load, self["config"], dict(os.environ), findings, self.registry.added)
            self.settings = self._passed_on() if self["worker"] else self.read()
        except ConfigError as error:
            raise SystemExit(str(error)) from None

    def _passed_on(self) -> Settings:
        """Return the settings in force in the main process. The file may have changed since it was read.

        :raises ConfigError: for example, if a file that the configuration names is missing now.
        """
        from chapps_tw.application.worker import settings_from

        return settings_from(sys.stdin.buffer.read(), self["config"], self.registry)


def makeService(options: Options, reactor: Any = None) -> Chapps:
    """Create the service from the settings. Nothing is opened before it starts.

    The reactor gets a monotonic clock: Twisted uses the time of day, and if that is set back, all timers would be
    delayed by as much. Names are looked up in threads of their own, which delay nothing.

    :param reactor: one on which nothing has been scheduled yet.
    """
    if reactor is None:
        from twisted.internet import reactor
    reactor.seconds = time.monotonic
    reactor.installNameResolver(Lookups(reactor))
    return Chapps(
        options.settings, reactor, os.environ, _log_stream(options), options.registry, options.read, options["worker"]
    )


def _log_stream(options: Options) -> LogStream | None:
    """Replace standard output with a stream that never blocks, before Twisted logs there.

    Otherwise a stalled reader would block the reactor as soon as the pipe is full.

    :returns: ``None`` if Twisted does not log there.
    """
    if sys.stdout is None or not (options.parent and options.parent["nodaemon"]):
        return None
    limit = LogLimit(Logger().warn, time.monotonic)
    stream = LogStream(FORMATS[options.settings.log.format].loss, lambda text: limit.warn("{text}", text=text))
    stream.open()
    sys.stdout = stream
    atexit.register(stream.finish)
    return stream


class Chapps(Service):
    """The Twisted service of the process.

    :param stream: replaces standard output, if Twisted logs there.
    :param registry: the available policies.
    :param read: reads the configuration again.
    :param worker: the number of the worker; 0 if no main process has started this one.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        environ: Mapping[str, str],
        stream: LogStream | None = None,
        registry: Registry = BUILT_IN,
        read: Callable[[], Settings] | None = None,
        worker: int = 0,
    ) -> None:
        self._worker = worker
        self._settings = settings
        self._read = read
        self._registry = registry
        self._reactor = reactor
        self._environ = environ
        self._stream = stream
        self._application: Application | None = None

    def startService(self) -> None:
        """Open everything, and start answering once the reactor runs.

        twistd has dropped its privileges before this, so that files get the right owner.

        :raises SystemExit: with a sentence, if something cannot be opened.
        """
        super().startService()  # type: ignore[no-untyped-call]
        self._handle_signals()
        source = self._settings.path or "no file: built-in defaults"
        self.log.info("{version}: configuration from {source}", version=VERSION, source=source)
        for warning in self._settings.warnings:
            self.log.warn("{warning}", warning=warning)
        try:
            self._open()
        except (StartError, ConfigError, OSError) as error:
            raise SystemExit(f"chapps cannot start: {error}") from None
        self._reactor.callWhenRunning(self._ready)

    def _open(self) -> None:
        settings = self._settings
        data_dir = settings.chapps.data_dir
        with opening(settings, "CHAPPS", "data_dir", data_dir):
            make_directory(data_dir)
        output = self._stream.file if self._stream else None
        tell = partial(notify, self._environ)
        if self._worker:
            from chapps_tw.application.worker import Worker

            self._application = Worker(settings, self._reactor, self._worker, self._registry)
        elif settings.chapps.processes > 1:
            from chapps_tw.application.main_process import MainProcess

            self._application = MainProcess(settings, self._reactor, output, self._registry, self._read, tell)
        else:
            self._application = Application(settings, self._reactor, output, self._registry, self._read, tell)
        self._application.open()

    def _ready(self) -> None:
        assert self._application is not None
        self._stop_at_the_first_signal()
        self._application.start()
        # Objects created so far are permanent: exclude them from garbage collection.
        gc.collect()
        gc.freeze()
        # Requests create few reference cycles: a collection per 700 objects, the default, takes 7 % of the time.
        gc.set_threshold(*GC_THRESHOLDS)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._application.ready().addCallback(lambda _: notify(self._environ, "READY=1"))

    def _handle_signals(self) -> None:
        """Handle signals that would otherwise end the process, which systemd would consider intended."""
        before = signal.getsignal(signal.SIGUSR1)

        def reload(number: int, frame: FrameType | None) -> None:
            self._reactor.callFromThread(self._reload)

        def open_logs(number: int, frame: FrameType | None) -> None:
            # twistd's own handler: with --logfile, it has a log file too.
            if callable(before):
                before(number, frame)
            self._reactor.callFromThread(self._open_log_again)

        def ignore(number: int, frame: FrameType | None) -> None:
            # Not SIG_IGN, which child processes would inherit.
            pass

        for number, handler in ((signal.SIGHUP, reload), (signal.SIGUSR1, open_logs), (signal.SIGUSR2, ignore)):
            signal.signal(number, handler)

    def _stop_at_the_first_signal(self) -> None:
        """Ignore further stop signals after the first one, and handle that in a turn of the reactor.

        A signal to a process group arrives twice if the parent process forwards it, and the reactor reports the second
        one as an error. A stop takes at most five seconds; SIGQUIT ends the process at once.

        The reactor's handler logs a line, but a signal may arrive in the middle of another line.
        """
        # SIGINT remains ignored if it was at the start, as in a background job.
        found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        handlers = {int(number): handler for number, handler in found.items() if callable(handler)}
        stopping = False

        def stop(number: int, frame: FrameType | None) -> None:
            nonlocal stopping
            if not stopping:
                stopping = True
                self._reactor.callFromThread(handlers[number], number, None)

        for each in handlers:
            signal.signal(each, stop)

    def _reload(self) -> None:
        if self._application is not None:
            self._application.reload()

    def _open_log_again(self) -> None:
        if self._application is not None:
            self._application.log_output.reopen()
        self.log.info("SIGUSR1: the log is opened again")

    async def _stop(self, application: Application) -> None:
        notify(self._environ, "STOPPING=1")
        await application.stop()
        if self._stream is not None:
            # Twisted ends the process by a signal, right after its last log line.
            self._stream.finish()

    def stopService(self) -> Deferred[None]:
        """Finish pending requests, then close everything, within five seconds."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._application is None:
            return succeed(None)
        return Deferred.fromCoroutine(self._stop(self._application))
