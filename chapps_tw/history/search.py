"""Searching decisions, for a limited time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from sqlalchemy import Connection, RowMapping, Select, select

from chapps_tw.history.conditions import conditions_of
from chapps_tw.history.rows import decision_of
from chapps_tw.history.store import TABLE, Span, Store
from chapps_tw.history.table import HISTORY, MAX_ID, id_at, time_of
from chapps_tw.interfaces.history import MAX_FOUND, KeptDecision, Page, Wanted

Expired: TypeAlias = Callable[[], bool]
"""Returns whether the time is up."""

_SHOWN: Final = [HISTORY.c[name] for name in KeptDecision._fields]


def search(store: Store, wanted: Wanted, before: int | None, limit: int, expired: Expired) -> Page:
    """Return a page, see :meth:`~chapps_tw.interfaces.history.History.search`. Blocks.

    :raises sqlalchemy.exc.SQLAlchemyError, OSError: if the store is unavailable.
    """
    most = max(1, min(limit, MAX_FOUND))
    conditions = conditions_of(wanted)
    query = select(*_SHOWN).where(*conditions.all).limit(most)
    found: list[RowMapping] = []
    with store.reading() as connection:
        for number, span in enumerate(store.spans(connection, conditions, *bounds(wanted, before))):
            if len(found) == most and span.high <= found[-1]["id"]:
                break
            if number and expired():
                return _page([row for row in found if row["id"] >= span.high], span.high)
            # The ids of spans may overlap.
            found = sorted([*found, *_rows(connection, query, span)], key=_id, reverse=True)[:most]
    return _page(found, _id(found[-1]) if len(found) == most else None)


def bounds(wanted: Wanted, before: int | None = None) -> tuple[int, int]:
    """Return the ids to search: from the first until before the second."""
    high = id_at(wanted.until) if wanted.until else MAX_ID
    return id_at(wanted.since), high if before is None else min(high, before)


def execute(connection: Connection, query: Select[Any], span: Span) -> Any:
    """Execute a query for the rows of a span."""
    within = query.where(HISTORY.c.id >= span.low, HISTORY.c.id < span.high)
    return connection.execute(within, execution_options={TABLE: span.table})


def _rows(connection: Connection, query: Select[Any], span: Span) -> list[RowMapping]:
    order = HISTORY.c.id + 0 if span.few else HISTORY.c.id
    return list(execute(connection, query.order_by(order.desc()), span).mappings())


def _id(row: RowMapping) -> int:
    return int(row["id"])


def _page(found: list[RowMapping], next: int | None) -> Page:
    return Page([decision_of(row) for row in found], next, 0.0 if next is None else time_of(next))
