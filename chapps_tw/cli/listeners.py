"""``chapps-cli listeners``: what each listener of the running service is asked."""

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
    main.add_command(listeners)


@click.command(cls=Remote)
@pass_session
def listeners(session: Session) -> None:
    """Show when each listener was last asked, at which stages, and by whom."""
    found = session.api.get(path("live", "listeners")).response
    session.show(found, lambda: lines(found))


def lines(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines for people."""
    for each in found:
        name, warnings = plain(each["listener"]), [f"  warning: {plain(text)}" for text in each["warnings"]]
        if not each["at"]:
            yield f"{name}: not asked since the start of the service"
            continue
        peers = ", ".join(plain(peer["peer"]) for peer in each["peers"])
        yield f"{name}: last asked at {local(each['at'], seconds=True)}, {each['requests']} times, by {peers}"
        for stage in each["stages"]:
            yield f"  {stage['stage']}: {stage['with_login']} with login, {stage['without_login']} without"
        yield from warnings
