"""The conditions of a search."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from sqlalchemy import Column, ColumnElement, literal_column

from chapps_tw.history.rows import client_key
from chapps_tw.history.table import HISTORY, LENGTHS
from chapps_tw.interfaces.history import Wanted
from chapps_tw.mail.addresses import normal_domain, unicode_domain

# The indexes in the order in which they are expected to find the fewest rows.
_BEST: Final = (
    "queue_id", "instance", "user", "client_key", "sender", "recipient", "sender_domain", "recipient_domain", "refused",
)  # fmt: skip

Condition = ColumnElement[bool]


class Conditions(NamedTuple):
    """The conditions of a search.

    :ivar all: every condition.
    :ivar driver: those that an index answers in the order of the ids; none if all rows must be walked through.
    :ivar network: the condition for a network, which its index does not answer in the order of the ids; else ``None``.
    """

    all: tuple[Condition, ...]
    driver: tuple[Condition, ...]
    network: Condition | None


def conditions_of(wanted: Wanted) -> Conditions:
    """Return the conditions for all fields but the times."""
    ordered = dict(_ordered(wanted))
    network = _network(wanted)
    others = [*_others(wanted), *([] if network is None else [network])]
    best = [ordered[name] for name in _BEST if name in ordered][:1]
    return Conditions((*ordered.values(), *others), tuple(best), network if not best else None)


def _ordered(wanted: Wanted) -> Iterator[tuple[str, Condition]]:
    """Yield the conditions that an index answers in the order of the ids, by the name of their column."""
    for name in ("queue_id", "instance", "user"):
        if value := getattr(wanted, name):
            yield name, HISTORY.c[name] == value[: LENGTHS[name]]
    if wanted.client is not None and wanted.client.num_addresses == 1:
        yield "client_key", HISTORY.c.client_key == client_key(wanted.client.network_address)
    for side in ("sender", "recipient"):
        text = getattr(wanted, side).lower()
        if is_domain(text):
            yield f"{side}_domain", _one_of(HISTORY.c[f"{side}_domain"], _forms(text[1:]))
        elif is_address(text):
            local, _, domain = text.rpartition("@")
            yield side, _one_of(HISTORY.c[side], [f"{local}@{form}" for form in _forms(domain)])
    if wanted.refused:
        # The planner knows that its index has these rows only if the value is in the statement.
        yield "refused", HISTORY.c.refused == literal_column("1")


def _others(wanted: Wanted) -> Iterator[Condition]:
    for name in ("listener", "policy", "reason", "node"):
        if value := getattr(wanted, name):
            yield HISTORY.c[name] == value
    if wanted.action:
        yield HISTORY.c.verb == wanted.action.upper()
    if wanted.unknown_client:
        yield HISTORY.c.client_key.is_(None)
    for side in ("sender", "recipient"):
        text = getattr(wanted, side).lower()
        if text and not is_domain(text) and not is_address(text):
            yield HISTORY.c[side].contains(text, autoescape=True)


def _network(wanted: Wanted) -> Condition | None:
    network = wanted.client
    if network is None or network.num_addresses == 1:
        return None
    return HISTORY.c.client_key.between(client_key(network[0]), client_key(network[-1]))


def is_domain(text: str) -> bool:
    """Return whether a text for a sender or a recipient means all addresses of a domain."""
    return len(text) > 1 and text.startswith("@") and "@" not in text[1:]


def is_address(text: str) -> bool:
    """Return whether a text for a sender or a recipient means one address."""
    local, at, domain = text.rpartition("@")
    return bool(local and at and domain)


def _forms(domain: str) -> list[str]:
    """Return how a domain may be stored: as it is, as A-labels and as U-labels."""
    name = normal_domain(domain)
    return list(dict.fromkeys([domain, name, unicode_domain(name)] if name else [domain]))


def _one_of(column: Column[Any], values: list[str]) -> Condition:
    # With one value, an index has the rows in the order of their ids.
    return column == values[0] if len(values) == 1 else column.in_(values)
