"""Plans as they are cached: JSON lists that begin with a version. A text of another version counts as missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from chapps_tw.interfaces.book import DomainPlan, Limit, Override, Plan, UserPlan
from chapps_tw.interfaces.state import Unit

# Raise it if the lists change.
_VERSION: Final = 1

_NUMBER: Final = (int, float)
_OVERRIDE: Final = (int, str, int, str, _NUMBER, _NUMBER, str, str)
_LIMIT: Final = (str, str, int, int, str)
_ID: Final = (int, type(None))

_encode = json.JSONEncoder(separators=(",", ":")).encode


def user_text(plan: UserPlan) -> str:
    """Encode what the book says of a user."""
    return _encode((_VERSION, *plan))


def domain_text(plan: DomainPlan) -> str:
    """Encode what the book says of a domain."""
    return _encode((_VERSION, *plan))


def plan_text(plan: Plan | None) -> str:
    """Encode a quota; ``None`` if it does not exist."""
    return _encode((_VERSION, *(plan or ())))


def read_user(text: str) -> UserPlan:
    """Decode :func:`user_text`.

    :raises ValueError: if the text is something else.
    """
    known, quota, overrides = _read(text, bool, _ID, list)
    return UserPlan(known, quota, _overrides(overrides))


def read_domain(text: str) -> DomainPlan:
    """Decode :func:`domain_text`.

    :raises ValueError: if the text is something else.
    """
    each, pool, overrides = _read(text, _ID, _ID, list)
    return DomainPlan(each, pool, _overrides(overrides))


def read_plan(text: str) -> Plan | None:
    """Decode :func:`plan_text`.

    :raises ValueError: if the text is something else.
    """
    if text == plan_text(None):
        return None
    number, name, quota, limits = _read(text, int, str, _ID, list)
    found = tuple(Limit(*_checked(limit, *_LIMIT)) for limit in limits)
    for limit in found:
        Unit(limit.unit)
    return Plan(number, name, quota, found)


def _overrides(rows: Iterable[Any]) -> tuple[Override, ...]:
    return tuple(Override(*_checked(row, *_OVERRIDE)) for row in rows)


def _read(text: str, *kinds: Any) -> list[Any]:
    try:
        row = json.loads(text)
    except RecursionError as error:
        raise ValueError("too deep") from error
    version, *rest = _checked(row, int, *kinds)
    if version != _VERSION:
        raise ValueError(f"version {version}")
    return rest


def _checked(row: Any, *kinds: Any) -> list[Any]:
    if not isinstance(row, list) or len(row) != len(kinds) or not all(map(isinstance, row, kinds)):
        raise ValueError("another form")
    return row
