"""Checking the fields of users, domains, addresses and quotas, which SQLite would not do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from chapps_tw.database.lookups import other_spelling
from chapps_tw.database.models import COLUMNS, MAX_INTEGER, TABLES
from chapps_tw.database.queries import require
from chapps_tw.database.text import normal_of, storable
from chapps_tw.interfaces.book import BookConflict, Fields

# What each kind of entry is called in messages.
_SINGULAR = {
    "users": "A user",
    "domains": "A domain",
    "emails": "An email address",
    "quotas": "A quota",
    "limits": "A limit of this quota",
}


def name_taken(kind: str, name: object) -> str:
    """Return the message for a name that another entry has."""
    return f"{_SINGULAR.get(kind, 'An entry')} named {name} exists already."


def require_fields(kind: str, fields: Fields) -> None:
    """Check that a new entry has what it needs.

    :raises ValueError: if something is missing.
    """
    for name in ("name", "quota") if kind == "quotas" else ("name",):
        if name not in fields:
            raise ValueError(f"{kind} need a {name}.")


def to_store(connection: Connection, kind: str, fields: Fields, id: int | None = None) -> dict[str, Any]:
    """Return the values of columns, with the name in its normal form.

    :param id: of the existing entry.
    :raises ValueError: with a sentence about a field that does not fit.
    :raises BookConflict: if the name exists in another spelling: policies cannot distinguish the two.
    :raises KeyError: with ``(kind, id)`` for a quota that does not exist.
    """
    normal = _in_normal_form(connection, kind, fields)
    for name, value in normal.items():
        _check(kind, name, value)
    other = other_spelling(connection, kind, str(normal["name"]), id) if "name" in normal else None
    if other is not None:
        raise BookConflict(name_taken(kind, other))
    require(connection, "quotas", [int(normal[name] or 0) for name in _QUOTAS if normal.get(name) is not None])
    return {COLUMNS[kind][name].name: value for name, value in normal.items()}


_QUOTAS = ("each_quota", "pool_quota")


def _in_normal_form(connection: Connection, kind: str, fields: Fields) -> Fields:
    """Return the fields with the name in its normal form. An invalid name is left unchanged."""
    name = fields.get("name")
    if kind == "quotas" or not isinstance(name, str):
        return fields
    return {**fields, "name": normal_of(connection, kind)(name) or name}


def _check(kind: str, name: str, value: object) -> None:
    if name == "id" or name not in COLUMNS[kind]:
        raise ValueError(f"{kind} have no field {name}.")
    if name == "name":
        length = TABLES[kind].c.name.type.length  # type: ignore[attr-defined]
        if not isinstance(value, str) or not storable(value, length):
            raise ValueError(f"A name in {kind} is 1 to {length} characters, none of them NUL.")
        # To MariaDB, names that differ in trailing spaces are equal.
        if value != value.strip():
            raise ValueError(f"A name in {kind} does not begin or end with white space.")
    elif name == "quota":
        if value is not None and not (type(value) is int and 0 <= value <= MAX_INTEGER):
            raise ValueError(f"A quota is a whole number from 0 to {MAX_INTEGER}, or nothing if only its limits count.")
    elif name in _QUOTAS:
        if value is not None and type(value) is not int:
            raise ValueError(f"{name} is the id of a quota, or nothing.")
    elif not isinstance(value, bool):
        raise ValueError(f"{name} is true or false.")
