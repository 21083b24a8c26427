"""Lists as CSV (RFC 4180)."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any, Final

from chapps_tw.rest.slices import Slices
from chapps_tw.ui.views import Answer, Raw, Visit

PAGE: Final = 1000
MAX_ROWS: Final = 500_000

_NESTED = {"users": "quota,domains,emails"}
_COLUMNS = {
    "users": ("name", "quota", "domains", "emails"),
    "domains": ("name", "greylist", "check_spf"),
    "emails": ("name",),
    "quotas": ("name", "quota"),
}

# What a spreadsheet would take for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


async def export(slices: Slices, kind: str, visit: Visit) -> Answer:
    """Return all entries whose name contains a text."""
    columns = _COLUMNS[kind]
    parts = [_line(columns)]
    nested = {"with": _NESTED[kind]} if kind in _NESTED else {}
    for skip in range(0, MAX_ROWS, PAGE):
        query: dict[str, Any] = {"q": visit.query["name"], "skip": skip, "limit": PAGE, **nested}
        rows = (await visit.call("GET", f"/{kind}/", **query)).response
        parts += await slices.collect(_lines(columns, rows))
        if len(rows) < PAGE:
            break
    headers = {"Content-Disposition": f'attachment; filename="{kind}.csv"'}
    return Raw("".join(parts).encode("utf-8", "replace"), "text/csv; charset=utf-8", headers)


def _lines(columns: tuple[str, ...], rows: list[Mapping[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield _line([_cell(row[column]) for column in columns])


def _cell(value: Any) -> str:
    if isinstance(value, list):
        value = " ".join(each["name"] for each in value)
    if isinstance(value, dict):
        value = value["name"]
    text = "" if value is None else str(int(value)) if isinstance(value, bool) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _line(cells: Any) -> str:
    line = StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()
