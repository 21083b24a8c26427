"""One user: what the user may send, and from where."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import click

from chapps_tw.cli.client import Client, NotFound, path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.names import entry, id_of
from chapps_tw.cli.output import plain
from chapps_tw.cli.session import CommandError, Session

_FLUSH = click.option(
    "--flush/--no-flush", default=True, help="Accepted for scripts of CHAPPS: a change is in effect at once anyway."
)


def add_to(main: click.Group) -> None:
    """Add the commands."""
    for command in (show, allow, deny, set_quota, reset, refresh):
        main.add_command(command)


@click.command(cls=Remote)
@click.argument("user")
@click.option("--quota/--no-quota", help="Also show what the user may send now.")
@pass_session
def show(session: Session, user: str, quota: bool) -> None:
    """Show a user: quota, domains and addresses."""
    show_user(session, user, quota)


@click.command(cls=Remote)
@click.argument("user")
@click.argument("domain_or_email")
@click.option("--create/--no-create", help="Create the domain or address if it does not exist.")
@_FLUSH
@pass_session
def allow(session: Session, user: str, domain_or_email: str, create: bool, flush: bool) -> None:
    """Let a user send from a domain, or as an address."""
    api, kind = session.api, _kind(domain_or_email)
    id = id_of(api, "users", user)
    found = api.find(path(kind, "by-name", domain_or_email))
    if found is not None:
        answer = api.send("PUT", path("users", id, kind), [found.response["id"]])
    elif create:
        answer = api.send("POST", path(kind), {"name": domain_or_email, "users": [id]})
    else:
        raise CommandError(f"there is no {kind[:-1]} named {domain_or_email}: --create creates it")
    session.warn(answer.remarks)
    _done(session, f"User {user} may send from {kind[:-1]} {domain_or_email}.")
    show_user(session, user)


@click.command(cls=Remote)
@click.argument("user")
@click.argument("domain_or_email")
@click.option("--create/--no-create", hidden=True)
@_FLUSH
@pass_session
def deny(session: Session, user: str, domain_or_email: str, create: bool, flush: bool) -> None:
    """No longer let a user send from a domain, or as an address."""
    api, kind = session.api, _kind(domain_or_email)
    id, other = id_of(api, "users", user), id_of(api, kind, domain_or_email)
    session.warn(api.send("DELETE", path("users", id, kind), [other]).remarks)
    _done(session, f"User {user} may no longer send from {kind[:-1]} {domain_or_email}.")
    show_user(session, user)


@click.command(cls=Remote)
@click.argument("user")
@click.argument("quota")
@pass_session
def set_quota(session: Session, user: str, quota: str) -> None:
    """Give a user an existing quota."""
    api = session.api
    id, other = id_of(api, "users", user), id_of(api, "quotas", quota)
    session.warn(api.send("PUT", path("users", id, "quota", other)).remarks)
    _done(session, f"User {user} has quota {quota} now.")
    show_user(session, user)


@click.command(cls=Remote)
@click.argument("user")
@click.option("--refresh/--no-refresh", default=True, help="Whether to read the limit from the database again.")
@pass_session
def reset(session: Session, user: str, refresh: bool) -> None:
    """Forget what a user has sent, as if it were nothing."""
    api = session.api
    id = id_of(api, "users", user)
    dropped = api.send("DELETE", path("live", "quota", id))
    if refresh:
        _refresh(api, id)
    _done(session, f"Dropped {dropped.response} xmits from log; new log has 0")
    show_user(session, user, quota=True)


@click.command(cls=Remote)
@click.argument("user")
@pass_session
def refresh(session: Session, user: str) -> None:
    """Read the limit of a user from the database again."""
    _refresh(session.api, id_of(session.api, "users", user))
    _done(session, f"The limit of user {user} was read again.")
    show_user(session, user, quota=True)


def _refresh(api: Client, id: int) -> None:
    # A user without a quota has no limit to read.
    with suppress(NotFound):
        api.send("POST", path("live", "quota", id))


def _kind(sender: str) -> str:
    return "emails" if "@" in sender else "domains"


def _done(session: Session, sentence: str) -> None:
    """Tell people what was done."""
    if not session.format:
        session.say(sentence)


def show_user(session: Session, name: str, quota: bool = False) -> None:
    """Print a user.

    :param quota: whether to print what the user may send now.
    """
    api = session.api
    found = entry(api, "users", name)
    user = {**found.response, **{each: found.beside[each] for each in ("quota", "domains", "emails")}}
    live = api.get(path("live", "limits", user["name"])).response
    user["may_send"] = live["may_send"]
    if quota:
        left = api.get(path("live", "quota", user["id"]))
        user["quota_avail"], user["limits"], user["remarks"] = left.response, live["limits"], left.remarks
    session.show(user, lambda: _lines(user))


def _lines(user: dict[str, Any]) -> Iterator[str]:
    quota = user["quota"]
    yield f"User: {plain(user)}"
    yield f"  Quota: {plain(quota)} ({plain(quota['quota'])})" if quota else "  Quota: none"
    yield f"  E: {plain(user['emails'] or [])}"
    yield f"  D: {plain(user['domains'] or [])}"
    if "limits" in user:
        own = next((each["amount"] for each in user["limits"] if not each["name"]), None)
        left = "unlimited" if own is None and user["limits"] else user["quota_avail"]
        yield f"Outbound email quota remaining: {left}" + (f"/{own}" if own is not None else "")
        yield from map(plain, user["remarks"])
    if not user["may_send"]:
        yield alert("This user has no quota, or is suspended, and cannot send mail.")
    if not user["domains"] and not user["emails"]:
        yield alert("This user has no domain or address, and can send only with own_address.")


def alert(sentence: str) -> str:
    """Return a sentence that people must not overlook."""
    return click.style(">>> ", fg="red", bold=True) + click.style(sentence, bold=True)
