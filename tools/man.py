"""Write the manual pages chapps-cli(1) and chapps.ini(5) into a directory, from the commands and the settings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from chapps_tw import __version__
from chapps_tw.cli.main import main as chapps_cli
from chapps_tw.config.load import DEFAULT_PATH, options
from chapps_tw.config.settings import SECTIONS, Listener, RateLimit
from chapps_tw.policies.registry import BUILT_IN

# man(7): what has a meaning of its own.
_ESCAPES = str.maketrans({"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti"})

_INI_HEAD = f"""\
The configuration of CHAPPS\\-TW is {DEFAULT_PATH}, or the file that twistd chapps \\-\\-config or $CHAPPS_CONFIG
names. Lines that start with # or ; are comments. An environment variable CHAPPS_SECTION_OPTION overrides the value in
the file. "chapps\\-cli check\\-config" reports all errors. Each option is listed with its default."""


def main() -> None:
    directory = Path(sys.argv[1])
    (directory / "chapps-cli.1").write_text("\n".join(commands_page()) + "\n")
    (directory / "chapps.ini.5").write_text("\n".join(settings_page()) + "\n")


def head(name: str, section: int, about: str) -> Iterator[str]:
    yield f'.TH "{name.upper()}" "{section}" "" "CHAPPS-TW {__version__}"'
    yield ".SH NAME"
    yield rf"{plain(name)} \- {plain(about)}"


def plain(text: str) -> str:
    """Return text on one line, without meaning to man(7)."""
    line = " ".join(text.translate(_ESCAPES).split())
    return rf"\&{line}" if line.startswith(".") else line


# --- chapps-cli(1) ---


def commands_page() -> Iterator[str]:
    yield from head("chapps-cli", 1, "manage a CHAPPS-TW policy service")
    yield from (".SH SYNOPSIS", r".B chapps\-cli", "[OPTIONS] COMMAND [ARGUMENTS]")
    yield from (".SH DESCRIPTION", "Calls the HTTP API of the running service, or prepares its start.")
    with click.Context(chapps_cli, info_name="chapps-cli") as context:
        yield ".SH OPTIONS"
        yield from described(chapps_cli, context, frozenset())
        common = frozenset(names(chapps_cli, context))
        yield ".SH COMMANDS"
        for name, command in commands(chapps_cli, context):
            yield from command_text(name, command, context, common)
    yield from (".SH EXIT STATUS", plain(str(chapps_cli.epilog).removeprefix("Exit status: ")))
    yield from (".SH FILES", f".I {DEFAULT_PATH}", ".SH SEE ALSO", r".BR chapps.ini (5)")


def commands(group: click.Group, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    """Return the commands of a group and its groups, with their names after the program's."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {inner}", each) for inner, each in commands(command, context))
        elif command:
            yield name, command


def command_text(name: str, command: click.Command, parent: click.Context, common: frozenset[str]) -> Iterator[str]:
    with click.Context(command, parent=parent, info_name=name) as context:
        usage = " ".join(command.collect_usage_pieces(context))
        yield from (f".SS {plain(name)}", f".B {plain(name)}", plain(usage), ".PP", plain(command.help or ""))
        yield from described(command, context, common)


def names(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        yield from parameter.opts


def described(command: click.Command, context: click.Context, known: frozenset[str]) -> Iterator[str]:
    """Return the options of a command, except those that are known."""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record and known.isdisjoint(parameter.opts):
            yield from (".TP", rf"\fB{plain(record[0])}\fR", plain(record[1]))


# --- chapps.ini(5) ---


def settings_page() -> Iterator[str]:
    yield from head("chapps.ini", 5, "configuration of CHAPPS-TW")
    yield from (".SH DESCRIPTION", _INI_HEAD, ".SH SECTIONS")
    for kind in (*SECTIONS.values(), *BUILT_IN.added):
        yield from section_text(f"[{kind.section}]", kind)
    yield from section_text("[Limit NAME]", RateLimit)
    yield from section_text("[Listener NAME]", Listener)
    yield from (".SH FILES", f".I {DEFAULT_PATH}", ".SH SEE ALSO", r".BR chapps\-cli (1)")


def section_text(title: str, kind: type[Any]) -> Iterator[str]:
    yield f".SS {plain(title)}"
    for name, metadata in options(kind):
        default = rf"\fB{plain(name)}\fR = {plain(metadata['default'])}".rstrip()
        yield from (".TP", default, plain(metadata["help"]))


if __name__ == "__main__":
    main()
