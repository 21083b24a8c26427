"""Greylisting tallies of clients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.output import local, plain
from chapps_tw.cli.session import Session


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(tally)


@click.command(cls=Remote)
@click.argument("client")
@click.option("--epoch/--no-epoch", help="Print times as epoch seconds.")
@click.option("--clear/--no-clear", help="Clear the tally after it is read.")
@pass_session
def tally(session: Session, client: str, epoch: bool, clear: bool) -> None:
    """Show or clear the messages of a client that passed greylisting.

    CLIENT is an address, or a domain for which SPF passed.
    """
    where = path("live", "grl", "tally", client)
    answer = session.api.get(where)
    if clear:
        session.api.send("DELETE", where)
    counted = answer.response
    data: Any = counted
    if session.format == "csv":
        data = [{"instance": instance, "time": time} for instance, time in counted]
    session.show(data, lambda: _lines(client, counted, answer.remarks, epoch, clear))


def _lines(client: str, counted: list[Any], remarks: list[str], epoch: bool, clear: bool) -> Iterator[str]:
    if not counted:
        yield from map(plain, remarks)
        return
    yield f"Tally for {plain(client)}{' (cleared)' if clear else ''}:"
    for number, (instance, time) in enumerate(counted):
        yield f"  [{number}] {plain(instance)}: {time if epoch else local(time)}"
