"""Example users for a first trial."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Connection, Engine, select

from chapps_tw.database.changes import apply
from chapps_tw.database.models import TABLES
from chapps_tw.database.stale_keys import union
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import Create, StaleKeys


def add_examples(engine: Engine, now: float) -> bool:
    """Add two users to an empty book. A book with entries is left unchanged.

    ``alice@example.com`` may send 1000 transmissions, from ``example.com``; ``bob@example.org`` 12,
    from ``example.org`` and as ``sales@example.com``. Mail to ``example.com`` is greylisted and checked by SPF.

    :param now: epoch seconds.
    :returns: whether they were added.
    :raises BookUnavailable: if another client holds the lock, or the database is read-only.
    :raises sqlalchemy.exc.SQLAlchemyError: if the query fails.
    """
    return transact(engine, partial(_fill, now=now), Permit(), "An example exists already.").value


def _fill(connection: Connection, now: float) -> tuple[bool, StaleKeys]:
    if any(connection.execute(select(table.c.id).limit(1)).first() for table in TABLES.values()):
        return False, StaleKeys()
    stale: list[StaleKeys] = []

    def create(kind: str, links: dict[str, list[int]], **fields: str | int | bool) -> int:
        applied, keys = apply(connection, Create(kind, fields, links), "", now)
        assert applied.entry is not None
        stale.append(keys)
        return applied.entry.id

    basic = create("quotas", {}, name="basic", quota=1000)
    small = create("quotas", {}, name="small", quota=12)
    com = create("domains", {}, name="example.com", greylist=True, check_spf=True)
    org = create("domains", {}, name="example.org", greylist=False, check_spf=False)
    sales = create("emails", {}, name="sales@example.com")
    create("users", {"quotas": [basic], "domains": [com]}, name="alice@example.com")
    create("users", {"quotas": [small], "domains": [org], "emails": [sales]}, name="bob@example.org")
    return True, union(*stale)
