"""Something to ask about on the first run."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select

from chapps_tw.database import changes
from chapps_tw.database.engine import WRITES
from chapps_tw.database.models import TABLES
from chapps_tw.database.pending import note
from chapps_tw.database.touched import union
from chapps_tw.database.transaction import lock
from chapps_tw.interfaces.book import Touched


def add_examples(engine: Engine) -> bool:
    """Fill an empty book with two users; one that holds anything is left as it is.

    ``alice@example.com`` may send 1000 transmissions, from ``example.com``; ``bob@example.org`` 12,
    from ``example.org`` and as ``sales@example.com``. Mail to ``example.com`` is greylisted and checked by SPF.

    :returns: whether they were added.
    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be asked.
    """
    with engine.connect().execution_options(**{WRITES: True}) as connection:
        connection.begin()
        lock(connection)
        if any(connection.execute(select(table.c.id).limit(1)).first() for table in TABLES.values()):
            return False
        note(connection, _add(connection))
        connection.commit()
        return True


def _add(connection: Connection) -> Touched:
    found: list[Touched] = []

    def entry(kind: str, links: dict[str, list[int]], **fields: str | int | bool) -> int:
        added, touched = changes.create(connection, kind, fields, links)
        found.append(touched)
        return added.id

    basic = entry("quotas", {}, name="basic", quota=1000)
    small = entry("quotas", {}, name="small", quota=12)
    com = entry("domains", {}, name="example.com", greylist=True, check_spf=True)
    org = entry("domains", {}, name="example.org", greylist=False, check_spf=False)
    sales = entry("emails", {}, name="sales@example.com")
    entry("users", {"quotas": [basic], "domains": [com]}, name="alice@example.com")
    entry("users", {"quotas": [small], "domains": [org], "emails": [sales]}, name="bob@example.org")
    return union(*found)
