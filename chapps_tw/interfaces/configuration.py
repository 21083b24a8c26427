"""The configuration of the running service, as the HTTP API uses it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import NamedTuple, Protocol


class WrongPasscode(Exception):
    """The passcode is wrong, or the configuration has none. The message says which."""


class Loaded(NamedTuple):
    """The configuration in force.

    :ivar digest: equal for equal configurations, but for secrets.
    :ivar at: epoch seconds at which it was put in force.
    """

    digest: str
    at: float


class Change(NamedTuple):
    """What became of reading the configuration again.

    :ivar source: the file, in words.
    :ivar changed: names of the options that are in force now, and were not before.
    :ivar restart: names of what differs from the configuration, and takes effect after a restart.
    :ivar loaded: the configuration in force.
    """

    source: str
    changed: list[str]
    restart: list[str]
    loaded: Loaded


class Configuration(Protocol):
    """Reads the configuration again, and writes it."""

    def loaded(self) -> Loaded:
        """Return what is in force."""

    def reload(self) -> Awaitable[Change]:
        """Read the file again, and put it in force between two requests.

        :raises ConfigError: with all errors; nothing has changed then.
        """

    def write(self, passcode: str) -> Awaitable[tuple[str, list[str]]]:
        """Write the configuration to its file; return the path and remarks.

        :raises WrongPasscode: also if none is set.
        :raises ConfigError: if it cannot be written.
        """
