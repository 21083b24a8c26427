"""Temporary exceptions: suspend, release and raise users and domains; exempt clients, senders and recipients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Acting, Group, pass_session
from chapps_tw.cli.names import pages
from chapps_tw.cli.output import local, plain
from chapps_tw.cli.sentences import NEVER
from chapps_tw.cli.session import CommandError, Session

_WHEN = "A duration such as 90m or 3d, or a time with its zone, such as 2030-10-01T18:00:00+08:00."

_UNTIL = click.option("--until", required=True, help=f"When it ends. {_WHEN}")
_REASON = click.option("--reason", default="", help="For administrators.")
_DOMAIN = click.option("--domain", is_flag=True, help="It is the name of a domain: all of its users are meant.")
_ALL = click.option("--all", "all_", is_flag=True, help="Also those that are over.")

_OVERRIDES: Final = ("id", "user", "domain", "kind", "value", "limit", "until", "reason", "author")
_EXEMPTIONS: Final = ("id", "kind", "value", "scope", "until", "reason", "author")
_KINDS: Final = ("client", "sender", "sender-domain", "recipient")


def add_to(main: click.Group) -> None:
    """Add the commands."""
    for command in (suspend, release, raise_, exempt, overrides, exemptions):
        main.add_command(command)


@click.command(cls=Acting)
@click.argument("name", metavar="USER")
@click.option("--until", help=f"When it ends; default: when released. {_WHEN}")
@click.option("--reason", default="", help="For administrators, and for the user.")
@click.option("--defer", is_flag=True, help="Defer mail instead of refusing it.")
@_DOMAIN
@pass_session
def suspend(session: Session, name: str, until: str | None, reason: str, defer: bool, domain: bool) -> None:
    """Stop a user from sending mail."""
    given = {"kind": "suspended", "until": until or NEVER, "reason": reason, "action": "defer" if defer else "refuse"}
    made = _override(session, name, domain, given)
    end = local(made["until"]) if until else "it is released"
    session.say(f"{plain(name)} may not send mail until {end}.")


@click.command(cls=Acting)
@click.argument("name", metavar="USER")
@_DOMAIN
@pass_session
def release(session: Session, name: str, domain: bool) -> None:
    """Let a suspended user send mail again."""
    found = pages(session.api, path("overrides"), 0, active=True, **{_about(domain): name})
    ids = [each["id"] for each in found if each["kind"] == "suspended"]
    if not ids:
        raise CommandError(f"{name} is not suspended")
    session.warn(session.api.send("DELETE", path("overrides"), ids).remarks)
    session.say(f"{plain(name)} is no longer suspended.")


@click.command("raise", cls=Acting)
@click.argument("name", metavar="USER")
@click.argument("amount", type=click.IntRange(1))
@_UNTIL
@_REASON
@click.option("--limit", default="", help="Name of the only limit to raise; default: all of messages or recipients.")
@_DOMAIN
@pass_session
def raise_(session: Session, name: str, amount: int, until: str, reason: str, limit: str, domain: bool) -> None:
    """Let a user send AMOUNT more than the limit until a date."""
    given = {"kind": "extra", "value": amount, "until": until, "reason": reason, "limit": limit}
    made = _override(session, name, domain, given)
    session.say(f"{plain(name)} may send {amount} more until {local(made['until'])}.")


def _about(domain: bool) -> str:
    return "domain" if domain else "user"


def _override(session: Session, name: str, domain: bool, given: dict[str, Any]) -> dict[str, Any]:
    answer = session.api.send("POST", path("overrides"), {_about(domain): name, **given})
    session.warn(answer.remarks)
    made: dict[str, Any] = answer.response
    return made


@click.command(cls=Acting)
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("value")
@click.option(
    "--from", "scopes", required=True, multiple=True, metavar="POLICY",
    help="spf, greylisting, sender_authorization or limit:NAME; may be repeated.",
)  # fmt: skip
@_UNTIL
@_REASON
@pass_session
def exempt(session: Session, kind: str, value: str, scopes: Iterable[str], until: str, reason: str) -> None:
    """Exempt a client, a sender or a recipient from a policy or a limit.

    VALUE is an address or a network for client, an address for sender and recipient, a domain for sender-domain (with
    a dot before it, its subdomains too).
    """
    given = {"kind": kind.replace("-", "_"), "value": value, "until": until, "reason": reason}
    for scope in scopes:
        answer = session.api.send("POST", path("exemptions"), {**given, "scope": scope})
        made = answer.response
        session.warn(answer.remarks)
        session.say(f"{plain(made['value'])} is exempt from {plain(scope)} until {local(made['until'])}.")


@click.group(cls=Group)
def overrides() -> None:
    """List and end what "suspend" and "raise" create."""


@overrides.command("list")
@click.argument("name", metavar="[USER]", default="")
@_DOMAIN
@_ALL
@pass_session
def list_overrides(session: Session, name: str, domain: bool, all_: bool) -> None:
    """List overrides."""
    rows = list(pages(session.api, path("overrides"), 0, active=not all_, **{_about(domain): name}))
    session.table(rows, _OVERRIDES, "There are no overrides.")


@overrides.command("end", cls=Acting)
@click.argument("id", type=click.IntRange(1))
@pass_session
def end_override(session: Session, id: int) -> None:
    """End an override."""
    session.warn(session.api.send("DELETE", path("overrides", id)).remarks)
    session.say(f"Override {id} has ended.")


@click.group(cls=Group)
def exemptions() -> None:
    """List and end what "exempt" creates."""


@exemptions.command("list")
@_ALL
@pass_session
def list_exemptions(session: Session, all_: bool) -> None:
    """List exemptions."""
    rows = list(pages(session.api, path("exemptions"), 0, active=not all_))
    session.table(rows, _EXEMPTIONS, "There are no exemptions.")


@exemptions.command("end", cls=Acting)
@click.argument("id", type=click.IntRange(1))
@pass_session
def end_exemption(session: Session, id: int) -> None:
    """End an exemption."""
    session.warn(session.api.send("DELETE", path("exemptions", id)).remarks)
    session.say(f"Exemption {id} has ended.")
