"""The nodes that share the state."""

from __future__ import annotations

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.session import Session

_COLUMNS = ("name", "api", "version", "processes", "started", "this")


def add_to(main: click.Group) -> None:
    """Add the command."""
    main.add_command(nodes)


@click.command(cls=Remote)
@pass_session
def nodes(session: Session) -> None:
    """List the nodes that share the state."""
    session.table(session.api.get(path("nodes")).response, _COLUMNS, "No node is known.")
