"""One recipient domain: its flags, its users, and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Group, pass_session
from chapps_tw.cli.names import entry, pages
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import Session

# As in CHAPPS: everything else is yes.
_NO = frozenset(("0", "n", "no", "f", "false"))

_ENFORCE = click.option("--enforce", metavar="Y|N", default="", help="Set it; by default it is toggled.")
_FLUSH = click.option("--flush/--no-flush", default=True, help="Whether to clear what is cached of it.")


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(domain)


@click.group(cls=Group)
def domain() -> None:
    """Show a domain, and change its flags."""


@domain.command()
@click.argument("name")
@click.option("--live/--no-live", default=True, help="Whether to show what its users have used together.")
@click.option("--users/--no-users", help="Also list its users.")
@pass_session
def show(session: Session, name: str, live: bool, users: bool) -> None:
    """Show a domain: its flags, and what its users share."""
    _show(session, name, live, users)


@domain.command()
@click.argument("name")
@_ENFORCE
@_FLUSH
@pass_session
def greylist(session: Session, name: str, enforce: str, flush: bool) -> None:
    """Turn greylisting of mail to a domain on or off."""
    _set(session, name, "greylist", enforce)
    if flush:
        session.api.send("DELETE", path("live", "grl", "option_cache", name))
    _show(session, name, flush)


@domain.command()
@click.argument("name")
@_ENFORCE
@_FLUSH
@pass_session
def check_spf(session: Session, name: str, enforce: str, flush: bool) -> None:
    """Turn SPF checks of mail to a domain on or off."""
    _set(session, name, "check_spf", enforce)
    if flush:
        session.api.send("DELETE", path("live", "spf", "option_cache", name))
    _show(session, name, flush)


@domain.command()
@click.argument("name")
@pass_session
def flush(session: Session, name: str) -> None:
    """Clear what is cached of a domain's flags."""
    for policy in ("grl", "spf"):
        session.api.send("DELETE", path("live", policy, "option_cache", name))
    _show(session, name)


def _set(session: Session, name: str, flag: str, enforce: str) -> None:
    found = entry(session.api, "domains", name).response
    value = enforce.lower() not in _NO if enforce else not found[flag]
    session.warn(session.api.send("PUT", path("domains"), {"id": found["id"], flag: value}).remarks)


def _show(session: Session, name: str, live: bool = True, users: bool = False) -> None:
    api = session.api
    found = entry(api, "domains", name).response
    if live:
        pool = api.get(path("live", "pools", found["name"])).response
        found |= {"limits": pool["limits"], "overrides": pool["overrides"]}
    if users:
        found["users"] = list(pages(api, path("domains", found["id"], "users"), 0))
    session.show(found, lambda: _lines(found))


def _lines(domain: dict[str, Any]) -> Iterator[str]:
    yield f"Domain: {plain(domain)}"
    yield f"  Greylisting: {plain(domain['greylist'])}  SPF: {plain(domain['check_spf'])}"
    for limit in domain.get("limits", ()):
        amount = "unlimited" if limit["amount"] is None else limit["amount"]
        yield f"  {plain(limit['quota'])} {plain(limit['name'])}: {limit['used']}/{amount} {limit['unit']} used"
    if "users" in domain:
        yield "Users:"
        yield from (f"  {plain(each)} [#{each['id']}]" for each in domain["users"])
