"""Events and the audit trail."""

from __future__ import annotations

from typing import Any

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import Session

_EVENTS = ("at", "kind", "account", "limit", "level", "used", "amount")
_AUDIT = ("at", "author", "action", "kind", "name", "change")
# The most records in an answer.
_PAGE = 1000


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(events)
    main.add_command(audit)


@click.command(cls=Remote)
@click.option("--kind", type=click.Choice(["near_limit", "at_limit"]), default=None, help="Only events of this kind.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, help="The most to list; default: 100.")
@pass_session
def events(session: Session, kind: str | None, limit: int) -> None:
    """Show when limits were almost reached, or reached, newest first."""
    rows = session.api.get(path("live", "events"), kind=kind, limit=limit).response
    session.table(rows, _EVENTS, "No limit was almost reached.")


@click.command(cls=Remote)
@click.option("--author", help="Only changes with this token.")
@click.option("--kind", default="", help="Only changes of this, such as users, overrides or live/quota.")
@click.option("--name", default="", help="Only changes of the entry with this name.")
@click.option("--since", default="", help="The earliest time: a duration before now, such as 3d, or a time.")
@click.option("--until", default="", help="The time before which they are.")
@click.option("--limit", type=click.IntRange(1), default=100, help="The most to list; default: 100.")
@pass_session
def audit(session: Session, /, limit: int, **filters: str | None) -> None:
    """Show who changed what, newest first."""
    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        wanted = min(_PAGE, limit - len(rows))
        page = session.api.get(path("audit"), limit=wanted, before=rows[-1]["id"] if rows else None, **filters)
        rows += page.response
        if len(page.response) < wanted:
            break
    shown = rows if session.format else [{**row, "change": _change(row["before"], row["after"])} for row in rows]
    session.table(shown, _AUDIT, "No changes were found.")


def _change(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """Return what differs, in short."""
    before, after = before or {}, after or {}
    fields = dict.fromkeys([*before, *after])
    parts = [
        f"{field}: {plain(before.get(field))} -> {plain(after.get(field))}" if field in before else
        f"{field}: {plain(after.get(field))}"
        for field in fields
        if before.get(field) != after.get(field)
    ]  # fmt: skip
    return "; ".join(parts)
