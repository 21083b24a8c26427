"""The configuration, the passcode, and the tables of the database: all but ``reload`` work without the service."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import click

import chapps_tw
from chapps_tw.cli.client import path
from chapps_tw.cli.command import DEFAULT_PATH, Group, Local, pass_session
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import CommandError, Session

if TYPE_CHECKING:
    from chapps_tw.config.settings import Settings

_TO_FILE = click.option(
    "--to", "--to-file", metavar="FILE", help=f"Output file; default: the file that was read, else {DEFAULT_PATH}."
)


def add_to(main: click.Group) -> None:
    """Add the commands."""
    for command in (version, check_config, completion, admin):
        main.add_command(command)


@click.command(cls=Local)
@pass_session
def version(session: Session) -> None:
    """Print the version."""
    session.say(f"CHAPPS-TW v{chapps_tw.__version__}")


@click.command(cls=Local)
@pass_session
def check_config(session: Session) -> None:
    """Check the configuration and report every problem."""
    from chapps_tw.config.load import load

    registry = session.registry
    settings = load(session.config, os.environ, session.dependencies.check, registry.added)
    session.warn([*settings.warnings, *session.dependencies.warn(settings)])
    lines = [f"{settings.path or 'built-in defaults'}: ok"]
    lines += [f"  {each.name}: {each.listen}: {', '.join(each.policies)}" for each in settings.listeners]
    if settings.api.listen:
        lines.append(f"  HTTP API: {settings.api.listen}")
    lines += [f"  {name}: of {package}" for name, package in registry.packages.items()]
    lines += [
        f"  helo_whitelist: {entry} applies while {entry.name} has {entry.wanted}"
        for entry in settings.chapps.helo_whitelist
        if entry.wanted
    ]
    session.say("\n".join(lines))


@click.command(cls=Local)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@pass_session
def completion(session: Session, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: chapps-cli completion bash > /etc/bash_completion.d/chapps-cli
    """
    from click.shell_completion import get_completion_class

    context = click.get_current_context().find_root()
    found = get_completion_class(shell)
    assert found is not None
    session.say(found(context.command, {}, "chapps-cli", "_CHAPPS_CLI_COMPLETE").source())


@click.group(cls=Group)
def admin() -> None:
    """Set up the database, read or write the configuration, hash a passcode."""


@admin.command(cls=Local)
@click.option("--dry-run", is_flag=True, help="Change nothing; list the names that would be changed or reported.")
@pass_session
def db_setup(session: Session, dry_run: bool) -> None:
    """Create or upgrade the database's tables."""
    session.say(session.dependencies.set_up(session.settings, dry_run))


@admin.command(cls=Local)
@click.option("--from", "source", metavar="FILE", required=True, help="The configuration that names the old database.")
@pass_session
def copy_tables(session: Session, source: str) -> None:
    """Copy the database of another configuration to the one of this configuration.

    It copies users, domains, addresses, quotas and their limits, overrides, exemptions and the audit trail. The tables
    must be empty; they are created if there are none.
    """
    from chapps_tw.config.load import load

    old = load(source, os.environ, added=session.registry.added)
    session.say(session.dependencies.copy_tables(old, session.settings))


@admin.command(cls=Local)
@pass_session
def add_examples(session: Session) -> None:
    """Add two example users to the database."""
    session.say(session.dependencies.add_examples(session.settings))


@admin.command(cls=Local)
@_TO_FILE
@pass_session
def flush_config(session: Session, to: str | None) -> None:
    """Write every option with its value and help."""
    session.say(_write(session.settings, to))


@admin.command()
@pass_session
def reload(session: Session) -> None:
    """Have the running service read its configuration again."""
    change = session.api.send("POST", path("live", "config", "reload")).response
    lines = [f"changed: {', '.join(map(plain, change['changed'])) or 'nothing'}"]
    lines += [f"after a restart: {plain(', '.join(change['restart']))}"] if change["restart"] else []
    session.show(change, lambda: lines)


@admin.command(cls=Local)
@pass_session
def active_config(session: Session) -> None:
    """Say which configuration file is used."""
    session.say(f"Using config from {session.settings.path or 'the built-in defaults'}")


@admin.command(cls=Local)
@pass_session
def passcode(session: Session) -> None:
    """Hash a passcode for [CHAPPS] password."""
    session.say(f"password = {_hash(_read_passcode())}")


@admin.command(cls=Local)
@_TO_FILE
@click.option("--password", help="The passcode; better on standard input: other accounts see arguments of commands.")
@pass_session
def api_password(session: Session, to: str | None, password: str | None) -> None:
    """Write the configuration with another passcode.

    It is in effect when the service has read it: chapps-cli admin reload.
    """
    from chapps_tw.config.values import Secret

    settings = session.settings
    hashed = Secret(_hash(_read_passcode() if password is None else password))
    session.say(_write(replace(settings, chapps=replace(settings.chapps, password=hashed)), to))


def _write(settings: Settings, to: str | None) -> str:
    from chapps_tw.config.write import write

    target = write(settings, to or settings.path or DEFAULT_PATH)
    found = target.stat()
    return f"{target} written, mode {found.st_mode & 0o7777:04o}, owner {found.st_uid}:{found.st_gid}"


def _hash(passcode: str) -> str:
    from chapps_tw.security.passcode import make_hash

    if not passcode:
        raise CommandError("the passcode is empty")
    return make_hash(passcode)


def _read_passcode() -> str:
    """Prompt twice on a terminal; otherwise read the first line of standard input."""
    try:
        if sys.stdin is None:
            raise EOFError
        if not sys.stdin.isatty():
            return sys.stdin.readline().rstrip("\r\n")
        passcode = getpass.getpass("Passcode: ")
        again = getpass.getpass("Again: ")
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the passcode cannot be read: {str(error) or 'the input ended'}") from None
    if again != passcode:
        raise CommandError("the two passcodes differ")
    return passcode
