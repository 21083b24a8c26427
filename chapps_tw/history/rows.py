"""Decisions as rows of the table, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from sqlalchemy import RowMapping

from chapps_tw.history.table import HISTORY, LENGTHS
from chapps_tw.interfaces.history import KeptDecision
from chapps_tw.mail.decision import stops
from chapps_tw.mail.network import Address, client_address
from chapps_tw.observe.decision_record import Record

Row: TypeAlias = tuple[Any, ...]
"""The values of the columns of a row, in the order of :data:`COLUMNS`."""

COLUMNS: Final = tuple(column.name for column in HISTORY.columns)

# Longer figures are not kept. Usually there are three or four, as limit and used.
_MAX_FIGURES: Final = 2000

_encode = json.JSONEncoder(separators=(",", ":")).encode
_lengths = tuple(LENGTHS.values())


def row_of(id: int, node: str, record: Record) -> Row:
    """Return the row of a decision."""
    sender, recipient, client = record.sender.lower(), record.recipient.lower(), record.client
    texts: Iterable[str] = (
        node, record.listener, record.policy, record.action, verb_of(record.action), record.reason, record.user, sender,
        domain_of(sender), recipient, domain_of(recipient), client, _key_of(client), record.instance, record.queue_id,
        record.stage, record.shadow, record.detail, record.source, record.also,
    )  # fmt: skip
    said = "".join(texts)
    # Fast path: odd characters are rare.
    if not said.isascii() or "\0" in said:
        texts = map(_storable, texts)
    cut = [text[:length] or None for text, length in zip(texts, _lengths, strict=True)]
    return (id, record.time, int(stops(record.action)), *cut, _stored(record.figures))


def _stored(figures: Mapping[str, int | float]) -> str | None:
    encoded = _encode(figures) if figures else ""
    return encoded if 0 < len(encoded) <= _MAX_FIGURES else None


def _storable(text: str) -> str:
    """Return a text that every database can store."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")


@lru_cache(4096)
def _key_of(client: str) -> str:
    address = client_address(client)
    return client_key(address) if address else ""


def verb_of(action: str) -> str:
    """Return the first word of an action, in capitals."""
    return action.partition(" ")[0].upper()


def domain_of(address: str) -> str:
    """Return what follows the last ``@``, ``""`` if there is none."""
    _, at, domain = address.rpartition("@")
    return domain if at else ""


def client_key(address: Address) -> str:
    """Return an address as text that sorts like addresses: its version, and its bytes in hexadecimal."""
    return f"{address.version}{address.packed.hex()}"


def decision_of(row: RowMapping) -> KeptDecision:
    """Return the decision of a row."""
    found = {name: row[name] or "" for name in KeptDecision._fields if name in LENGTHS}
    figures = json.loads(row["figures"] or "{}")
    return KeptDecision(id=row["id"], time=row["time"], refused=bool(row["refused"]), figures=figures, **found)
