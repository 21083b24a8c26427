"""Limits, overrides and exemptions: reading and changing them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, insert, select, update

from chapps_tw.database.audit import MAX_SINGLE, Trail, listed
from chapps_tw.database.models import COLUMNS, FIELDS, MAX_INTEGER, RULES, TABLES
from chapps_tw.database.queries import valid_ids
from chapps_tw.database.rule_checks import check
from chapps_tw.database.stale_keys import chunks, stale_keys, union
from chapps_tw.interfaces.book import Create, Delete, Edit, Exemption, Fields, StaleKeys, Update
from chapps_tw.interfaces.writable_book import LimitEntry, OverrideEntry, Rule

_SHAPES: Final[dict[str, type[LimitEntry] | type[OverrideEntry] | type[Exemption]]] = {
    "limits": LimitEntry,
    "overrides": OverrideEntry,
    "exemptions": Exemption,
}

# Whose rules they are: the field with the id, and the kind.
_OWNERS: Final = {"quota": "quotas", "user": "users", "domain": "domains"}
_OWNER_FIELDS: Final = {kind: field for field, kind in _OWNERS.items()}

_DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "limits": {"action": "refuse"},
    "overrides": {"user": None, "domain": None, "value": 0, "limit": "", "reason": "", "action": ""},
    "exemptions": {"reason": ""},
}

# Set by the book.
_OWN: Final = ("id", "author", "created")


def page(
    connection: Connection, kind: str, of: tuple[str, int] | None, after: float, skip: int, limit: int
) -> list[Rule]:
    """Return a page of rules, ordered by id.

    :param of: kind and id of the owner.
    :param after: epoch seconds; only those that are not over then.
    :raises ValueError: if a kind of owner has no such rules.
    """
    columns, query = COLUMNS[kind], select(*FIELDS[kind])
    if of is not None:
        field = _OWNER_FIELDS.get(of[0], "")
        if field not in columns:
            raise ValueError(f"{of[0]} have no {kind}.")
        if not valid_ids([of[1]]):
            return []
        query = query.where(columns[field] == of[1])
    if after and "until" in columns:
        query = query.where(columns["until"] > after)
    query = query.order_by(columns["id"]).offset(min(skip, MAX_INTEGER)).limit(min(limit, MAX_INTEGER))
    return _rules(connection, kind, query)


def limits_of(connection: Connection, quotas: Sequence[int], limit: int) -> dict[int, list[LimitEntry]]:
    """Return, by id of the quota, its limits, ordered by id; at most ``limit`` of all quotas together."""
    quota = COLUMNS["limits"]["quota"]
    query = select(*FIELDS["limits"]).order_by(quota, COLUMNS["limits"]["id"])
    found: dict[int, list[LimitEntry]] = {id: [] for id in quotas}
    for chunk in chunks(valid_ids(quotas)):
        rows = connection.execute(query.where(quota.in_(chunk)).limit(limit)).mappings().all()
        limit -= len(rows)
        for row in rows:
            found[row["quota"]].append(LimitEntry(**row))
    return found


def by_ids(connection: Connection, kind: str, ids: Collection[int]) -> list[Rule]:
    """Return the rules with these ids, ordered by id. Ids that do not exist are ignored."""
    id = COLUMNS[kind]["id"]
    return [
        rule
        for chunk in chunks(valid_ids(ids))
        for rule in _rules(connection, kind, select(*FIELDS[kind]).where(id.in_(chunk)).order_by(id))
    ]


def _rules(connection: Connection, kind: str, query: Select[Any]) -> list[Rule]:
    return [_SHAPES[kind](**row) for row in connection.execute(query).mappings()]


def apply(trail: Trail, edit: Edit) -> tuple[Rule | None, StaleKeys]:
    """Apply a change of a rule, and record it.

    :returns: the rule that was created or updated, and the stale keys.
    :raises KeyError: with ``(kind, id)`` for an id that does not exist.
    :raises ValueError: see :func:`~chapps_tw.database.rule_checks.check`; and if links are given.
    """
    match edit:
        case Create() if not edit.links:
            return _create(trail, edit.kind, edit.fields)
        case Update() if not edit.links:
            return _update(trail, edit.kind, edit.id, edit.fields)
        case Delete():
            return None, _delete(trail, edit.kind, edit.ids)
    raise ValueError(f"{edit.kind} have no links.")


def _create(trail: Trail, kind: str, given: Fields) -> tuple[Rule, StaleKeys]:
    connection, now = trail.connection, trail.now
    _require_known(kind, given)
    columns = COLUMNS[kind]
    defaults = _DEFAULTS[kind] | ({"begin": now} if "begin" in columns else {})
    fields = {**defaults, **given}
    for name in columns:
        if name not in fields and name not in _OWN:
            raise ValueError(f"{kind} need {name}.")
    fields = check(connection, kind, fields, now)
    if fields.get("until", now + 1) <= now:
        raise ValueError("until is in the past.")
    if "created" in columns:
        fields |= {"author": trail.author, "created": now}
    result = connection.execute(insert(RULES[kind]).values(**_values(kind, fields)))
    key = result.inserted_primary_key
    assert key is not None
    rule = by_ids(connection, kind, [int(key[0])])[0]
    trail.add("create", kind, rule.id, _name(connection, rule), None, _described(rule))
    return rule, _stale(connection, kind, [rule])


def _update(trail: Trail, kind: str, id: int, given: Fields) -> tuple[Rule, StaleKeys]:
    connection = trail.connection
    found = by_ids(connection, kind, [id])
    if not found:
        raise KeyError((kind, id))
    _require_known(kind, given)
    for name in given:
        if name in _OWNERS:
            raise ValueError(f"The {name} of an entry in {kind} does not change.")
    was = found[0]
    fields = check(connection, kind, {**_described(was), **given}, trail.now, id)
    connection.execute(update(RULES[kind]).where(RULES[kind].c.id == id).values(**_values(kind, fields)))
    rule = by_ids(connection, kind, [id])[0]
    if rule != was:
        trail.add("update", kind, id, _name(connection, rule), _described(was), _described(rule))
    return rule, _stale(connection, kind, [rule])


def _delete(trail: Trail, kind: str, ids: Sequence[int]) -> StaleKeys:
    connection, found = trail.connection, by_ids(trail.connection, kind, ids)
    if len(found) <= MAX_SINGLE:
        for rule in found:
            trail.add("delete", kind, rule.id, _name(connection, rule), _described(rule), None)
    else:
        names = [_name(connection, rule) for rule in found[:MAX_SINGLE]]
        trail.add("delete", kind, None, "", listed(kind, names, len(found)), None)
    for chunk in chunks([rule.id for rule in found]):
        connection.execute(delete(RULES[kind]).where(RULES[kind].c.id.in_(chunk)))
    return _stale(connection, kind, found)


def _require_known(kind: str, given: Fields) -> None:
    for name in given:
        if name in _OWN or name not in COLUMNS[kind]:
            raise ValueError(f"{kind} have no field {name} that can be set.")


def _values(kind: str, fields: dict[str, Any]) -> dict[str, Any]:
    return {COLUMNS[kind][name].name: value for name, value in fields.items()}


def _described(rule: Rule) -> dict[str, Any]:
    fields = rule._asdict()
    del fields["id"]
    return fields


def _owner(rule: LimitEntry | OverrideEntry) -> tuple[str, int]:
    """Return kind and id of whose rule it is."""
    fields = rule._asdict()
    return next((kind, fields[name]) for name, kind in _OWNERS.items() if fields.get(name) is not None)


def _name(connection: Connection, rule: Rule) -> str:
    """Return the name in the audit trail."""
    if isinstance(rule, Exemption):
        return rule.value
    kind, id = _owner(rule)
    return connection.scalar(select(TABLES[kind].c.name).where(TABLES[kind].c.id == id)) or ""


def _stale(connection: Connection, kind: str, rules: Sequence[Rule]) -> StaleKeys:
    """Return the key of each plan that these rules are part of: it is named like the kind of its owner."""
    ids: defaultdict[str, set[int]] = defaultdict(set)
    for rule in rules:
        if not isinstance(rule, Exemption):
            owner, id = _owner(rule)
            ids[owner].add(id)
    keys = union(*(stale_keys(connection, owner, found, {owner}) for owner, found in ids.items()))
    return keys._replace(exemptions=kind == "exemptions" and bool(rules))
