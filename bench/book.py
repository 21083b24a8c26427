"""The policy book of a measured service, written to its database in pieces: a million users take seconds, not hours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Table, create_engine
from sqlalchemy.pool import NullPool

from bench.mail import CHECKED, GREYLISTED, user_domain, user_name
from chapps_tw.database import models

QUOTA = 1_000_000_000

# Users with four limits: an hour and a day of their own, the pool of their domain, and [Limit everybody].
LIMITED = range(2000, 2100)

# A user who is over the quota after the first message.
OVER_QUOTA = 10_000

# The ids of the quotas.
_DAY, _ONE, _HOUR_AND_DAY, _POOL = 1, 2, 3, 4
_QUOTAS = [
    {"id": _DAY, "name": "day", "quota": QUOTA},
    {"id": _ONE, "name": "one", "quota": 1},
    {"id": _HOUR_AND_DAY, "name": "hour and day", "quota": QUOTA},
    {"id": _POOL, "name": "pool", "quota": QUOTA},
]
_HOUR = {"unit": "recipients", "amount": QUOTA, "window_seconds": 3600, "action": "refuse"}

_PIECE = 10_000


def write_book(database: str, users: Sequence[int]) -> None:
    """Write quotas, domains and users to a book that is empty.

    :param database: its URL.
    :param users: numbers, besides :data:`LIMITED` and :data:`OVER_QUOTA`.
    """
    everyone = [*users, *LIMITED, OVER_QUOTA]
    pooled = {user_domain(number) for number in LIMITED}
    domains = {name: id for id, name in enumerate(dict.fromkeys(map(user_domain, everyone)), 1)}
    engine = create_engine(database, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(models.quotas.insert(), _QUOTAS)
        connection.execute(models.limits.insert(), {"quota_id": _HOUR_AND_DAY, "name": "hour", **_HOUR})
        pools = [(name, _POOL if name in pooled else None) for name in domains]
        _insert(connection, models.domains, [{"id": domains[n], "name": n, "pool_quota_id": p} for n, p in pools])
        # With ids, as all others: a server has counted none of those.
        connection.execute(models.domains.insert(), {"id": len(domains) + 1, "name": GREYLISTED, "greylist": True})
        connection.execute(models.domains.insert(), {"id": len(domains) + 2, "name": CHECKED, "check_spf": True})
        for first, piece in _pieces(everyone):
            ids = list(enumerate(piece, first + 1))
            _insert(connection, models.users, [{"id": id, "name": user_name(n)} for id, n in ids])
            _insert(connection, models.quota_user, [{"user_id": id, "quota_id": _quota(n)} for id, n in ids])
            links = [{"user_id": id, "domain_id": domains[user_domain(n)]} for id, n in ids]
            _insert(connection, models.domain_user, links)
    engine.dispose()


def _quota(number: int) -> int:
    if number == OVER_QUOTA:
        return _ONE
    return _HOUR_AND_DAY if number in LIMITED else _DAY


def _insert(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    connection.execute(table.insert(), rows)


def _pieces(numbers: Sequence[int]) -> Iterator[tuple[int, Sequence[int]]]:
    """Parts of a sequence, each with the place of its first element."""
    for first in range(0, len(numbers), _PIECE):
        yield first, numbers[first : first + _PIECE]
