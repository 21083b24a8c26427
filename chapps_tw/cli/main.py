"""``chapps-cli``: all commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from signal import SIGINT

import click

from chapps_tw.cli import (
    admin,
    adopt,
    ask,
    decisions,
    domains,
    entries,
    exceptions,
    explain,
    import_file,
    inbound,
    limits,
    listeners,
    nodes,
    notify,
    postfix_check,
    tokens,
    top,
    trail,
    users,
    why,
)
from chapps_tw.cli.command import Group
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import FAILED, CommandError, Dependencies, Session

_EPILOG = (
    "Exit status: 0 if it is done; 1 if it was refused, or what it names does not exist; 2 for invalid arguments; 3 if "
    "the service cannot be reached, or cannot answer now."
)


@click.group(cls=Group, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Manage a CHAPPS-TW policy service."""


_FAMILIES = (
    why,
    top,
    decisions,
    explain,
    listeners,
    postfix_check,
    trail,
    users,
    domains,
    inbound,
    entries,
    import_file,
    limits,
    exceptions,
    nodes,
    notify,
    tokens,
    admin,
    adopt,
    ask,
)
for family in _FAMILIES:
    family.add_to(main)


def run(arguments: Sequence[str], dependencies: Dependencies) -> int:
    """Run one command.

    :returns: the exit status, after a sentence for each problem on standard error.
    """
    try:
        main.main(list(arguments), "chapps-cli", standalone_mode=False, obj=Session(dependencies))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return 128 + SIGINT
    except CommandError as error:
        return _failed(str(error).splitlines(), error.status)
    except Exception as error:
        return _failed(_problems(error), FAILED)
    return 0


def _problems(error: Exception) -> Sequence[str]:
    """Return the sentences of an expected error; raise others again."""
    from chapps_tw.config.settings import ConfigError
    from chapps_tw.interfaces.book import BookConflict, BookUnavailable
    from chapps_tw.security.tokens import TokenError

    if isinstance(error, ConfigError):
        return error.problems
    if isinstance(error, BookConflict | BookUnavailable | TokenError):
        return [str(error)]
    raise error


def _failed(problems: Sequence[str], status: int) -> int:
    for problem in problems:
        print(f"chapps-cli: {plain(problem)}", file=sys.stderr)
    return status
