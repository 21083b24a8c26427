"""Limits of quotas, and what users have used of them."""

from __future__ import annotations

from typing import Any, Final

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Acting, Group, pass_session
from chapps_tw.cli.names import entry, id_of
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import CommandError, Session

_OF_QUOTA: Final = ("name", "amount", "unit", "window", "action")
_USED: Final = ("quota", "name", "level", "used", "amount", "left", "unit", "window", "room_at")

_UNIT = click.option(
    "--unit",
    type=click.Choice(["messages", "recipients", "bytes", "distinct_recipients"]),
    help="What is counted; default: recipients.",
)
_ACTION = click.option(
    "--action", type=click.Choice(["refuse", "defer", "hold"]), help="What happens beyond it; default: refuse."
)


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(limits)


@click.group(cls=Group)
def limits() -> None:
    """Show what users have used, and change the limits of quotas."""


@limits.command()
@click.argument("user")
@pass_session
def show(session: Session, user: str) -> None:
    """Show all limits of a user, and what is used."""
    found = session.api.get(path("live", "limits", user)).response
    session.table(found["limits"], _USED, f"{user} has no limits, and cannot send mail.")


@limits.command("list")
@click.argument("quota")
@pass_session
def list_(session: Session, quota: str) -> None:
    """List the limits of a quota, besides its own number."""
    session.table(_of(session, quota), _OF_QUOTA, f"Quota {plain(quota)} has no limits besides its own number.")


@limits.command(cls=Acting)
@click.argument("quota")
@click.argument("name")
@click.argument("amount", type=click.IntRange(0))
@click.option("--window", required=True, help="Length of the rolling window, such as 10m, 1h or 1d.")
@_UNIT
@_ACTION
@pass_session
def add(
    session: Session, quota: str, name: str, amount: int, window: str, unit: str | None, action: str | None
) -> None:
    """Add a limit to a quota."""
    given = _given(name=name, amount=amount, window=window, unit=unit, action=action)
    id = id_of(session.api, "quotas", quota)
    session.warn(session.api.send("POST", path("quotas", id, "limits"), given).remarks)
    session.say(f"Quota {plain(quota)} has limit {plain(name)} now.")


@limits.command(cls=Acting)
@click.argument("quota")
@click.argument("name")
@click.option("--amount", type=click.IntRange(0), help="How many in the window.")
@click.option("--window", help="Length of the rolling window, such as 10m, 1h or 1d.")
@_UNIT
@_ACTION
@pass_session
def change(
    session: Session,
    quota: str,
    name: str,
    amount: int | None,
    window: str | None,
    unit: str | None,
    action: str | None,
) -> None:
    """Change a limit of a quota."""
    given = _given(amount=amount, window=window, unit=unit, action=action)
    if not given:
        raise click.UsageError("Give what to change.")
    id = _find(session, quota, name)
    session.warn(session.api.send("PUT", path("limits", id), given).remarks)
    session.say(f"Limit {plain(name)} of quota {plain(quota)} is changed.")


@limits.command(cls=Acting)
@click.argument("quota")
@click.argument("name")
@pass_session
def delete(session: Session, quota: str, name: str) -> None:
    """Delete a limit of a quota."""
    id = _find(session, quota, name)
    session.warn(session.api.send("DELETE", path("limits", id)).remarks)
    session.say(f"Quota {plain(quota)} no longer has limit {plain(name)}.")


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _of(session: Session, quota: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] | None = entry(session.api, "quotas", quota).beside["limits"]
    return found or []


def _find(session: Session, quota: str, name: str) -> int:
    for each in _of(session, quota):
        if each["name"] == name:
            return int(each["id"])
    raise CommandError(f"quota {quota} has no limit named {name}")
