"""The lifecycle of the parts of the application."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, runtime_checkable

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

    def stop(self) -> Awaitable[None] | None:
        """Finish pending work and close everything. Also called for a part that was not started.

        :returns: an awaitable, or ``None`` if there is nothing to wait for.
        """


@runtime_checkable
class Reloadable(Protocol):
    """A part that can apply new settings while it runs."""

    def reload(self, settings: Settings) -> None:
        """Apply new settings. What they do not change continues undisturbed.

        :param settings: validated. Changes that need a restart have been rejected before.
        """


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


async def stop_all(parts: Sequence[Part]) -> None:
    """Stop parts in reverse order. Failures are logged, and do not keep other parts from being stopped."""
    for part in reversed(parts):
        try:
            waiting = part.stop()
            if waiting is not None:
                await waiting
        except Exception:
            log.failure("{part} could not be stopped", part=type(part).__name__)
