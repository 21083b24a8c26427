"""The tokens of the HTTP API, in the files of this node."""

from __future__ import annotations

from pathlib import Path
from time import gmtime, strftime
from typing import TYPE_CHECKING

import click

from chapps_tw.cli.command import Group, Local, pass_session
from chapps_tw.cli.session import CommandError, Session

if TYPE_CHECKING:
    from chapps_tw.security.tokens import TokenStore

_SCOPES = ("read", "operator", "full")


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(token)


def _store(session: Session) -> TokenStore:
    from chapps_tw.security.tokens import TokenStore

    return TokenStore(session.settings.token_path)


@click.group(cls=Group)
def token() -> None:
    """Create, list and revoke tokens of the HTTP API."""


@token.command(cls=Local)
@pass_session
def show(session: Session) -> None:
    """Print the first token, which the service created at its first start."""
    from chapps_tw.cli.target import read_token

    session.say(read_token(Path(session.settings.token_path)))


@token.command("list", cls=Local)
@pass_session
def list_(session: Session) -> None:
    """List the tokens."""
    tokens = _store(session).list()
    if tokens:
        lines = [
            f"{strftime('%Y-%m-%dT%H:%M:%SZ', gmtime(each.created))}  {each.scope:8}  {each.name}" for each in tokens
        ]
        session.say("\n".join(lines))


@token.command(cls=Local)
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(_SCOPES),
    help="read: change nothing; operator: reset, suspend and exempt, as a help desk does; full (default): all.",
)
@click.option("--read-only", is_flag=True, help="The same as --scope read.")
@pass_session
def create(session: Session, name: str, scope: str | None, read_only: bool) -> None:
    """Create a token and print it, this once."""
    if scope and read_only:
        raise click.UsageError("--scope and --read-only exclude each other.")
    store = _store(session)
    made = store.create(name, scope or ("read" if read_only else "full"), session.now)
    try:
        session.say(made)
    except CommandError:
        # It was not shown, and cannot be retrieved later.
        store.revoke(name)
        raise


@token.command(cls=Local)
@click.argument("name")
@pass_session
def revoke(session: Session, name: str) -> None:
    """Revoke a token with immediate effect."""
    if not _store(session).revoke(name):
        raise CommandError(f"there is no token named {name!r}")
