"""Users, domains, addresses and quotas: list, create and delete them by name."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from chapps_tw.cli.client import path
from chapps_tw.cli.command import Acting, Group, Remote, pass_session
from chapps_tw.cli.names import id_of, ids_of, pages
from chapps_tw.cli.session import Session

# By kind: the associations of a list, and the columns of its table.
_LISTS: Final = {
    "users": ("quota,domains,emails", ("name", "quota", "domains", "emails")),
    "domains": ("", ("name", "greylist", "check_spf", "each_quota", "pool_quota")),
    "emails": ("users", ("name", "users")),
    "quotas": ("limits", ("name", "quota", "limits")),
}
_WITH: Final = "with"
_NEAR_COLUMNS: Final = ("name", "domains", "used")


def add_to(main: click.Group) -> None:
    """Add the commands."""
    for kind, group in {"users": users, "domains": domains, "emails": emails, "quotas": quotas}.items():
        if kind != "users":
            group.add_command(_listing(kind))
        group.add_command(_deletion(kind))
        main.add_command(group)


@click.group(cls=Group)
def users() -> None:
    """List, create and delete users."""


@click.group(cls=Group)
def domains() -> None:
    """List, create and delete domains."""


@click.group(cls=Group)
def emails() -> None:
    """List, create and delete single addresses that users may send as."""


@click.group(cls=Group)
def quotas() -> None:
    """List, create and delete quotas."""


# --- list ---

_TEXT = click.argument("text", default="")
_LIMIT = click.option("--limit", type=click.IntRange(0), default=1000, help="The most to list; 0 for all.")


def _listing(kind: str) -> click.Command:
    @click.command("list", Remote, help=f"List {kind} whose name contains a text.")
    @_TEXT
    @_LIMIT
    @pass_session
    def command(session: Session, text: str, limit: int) -> None:
        _list(session, kind, text, limit)

    return command


@users.command("list")
@_TEXT
@_LIMIT
@click.option("--near", type=click.IntRange(1, 100), help="Only those who have used so many percent of a limit.")
@pass_session
def list_users(session: Session, text: str, limit: int, near: int | None) -> None:
    """List users whose name contains a text."""
    if near is None:
        _list(session, "users", text, limit)
        return
    answer = session.api.get(path("users"), q=text, limit=min(limit or 10_000, 10_000), near=near)
    rows = [{**row, "used": [_used(each) for each in row["limits"]]} for row in answer.response]
    session.table(rows, _NEAR_COLUMNS, f"No user has used {near} percent of a limit.")
    session.warn(answer.remarks)


def _used(limit: dict[str, Any]) -> str:
    name = limit["name"] or limit["quota"]
    return f"{limit['used']} of {limit['amount']} {limit['unit']} ({name})"


def _list(session: Session, kind: str, text: str, limit: int) -> None:
    associations, columns = _LISTS[kind]
    rows = list(pages(session.api, path(kind), limit, q=text, **{_WITH: associations}))
    if kind == "domains":
        _name_quotas(session, rows)
    session.table(rows, columns, f"There are no {kind}{f' with {text} in their names' if text else ''}.")
    if limit and len(rows) == limit:
        session.warn([f"there may be more: the first {limit} are listed, --limit 0 lists all"])


def _name_quotas(session: Session, rows: list[dict[str, Any]]) -> None:
    """Replace ids of quotas by names."""
    fields = ("each_quota", "pool_quota")
    if any(row[field] for row in rows for field in fields):
        names = {each["id"]: each["name"] for each in pages(session.api, path("quotas"), 0)}
        for row in rows:
            row |= {field: names.get(row[field], row[field]) for field in fields}


# --- create ---


@users.command("create", cls=Acting)
@click.argument("name")
@click.option("--quota", help="Name of the quota.")
@click.option("--domain", "domains", multiple=True, help="Name of a domain to send from; may be repeated.")
@click.option("--email", "emails", multiple=True, help="An address to send as; may be repeated.")
@pass_session
def create_user(
    session: Session, name: str, quota: str | None, domains: tuple[str, ...], emails: tuple[str, ...]
) -> None:
    """Create a user."""
    api = session.api
    links: dict[str, Any] = {"domains": ids_of(api, "domains", domains), "emails": ids_of(api, "emails", emails)}
    if quota is not None:
        links["quota"] = id_of(api, "quotas", quota)
    _create(session, "users", {"name": name, **links})


@domains.command("create", cls=Acting)
@click.argument("name")
@click.option("--greylist", is_flag=True, help="Greylist mail to it.")
@click.option("--check-spf", is_flag=True, help="Check SPF of mail to it.")
@click.option("--each-quota", help="Name of the quota of each of its users who has none of his own.")
@click.option("--pool-quota", help="Name of the quota that its users share.")
@pass_session
def create_domain(
    session: Session, name: str, greylist: bool, check_spf: bool, each_quota: str | None, pool_quota: str | None
) -> None:
    """Create a domain."""
    given = {"each_quota": each_quota, "pool_quota": pool_quota}
    found = {field: id_of(session.api, "quotas", quota) for field, quota in given.items() if quota is not None}
    _create(session, "domains", {"name": name, "greylist": greylist, "check_spf": check_spf, **found})


@emails.command("create", cls=Acting)
@click.argument("name")
@click.option("--user", "users", multiple=True, help="A user who may send as it; may be repeated.")
@pass_session
def create_email(session: Session, name: str, users: tuple[str, ...]) -> None:
    """Create an address."""
    _create(session, "emails", {"name": name, "users": ids_of(session.api, "users", users)})


@quotas.command("create", cls=Acting)
@click.argument("name")
@click.argument("number", type=click.IntRange(0), required=False)
@pass_session
def create_quota(session: Session, name: str, number: int | None) -> None:
    """Create a quota.

    NUMBER is how many transmissions the interval of the configuration allows; without it, only the limits of the quota
    count: see "limits add".
    """
    _create(session, "quotas", {"name": name, "quota": number})


def _create(session: Session, kind: str, body: dict[str, Any]) -> None:
    answer = session.api.send("POST", path(kind), body)
    session.say(f"{kind[:-1].capitalize()} {answer.response['name']} created.")
    session.warn(answer.remarks)


# --- delete ---


def _deletion(kind: str) -> click.Command:
    @click.command("delete", Acting, help=f"Delete {kind} by name.")
    @click.argument("names", nargs=-1, required=True)
    @click.option("--yes", is_flag=True, help="Do not ask.")
    @pass_session
    def command(session: Session, names: tuple[str, ...], yes: bool) -> None:
        ids = ids_of(session.api, kind, names)
        if not yes and sys.stdin is not None and sys.stdin.isatty():
            click.confirm(f"Delete {len(ids)} {kind if len(ids) > 1 else kind[:-1]}?", abort=True, err=True)
        answer = session.api.send("DELETE", path(kind), ids)
        session.say(f"Deleted: {', '.join(names)}.")
        session.warn(answer.remarks)

    return command
