"""``chapps-cli why``: everything about a user, an address, a domain, a client or a message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_network
from typing import Any, Final

import click

from chapps_tw.cli import sentences
from chapps_tw.cli.client import Invalid, NotFound, path
from chapps_tw.cli.command import Remote, pass_session
from chapps_tw.cli.decisions import HISTORY, RING, meanings
from chapps_tw.cli.names import entry, pages
from chapps_tw.cli.output import local, plain
from chapps_tw.cli.session import CommandError, Session

_LAST: Final = 5
_LIKE: Final = 10
# Short ones are hexadecimal, long ones have other letters and digits, too.
_QUEUE_ID: Final = re.compile(r"[0-9A-Za-z]{6,20}")
# What is shown of domains and addresses.
_SENDER: Final = ("name", "greylist", "check_spf", "users")

Card = dict[str, Any]


def add_to(main: click.Group) -> None:
    """Add the commands."""
    main.add_command(why)


@click.command(cls=Remote)
@click.argument("what")
@pass_session
def why(session: Session, what: str) -> None:
    """Show everything about WHAT: a user, an address, a domain, a client address or network, or a queue id.

    What it is, its limits with what is used and when there is room, where it may send from, and the last decisions.
    """
    cards = list(_cards(session, what.strip()))
    if not cards:
        raise CommandError("\n".join([f"nothing is known of {what}", *_similar(session, what)]))
    session.show(cards, lambda: _lines(session, cards))


def _cards(session: Session, what: str) -> Iterator[Card]:
    """Yield a card for each thing that it may be."""
    if _is_network(what):
        yield _client(session, what)
        return
    user = _entry(session, "users", what)
    if user:
        yield _user(session, user)
    kind = "emails" if "@" in what else "domains"
    if sender := _entry(session, kind, what):
        yield _sender(session, kind, sender)
    if exempt := [each for each in _exemptions(session) if _names(each, what.lower())]:
        yield {"is": "exemptions", "name": what, "exemptions": exempt}
    yield from _mail(session, what, is_user=bool(user))


def _entry(session: Session, kind: str, name: str) -> Card:
    """Return an entry with what is associated with it; empty if there is none, and for no valid name."""
    with suppress(NotFound, Invalid):
        found = entry(session.api, kind, name)
        return {**found.beside, **found.response}
    return {}


def _is_network(what: str) -> bool:
    try:
        ip_network(what, strict=False)
    except ValueError:
        return False
    return True


# --- users, addresses and domains of the book ---


def _user(session: Session, user: Card) -> Card:
    live = session.api.get(path("live", "limits", user["name"])).response
    fields = {name: user[name] for name in ("name", "quota", "domains", "emails")}
    more = {name: live[name] for name in ("may_send", "limits", "overrides")}
    return {"is": "user", **fields, **more, "decisions": _last(session, user=user["name"])}


def _sender(session: Session, kind: str, sender: Card) -> Card:
    card: Card = {"is": kind[:-1], **{name: sender[name] for name in _SENDER if name in sender}}
    if kind == "domains":
        pool = session.api.get(path("live", "pools", sender["name"])).response
        card |= {"limits": pool["limits"], "overrides": pool["overrides"]}
    return card


# --- mail ---


def _mail(session: Session, what: str, is_user: bool) -> Iterator[Card]:
    """Yield the last mail from and to an address or a domain, and the message with a queue id.

    :param is_user: whether it is a user, too, whose mail is shown already.
    """
    address = what if "@" in what else f"@{what}"
    filters = {"mail from": {"sender": address}, "mail to": {"recipient": address}}
    if is_user:
        del filters["mail from"]
    if "@" not in what and "." not in what:
        filters = {"message": {"queue_id": what}} if _QUEUE_ID.fullmatch(what) else {}
    for name, wanted in filters.items():
        if found := _last(session, **wanted):
            yield {"is": name, "name": what, "decisions": found}


def _client(session: Session, what: str) -> Card:
    api = session.api
    card: Card = {"is": "client", "name": what}
    network = ip_network(what, strict=False)
    if network.num_addresses == 1:
        card["passed_greylisting"] = len(api.get(path("live", "grl", "tally", what)).response)
    clients = [each for each in _exemptions(session) if each["kind"] == "client"]
    card["exemptions"] = [each for each in clients if _covers(each["value"], network)]
    card["decisions"] = _last(session, client=str(network))
    return card


def _exemptions(session: Session) -> list[Card]:
    """Return the exemptions that are in force."""
    return list(pages(session.api, path("exemptions"), 0, active=True))


def _names(exemption: Card, what: str) -> bool:
    """Return whether an exemption is about an address, its domain, or a domain."""
    value = exemption["value"].lower()
    if exemption["kind"] != "sender_domain":
        return bool(value == what)
    domain = what.rpartition("@")[2]
    return domain.endswith(value) if value.startswith(".") else domain == value


def _covers(value: str, network: Any) -> bool:
    other = ip_network(value, strict=False)
    return other.version == network.version and other.supernet_of(network)


def _last(session: Session, **wanted: str) -> list[Card]:
    """Return the last decisions: of all nodes if they are kept, otherwise of this node."""
    found: list[Card] = []
    with suppress(Invalid):
        found = session.api.get(HISTORY, limit=_LAST, **wanted).response
    if not found:
        ring = {name: value.removeprefix("@") for name, value in wanted.items()}
        found = session.api.get(RING, limit=_LAST, **ring).response
    return found


# --- text ---


def _lines(session: Session, cards: list[Card]) -> Iterator[str]:
    known, now = meanings(session), session.now
    for number, card in enumerate(cards):
        if number:
            yield ""
        yield click.style(f"{card['is'].capitalize()} {plain(card['name'])}", bold=True)
        yield from map("  {}".format, _facts(card))
        yield from (f"  {sentences.limit(each, now)}" for each in card.get("limits", ()))
        yield from (f"  {sentences.override(each, now)}" for each in card.get("overrides", ()))
        yield from (f"  {sentences.decision(each, now, known)}" for each in card.get("decisions", ()))
        if card.get("decisions") == []:
            yield "  No decision is known."


def _facts(card: Card) -> Iterator[str]:
    if card["is"] == "user":
        yield f"Quota: {plain(card['quota']) or 'none'}"
        yield f"May send from: {_some([*(card['domains'] or []), *(card['emails'] or [])])}"
        if not card["may_send"]:
            is_suspended = any(each["kind"] == "suspended" for each in card["overrides"])
            yield click.style(f"Cannot send mail: {'suspended' if is_suspended else 'no quota'}.", fg="red")
    if card["is"] == "domain":
        yield f"Greylisting: {plain(card['greylist'])}; SPF: {plain(card['check_spf'])}"
    if "users" in card:
        yield f"Users who may send from it: {_some(card['users'] or [])}"
    if "passed_greylisting" in card:
        yield f"Messages that passed greylisting: {card['passed_greylisting']}"
    for each in card.get("exemptions", ()):
        until = local(each["until"])
        yield f"Exempt from {plain(each['scope'])} as {each['value']} until {until}: {plain(each['reason'])}"


def _some(entries: list[Card]) -> str:
    """Return the names of some entries, and how many more there are."""
    more = f" and {len(entries) - _LIKE} more" if len(entries) > _LIKE else ""
    return (plain(entries[:_LIKE]) or "none") + more


def _similar(session: Session, what: str) -> Iterator[str]:
    """Yield sentences that name entries with a similar name."""
    for kind in ("users", "domains", "emails"):
        rows = session.api.get(path(kind), q=what, limit=_LIKE).response
        if rows:
            yield f"{kind} with {what} in their names: {plain([row['name'] for row in rows])}"
