"""Reading the configuration again while the service runs."""

from __future__ import annotations

import gc
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from chapps_tw.application.http import ConfigWriter
from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import StartError
from chapps_tw.config.changes import differences, digest_of, in_force, late_listeners
from chapps_tw.config.settings import ConfigError, Settings
from chapps_tw.interfaces.configuration import Change, Loaded

# Names in a line of the log.
MAX_NAMES = 40


class Running(Protocol):
    """What gets other settings.

    :ivar settings: those in force.
    """

    @property
    def settings(self) -> Settings: ...

    async def use(self, settings: Settings) -> None:
        """Put other settings in force between two requests.

        :raises StartError, ConfigError: if that is not possible; nothing has changed then.
        """


class Reloading(Part):
    """Reads the configuration again, once at a time (:class:`~chapps_tw.interfaces.configuration.Configuration`).

    Who asks while it is read waits for the next time: the file may have changed since. All who wait share that one.

    :param read: reads the configuration. Called in a thread. Raises ConfigError.
    :param in_thread: runs a function with its arguments in a thread.
    :param tell: tells the service manager something: :func:`~chapps_tw.application.notify.notify`.
    """

    log = Logger()

    def __init__(
        self,
        running: Running,
        read: Callable[[], Settings],
        tell: Callable[[str], None],
        in_thread: Callable[..., Awaitable[Any]],
    ) -> None:
        self._running = running
        self._read = read
        self._tell = tell
        self._in_thread = in_thread
        self._listeners = [each.name for each in running.settings.listeners]
        self._writer = ConfigWriter(running.settings)
        self._loaded = Loaded(digest_of(running.settings), time.time())
        self._waiting: list[Deferred[Change]] = []
        self._is_busy = self._is_stopped = False

    def loaded(self) -> Loaded:
        """Return what is in force."""
        return self._loaded

    def write(self, passcode: str) -> Awaitable[tuple[str, list[str]]]:
        """See :meth:`chapps_tw.application.http.ConfigWriter.write`."""
        return self._writer.write(passcode)

    def request(self) -> None:
        """Read it again; the log tells what becomes of it."""
        if not self._waiting:
            # What failed is in the log.
            self.reload().addErrback(lambda _: None)

    def reload(self) -> Deferred[Change]:
        """Read it again, and put it in force. Cancelling the Deferred does not cancel that.

        :raises ConfigError: with all errors; nothing has changed then.
        """
        waiter: Deferred[Change] = Deferred()
        self._waiting.append(waiter)
        if not self._is_busy:
            self._is_busy = True
            Deferred.fromCoroutine(self._run())
        return waiter

    def stop(self) -> None:
        """Put nothing in force any more."""
        self._is_stopped = True

    async def _run(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, []
                await self._answer(waiting)
        finally:
            self._is_busy = False

    async def _answer(self, waiting: Sequence[Deferred[Change]]) -> None:
        if not self._is_stopped:
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            change = await self._reload()
        except ConfigError as error:
            self._report_errors(error.problems)
            for waiter in waiting:
                waiter.errback(error)
        except Exception as error:
            self.log.failure("The configuration was not loaded, and nothing has changed")
            for waiter in waiting:
                waiter.errback(error)
        else:
            self._report(change)
            for waiter in waiting:
                waiter.callback(change)
        finally:
            if not self._is_stopped:
                self._tell("READY=1")

    async def _reload(self) -> Change:
        before = self._running.settings
        loaded, settings = await self._in_thread(self._read_both, before)
        if self._is_stopped:
            raise ConfigError(["the service is stopping"])
        try:
            await self._running.use(settings)
        except StartError as error:
            raise ConfigError([str(error)]) from None
        self._writer = ConfigWriter(loaded)
        for warning in settings.warnings:
            self.log.warn("{warning}", warning=warning)
        change: Change = await self._in_thread(self._change, before, settings, loaded)
        self._loaded = change.loaded
        return change

    def _read_both(self, running: Settings) -> tuple[Settings, Settings]:
        """Return the settings as they are read, and what can be in force of them."""
        loaded = self._read()
        # configparser leaves reference cycles, which are all young: this takes a millisecond.
        gc.collect(0)
        return loaded, in_force(running, loaded)

    def _change(self, before: Settings, settings: Settings, loaded: Settings) -> Change:
        source = loaded.path or "no file: built-in defaults"
        late = [*differences(settings, loaded), *late_listeners(self._listeners, loaded)]
        return Change(source, differences(before, settings), late, Loaded(digest_of(settings), time.time()))

    def _report(self, change: Change) -> None:
        names = f"changed: {_joined(change.changed)}" if change.changed else "nothing has changed"
        self.log.info(
            "Configuration loaded from {source} ({digest}): {names}",
            source=change.source, digest=change.loaded.digest, names=names,
        )  # fmt: skip
        if change.restart:
            self.log.warn("These take effect after a restart: {names}", names=_joined(change.restart))

    def _report_errors(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more: chapps-cli check-config lists them)" if len(problems) > 1 else ""
        text = "The configuration was not loaded, and nothing has changed: {problem}{more}"
        self.log.error(text, problem=problems[0], more=more)


def _joined(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more
