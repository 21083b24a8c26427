"""The program ``chapps-cli``: connects its commands to the database and the clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from chapps_tw.cli import main as cli
from chapps_tw.cli.session import Dependencies

if TYPE_CHECKING:
    from chapps_tw.config.checks import Finding
    from chapps_tw.config.settings import PolicySection, Settings

# What needs the configuration or the database is imported when a command needs it, so that others start quickly.


def main() -> int:
    """Run the command of the command line; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # Characters that the terminal does not support are shown as escapes.
            stream.reconfigure(errors="backslashreplace")
    return cli.run(sys.argv[1:], dependencies(time.time))


def dependencies(now: Callable[[], float]) -> Dependencies:
    """Return what the commands need.

    :param now: epoch seconds.
    """
    return Dependencies(set_up, add_examples, now, check, warn, adopt, copy_tables)


def set_up(settings: Settings, dry_run: bool = False) -> str:
    """See :func:`chapps_tw.application.tables.set_up`."""
    from chapps_tw.application import tables

    return tables.set_up(settings, dry_run)


def add_examples(settings: Settings) -> str:
    """See :func:`chapps_tw.application.tables.add_examples`."""
    from chapps_tw.application import tables

    return tables.add_examples(settings)


def copy_tables(source: Settings, settings: Settings) -> str:
    """See :func:`chapps_tw.application.tables.copy_tables`."""
    from chapps_tw.application import tables

    return tables.copy_tables(source, settings)


def check(settings: Settings) -> Iterable[Finding]:
    """See :func:`chapps_tw.application.preflight.findings`."""
    from chapps_tw.application.preflight import findings

    return findings(settings)


def warn(settings: Settings) -> Iterable[str]:
    """See :func:`chapps_tw.application.preflight.without_default_quota`."""
    from chapps_tw.application.preflight import without_default_quota

    return without_default_quota(settings)


def adopt(
    source: str, target: str, added: Sequence[type[PolicySection]], parts: Collection[str], dry_run: bool
) -> dict[str, Any]:
    """See :func:`chapps_tw.application.adopt.adopt`."""
    from chapps_tw.application.adopt import adopt

    return adopt(source, target, added, parts, dry_run)


if __name__ == "__main__":
    sys.exit(main())
