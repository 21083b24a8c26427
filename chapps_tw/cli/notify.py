"""``chapps-cli notify``: tests the notices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Group, pass_session
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import CommandError, Session

# The service waits up to 40 s for the relay, and 10 s for the webhook.
_TIMEOUT: Final = 60.0


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(notify)


@click.group(cls=Group)
def notify() -> None:
    """Test the notices."""


@notify.command()
@pass_session
def test(session: Session) -> None:
    """Send a test to the administrator and to the webhook."""
    told: list[dict[str, Any]] = session.api.send("POST", path("notify", "test"), timeout=_TIMEOUT).response
    if problems := [f"{plain(each['channel'])}: {each['problem']}" for each in told if not each["sent"]]:
        raise CommandError("; ".join(problems))
    session.show(told, lambda: _lines(told))


def _lines(told: list[dict[str, Any]]) -> Iterator[str]:
    for each in told:
        yield f"{plain(each['channel'])}: sent"
