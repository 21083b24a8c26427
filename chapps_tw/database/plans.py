"""The lookups of limits, overrides and exemptions, each in one query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Column, Connection, Row, Select, Table, and_, select

from chapps_tw.database.lookups import all_named
from chapps_tw.database.models import FIELDS, domains, limits, overrides, quota_user, quotas, users
from chapps_tw.database.models import exemptions as exemptions_table
from chapps_tw.interfaces.book import DomainPlan, Exemption, Limit, Override, Plan, UserPlan
from chapps_tw.interfaces.writable_book import MAX_EXEMPTIONS

UNKNOWN_USER: Final = UserPlan(False, None)
UNKNOWN_DOMAIN: Final = DomainPlan(None, None)

# An alias of each, since the entry that they are joined to has an id and a name too.
_OF_LIMIT: Final = [
    limits.c.name.label("limit_name"), limits.c.unit, limits.c.amount, limits.c.window_seconds, limits.c.action
]  # fmt: skip
_OF_OVERRIDE: Final = [
    overrides.c.id.label("override_id"), overrides.c.kind, overrides.c.value, overrides.c.limit_name,
    overrides.c.begin_at, overrides.c.until_at, overrides.c.reason, overrides.c.action,
]  # fmt: skip


def user_plans(connection: Connection, names: Sequence[str], now: float) -> dict[str, UserPlan]:
    """Return what applies to each user alone.

    :param now: epoch seconds.
    """
    query = select(users.c.name, users.c.id, quota_user.c.quota_id, *_OF_OVERRIDE)
    source = _with_overrides(users.outerjoin(quota_user), users, overrides.c.user_id, now)
    found = _of_each(connection, query.select_from(source), "users", names)
    return {
        name: UserPlan(True, rows[0].quota_id, _overrides(rows)) if rows else UNKNOWN_USER
        for name, rows in found.items()
    }


def domain_plans(connection: Connection, names: Sequence[str], now: float) -> dict[str, DomainPlan]:
    """Return what applies to the users of each domain.

    :param now: epoch seconds.
    """
    query = select(domains.c.name, domains.c.id, domains.c.each_quota_id, domains.c.pool_quota_id, *_OF_OVERRIDE)
    source = _with_overrides(domains, domains, overrides.c.domain_id, now)
    found = _of_each(connection, query.select_from(source), "domains", names)
    return {
        name: DomainPlan(rows[0].each_quota_id, rows[0].pool_quota_id, _overrides(rows)) if rows else UNKNOWN_DOMAIN
        for name, rows in found.items()
    }


def plan(connection: Connection, id: int) -> Plan | None:
    """Return a quota with its limits; a negative number if one was written to the table by hand."""
    return _plan(list(connection.execute(_PLANS.where(quotas.c.id == id))))


def plan_named(connection: Connection, name: str) -> Plan | None:
    """Return the quota with this name, as :func:`plan` does."""
    # The collation may match other names too: compare again.
    return _plan([row for row in connection.execute(_PLANS.where(quotas.c.name == name)) if row.name == name])


def exemptions(connection: Connection, now: float) -> tuple[Exemption, ...]:
    """Return the exemptions that are not over yet, ordered by id.

    :param now: epoch seconds.
    """
    table = exemptions_table
    # In the order of the index, in which those that are over come first and are not read.
    query = select(*FIELDS["exemptions"]).where(table.c.until_at > now).order_by(table.c.until_at)
    return tuple(sorted(Exemption(**row) for row in connection.execute(query.limit(MAX_EXEMPTIONS)).mappings()))


_PLANS: Final = (
    select(quotas.c.id, quotas.c.name, quotas.c.quota, *_OF_LIMIT)
    .select_from(quotas.outerjoin(limits))
    .order_by(limits.c.id)
)


def _with_overrides(source: Any, table: Table, owner: Column[Any], now: float) -> Any:
    return source.outerjoin(overrides, and_(owner == table.c.id, overrides.c.until_at > now))


def _of_each(connection: Connection, query: Select[Any], kind: str, names: Sequence[str]) -> dict[str, list[Row[Any]]]:
    """Return, by name, the rows of the entry that policies use for it: one for each override."""
    found = all_named(connection, query, kind, set(names))
    return {name: [row for row in found.get(name, ()) if row.id == found[name][0].id] for name in names}


def _overrides(rows: Iterable[Row[Any]]) -> tuple[Override, ...]:
    found = (row[-len(_OF_OVERRIDE) :] for row in rows if row.override_id is not None)
    return tuple(sorted(Override(*fields) for fields in found))


def _plan(rows: list[Row[Any]]) -> Plan | None:
    if not rows:
        return None
    own = tuple(Limit(*row[-len(_OF_LIMIT) :]) for row in rows if row.limit_name is not None)
    return Plan(rows[0].id, rows[0].name, rows[0].quota, own)
