"""The lifecycle of the parts of the application."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from twisted.logger import Logger

from chapps_tw.config.settings import Settings

log = Logger()


class Part:
    """A component that must be opened, started or stopped. By default, each step does nothing."""

    def open(self) -> None:
        """Open files and sockets, before the reactor runs.

        :raises StartError: if one of them cannot be used.
        """

    def start(self) -> None:
        """Start working. The reactor is running."""

    def prepare(self, settings: Settings) -> Callable[[], object]:
        """Open what new settings need while the part runs. Called in a thread; must not change the part.

        :param settings: those to be put in force; what takes effect after a restart is unchanged.
        :returns: what puts them in force, called by the reactor. It does not fail, and takes little time. What the
            settings do not change continues undisturbed.
        :raises StartError: if they cannot be put in force.
        """
        return _nothing

    def stop(self) -> Awaitable[None] | None:
        """Finish pending work and close everything. Also called for a part that was not started.

        :returns: an awaitable, or ``None`` if there is nothing to wait for.
        """


def _nothing() -> None:
    """Put settings in force that change nothing here."""


def open_all(parts: Sequence[Part]) -> None:
    """Open parts in order, up to the first that fails.

    :raises StartError: if a part cannot be opened.
    """
    for part in parts:
        part.open()


def start_all(parts: Sequence[Part]) -> None:
    """Start parts in order."""
    for part in parts:
        part.start()


def prepare_all(parts: Sequence[Part], settings: Settings) -> list[Callable[[], object]]:
    """Prepare parts for new settings, in reverse order, up to the first that fails.

    So the log file, which is the first part, is opened if nothing else can fail.

    :returns: what puts the settings in force: :meth:`Part.prepare`.
    :raises StartError: if a part cannot use them.
    """
    return [part.prepare(settings) for part in reversed(parts)]


async def stop_all(parts: Sequence[Part]) -> None:
    """Stop parts in reverse order. Failures are logged, and do not keep other parts from being stopped."""
    for part in reversed(parts):
        try:
            waiting = part.stop()
            if waiting is not None:
                await waiting
        except Exception:
            log.failure("{part} could not be stopped", part=type(part).__name__)
