"""Checking limits, overrides and exemptions. Each check returns all fields of a rule, in normal form."""

from __future__ import annotations

from collections.abc import Callable, Collection
from ipaddress import IPv6Network, ip_network
from typing import Any, Final

from sqlalchemy import Connection, func, select

from chapps_tw.database.models import COLUMNS, EXEMPTION_KINDS, LIMIT_ACTIONS, OVERRIDE_KINDS, RULES
from chapps_tw.database.queries import require
from chapps_tw.database.text import normal_of
from chapps_tw.interfaces.state import MAX_DISTINCT, Unit
from chapps_tw.interfaces.writable_book import (
    MAX_AMOUNT,
    MAX_EXEMPTIONS,
    MAX_LIMITS,
    MAX_OVERRIDES,
    MAX_REASON,
    MAX_RULE_NAME,
    MAX_TIME,
    MAX_WINDOW,
)

Fields = dict[str, Any]

_SCOPES: Final = ("spf", "greylisting", "sender_authorization")
_LIMIT_SCOPE: Final = "limit:"
_MAX_SECTION: Final = 64


def check(connection: Connection, kind: str, fields: Fields, now: float, id: int = 0) -> Fields:
    """Return all fields of a rule, in normal form.

    :param now: epoch seconds.
    :param id: of the existing rule.
    :raises ValueError: with a sentence about a field that does not fit, or if there are too many rules.
    :raises KeyError: with ``(kind, id)`` for a quota, user or domain that does not exist.
    """
    checked = _CHECKS[kind](connection, dict(fields))
    _require_room(connection, kind, checked, now, id)
    return checked


def _check_limit(connection: Connection, fields: Fields) -> Fields:
    _require_owner(connection, "quotas", fields["quota"])
    _require_text("The name of a limit", fields["name"], MAX_RULE_NAME)
    _require_one_of("unit", fields["unit"], [str(unit) for unit in Unit])
    most = MAX_DISTINCT if fields["unit"] == Unit.DISTINCT_RECIPIENTS else MAX_AMOUNT
    _require_whole("amount", fields["amount"], 0, most)
    _require_whole("window", fields["window"], 1, MAX_WINDOW, " seconds")
    _require_one_of("action", fields["action"], LIMIT_ACTIONS)
    return fields


def _check_override(connection: Connection, fields: Fields) -> Fields:
    user, domain, kind = fields["user"], fields["domain"], fields["kind"]
    if (user is None) == (domain is None):
        raise ValueError("An override is that of a user or of a domain.")
    _require_owner(connection, *(("domains", domain) if user is None else ("users", user)))
    _require_one_of("kind", kind, OVERRIDE_KINDS)
    extra, suspended = kind == "extra", kind == "suspended"
    _require_whole("value", fields["value"], int(extra), MAX_AMOUNT if extra else 0, f" for {kind}")
    if suspended:
        fields["action"] = fields["action"] or "refuse"
        _require_one_of("action", fields["action"], ("refuse", "defer"))
    elif fields["action"] != "":
        raise ValueError("Only an override that is suspended has an action.")
    if fields["limit"] != "":
        _require_text("The name of a limit", fields["limit"], MAX_RULE_NAME)
        if suspended:
            raise ValueError("Who is suspended is so for all limits: name none.")
    _require_time("begin", fields["begin"])
    _require_time("until", fields["until"])
    if not fields["begin"] < fields["until"]:
        raise ValueError("until is later than begin.")
    _require_text("A reason", fields["reason"], MAX_REASON, least=0)
    return fields


def _check_exemption(connection: Connection, fields: Fields) -> Fields:
    kind, scope = fields["kind"], fields["scope"]
    _require_one_of("kind", kind, EXEMPTION_KINDS)
    if not isinstance(fields["value"], str):
        raise ValueError("The value of an exemption is text.")
    fields["value"] = _normal_value(connection, kind, fields["value"])
    if isinstance(scope, str) and scope.startswith(_LIMIT_SCOPE):
        _require_text("The name of a limit", scope.removeprefix(_LIMIT_SCOPE), _MAX_SECTION)
    else:
        _require_one_of("scope", scope, [*_SCOPES, f"{_LIMIT_SCOPE}NAME"])
    _require_time("until", fields["until"])
    _require_text("A reason", fields["reason"], MAX_REASON, least=0)
    return fields


_CHECKS: Final[dict[str, Callable[[Connection, Fields], Fields]]] = {
    "limits": _check_limit,
    "overrides": _check_override,
    "exemptions": _check_exemption,
}


def _normal_value(connection: Connection, kind: str, value: str) -> str:
    if kind == "client":
        return _network(value)
    if kind == "sender_domain":
        dot = "." if value.startswith(".") else ""
        domain = normal_of(connection, "domains")(value.removeprefix("."))
        if not domain:
            raise ValueError("A sender_domain is a domain name, or .example.com with its subdomains too.")
        return dot + domain
    email = normal_of(connection, "emails")(value)
    if not email:
        raise ValueError(f"A {kind} is an email address.")
    return email


def _network(text: str) -> str:
    try:
        network = ip_network(text)
    except ValueError:
        raise ValueError("A client is an address or a network: 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32.") from None
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        network = ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _require_room(connection: Connection, kind: str, fields: Fields, now: float, id: int) -> None:
    """Check that an owner has not too many rules: each request reads them, or counts in each."""
    table, columns = RULES[kind], COLUMNS[kind]
    query = select(func.count()).select_from(table).where(table.c.id != id)
    what, most = {
        "limits": ("A quota has at most {} limits.", MAX_LIMITS),
        "overrides": ("A user or domain has at most {} overrides that are not over.", MAX_OVERRIDES),
        "exemptions": ("There are at most {} exemptions that are not over.", MAX_EXEMPTIONS),
    }[kind]
    for owner in ("quota", "user", "domain"):
        if fields.get(owner) is not None:
            query = query.where(columns[owner] == fields[owner])
    if "until" in fields:
        if fields["until"] <= now:
            return
        query = query.where(columns["until"] > now)
    if (connection.scalar(query) or 0) >= most:
        raise ValueError(what.format(most))


def _require_owner(connection: Connection, kind: str, id: object) -> None:
    if type(id) is not int:
        raise ValueError(f"The {kind.removesuffix('s')} is an id.")
    require(connection, kind, [id])


def _require_one_of(name: str, value: object, values: Collection[str]) -> None:
    if value not in values:
        raise ValueError(f"{name} is one of {', '.join(values)}.")


def _require_whole(name: str, value: object, least: int, most: int, what: str = "") -> None:
    if type(value) is not int or not least <= value <= most:
        numbers = str(least) if least == most else f"a whole number from {least} to {most}"
        raise ValueError(f"{name} is {numbers}{what}.")


def _require_time(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME:
        raise ValueError(f"{name} is in epoch seconds, from 0 to {MAX_TIME}.")


def _require_text(what: str, value: object, most: int, least: int = 1) -> None:
    if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
        raise ValueError(f"{what} has {least} to {most} printable characters.")
    if value != value.strip():
        raise ValueError(f"{what} does not begin or end with white space.")
