"""What a command has: its common options, the configuration, the HTTP API, and where it writes to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from chapps_tw.cli import output

if TYPE_CHECKING:
    from chapps_tw.cli.client import Client
    from chapps_tw.config.checks import Finding
    from chapps_tw.config.settings import PolicySection, Settings
    from chapps_tw.policies.registry import Registry

FAILED: Final = 1
UNREACHABLE: Final = 3


class CommandError(Exception):
    """A command failed. The text is one sentence for each problem, one per line.

    :cvar status: the exit status.
    """

    status = FAILED


class Unreachable(CommandError):
    """The service, or something that it needs, is unavailable."""

    status = UNREACHABLE


class Dependencies(NamedTuple):
    """What the commands need, besides files and the HTTP API.

    :ivar set_up: creates or upgrades the database's tables, or, if the second argument is true, reports what that
        would do; returns a report, one sentence per line.
    :ivar add_examples: adds the example users that are missing; returns a sentence. Both raise
        :class:`BookUnavailable`, :class:`BookConflict` and :class:`CommandError`.
    :ivar now: returns epoch seconds.
    :ivar check: yields what prevents settings from working on this machine.
    :ivar warn: yields sentences about what they name and the database does not contain.
    :ivar adopt: moves over from CHAPPS 0.5: from a file, to a file, with the sections of added policies, these parts,
        and whether nothing is to be changed; returns a report.
    :ivar copy_tables: copies the tables of one configuration's database to that of another; returns a sentence. Raises
        as ``set_up`` does.
    """

    set_up: Callable[[Settings, bool], str]
    add_examples: Callable[[Settings], str]
    now: Callable[[], float]
    check: Callable[[Settings], Iterable[Finding]]
    warn: Callable[[Settings], Iterable[str]]
    adopt: Callable[[str, str, Sequence[type[PolicySection]], Collection[str], bool], dict[str, Any]]
    copy_tables: Callable[[Settings, Settings], str]


class Session:
    """One run of a command.

    :ivar config: ``--config``; ``None`` if it was not given. Likewise ``url`` and ``token_file``.
    :ivar format: ``json`` or ``csv``; empty for text.
    """

    def __init__(self, dependencies: Dependencies) -> None:
        self.dependencies = dependencies
        self.config: str | None = None
        self.url: str | None = None
        self.token_file: str | None = None
        self.format = ""

    @property
    def now(self) -> float:
        """Epoch seconds."""
        return self.dependencies.now()

    @cached_property
    def registry(self) -> Registry:
        """The installed policies."""
        from chapps_tw.policies.registry import installed

        return installed()

    @cached_property
    def settings(self) -> Settings:
        """The configuration.

        :raises ConfigError: with all errors.
        """
        from chapps_tw.config.load import load

        return load(self.config, os.environ, added=self.registry.added)

    @cached_property
    def api(self) -> Client:
        """The HTTP API of the running service.

        :raises CommandError: if its address or the token cannot be found out.
        :raises ConfigError: with all errors.
        """
        from chapps_tw.cli.client import Client
        from chapps_tw.cli.target import target_of

        return Client(*target_of(self))

    def say(self, text: str) -> None:
        """Print a part of the output, without colors if it is no terminal.

        :raises CommandError: if it cannot be written.
        """
        if sys.stdout is None:
            raise CommandError("there is no standard output to write to")
        try:
            print(text if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else click.unstyle(text), flush=True)
        except OSError as error:
            # Otherwise the interpreter would flush the buffer again at exit, and fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise CommandError(f"the output cannot be written: {error.strerror}") from None

    def warn(self, sentences: Iterable[str]) -> None:
        """Print sentences that are not part of the output."""
        for sentence in sentences:
            print(f"chapps-cli: {output.plain(sentence)}", file=sys.stderr)

    def show(self, data: Any, text: Callable[[], Iterable[str]]) -> None:
        """Print data in the format that was asked for.

        :param data: JSON.
        :param text: returns lines for people.
        """
        if self.format == "json":
            self.say(output.as_json(data))
        elif self.format == "csv":
            if text_of_rows := output.as_csv(data if isinstance(data, list) else [data]):
                self.say(text_of_rows)
        else:
            self.say("\n".join(text()))

    def table(self, rows: list[dict[str, Any]], columns: Iterable[str], nothing: str) -> None:
        """Print rows in the format that was asked for; as a table for people.

        :param columns: of the table.
        :param nothing: a sentence for people, if there are no rows.
        """
        self.show(rows, lambda: [output.as_table(rows, list(columns))] if rows else [nothing])
