"""Events and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.output import shown
from chapps_tw.cli.session import Session
from chapps_tw.interfaces.events import KINDS

_EVENTS = ("at", "kind", "name", "detail", "node", "author")
_AUDIT = ("at", "author", "action", "kind", "name", "change")
# The most records in an answer.
_PAGE = 1000

_SINCE = click.option("--since", default="", help="The earliest time: a duration before now, such as 3d, or a time.")
_UNTIL = click.option("--until", default="", help="The time before which they are.")
_LIMIT = click.option("--limit", type=click.IntRange(1), default=100, help="The most to list; default: 100.")


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(events)
    main.add_command(audit)


@click.command(cls=Remote)
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Only events of this kind.")
@click.option("--name", default="", help="Only events about this user, domain, client, dependency or node.")
@click.option("--node", default="", help="Only events that this node noticed first.")
@_SINCE
@_UNTIL
@_LIMIT
@pass_session
def events(session: Session, /, limit: int, **filters: str | None) -> None:
    """Show what happened to limits, accounts, dependencies and nodes, newest first."""
    session.table(_pages(session, "events", limit, filters), _EVENTS, "No events were found.")


@click.command(cls=Remote)
@click.option("--author", help="Only changes with this token.")
@click.option("--kind", default="", help="Only changes of this, such as users, overrides or live/quota.")
@click.option("--name", default="", help="Only changes of the entry with this name.")
@_SINCE
@_UNTIL
@_LIMIT
@pass_session
def audit(session: Session, /, limit: int, **filters: str | None) -> None:
    """Show who changed what, newest first."""
    rows = _pages(session, "audit", limit, filters)
    if not session.format:
        rows = [{**row, "change": _change(row["before"], row["after"])} for row in rows]
    session.table(rows, _AUDIT, "No changes were found.")


def _pages(session: Session, what: str, limit: int, filters: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """Return events, or records of the audit trail."""
    rows: list[dict[str, Any]] = []
    while len(rows) < limit:
        wanted = min(_PAGE, limit - len(rows))
        page = session.api.get(path(what), limit=wanted, before=rows[-1]["id"] if rows else None, **filters)
        rows += page.response
        if len(page.response) < wanted:
            break
    return rows


def _change(before: dict[str, Any] | None, after: dict[str, Any] | None) -> str:
    """Return what differs, in short."""
    before, after = before or {}, after or {}
    parts = []
    for field in {**before, **after}:
        old, new = shown(field, before.get(field)), shown(field, after.get(field))
        if old != new:
            parts.append(f"{field}: {old} -> {new}" if field in before and field in after else f"{field}: {old or new}")
    return "; ".join(parts)
