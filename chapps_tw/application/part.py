"""What a part of the application is, and how parts are started and stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol, runtime_checkable

from twisted.logger import Logger

from chapps_tw.config.settings import Settings

log = Logger()


class Part:
    """Something that has to be opened, started or stopped. What a part has no use for does nothing."""

    def open(self) -> None:
        """Open files and sockets, before the reactor runs.

        :raises StartError: when one of them cannot be used.
        """

    def start(self) -> None:
        """Begin to work; the reactor runs."""

    def stop(self) -> Awaitable[None] | None:
        """Finish what was begun, and close everything. It may not have been started.

        :returns: what there is to wait for.
        """


@runtime_checkable
class Reloadable(Protocol):
    """A part that can take other settings while it works."""

    def reload(self, settings: Settings) -> None:
        """Work by other settings from now on; what they leave as it is goes on undisturbed.

        :param settings: read, checked, and fit for this part: what wants a restart has been refused before.
        """


def open_all(parts: Sequence[Part]) -> None:
    """Open parts in order.

    :raises StartError: of the first that cannot be opened; those after it are not.
    """
    for part in parts:
        part.open()


def start_all(parts: Sequence[Part]) -> None:
    """Start parts in order."""
    for part in parts:
        part.start()


async def stop_all(parts: Sequence[Part]) -> None:
    """Stop parts in reverse order. One that fails is logged, and the others are stopped all the same."""
    for part in reversed(parts):
        try:
            waiting = part.stop()
            if waiting is not None:
                await waiting
        except Exception:
            log.failure("{part} could not be stopped", part=type(part).__name__)
