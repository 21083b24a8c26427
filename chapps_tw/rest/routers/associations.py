"""What is associated with the entries of a list, nested in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.writable_book import LimitEntry, WritableBook
from chapps_tw.rest.routers.kinds import shown, shown_beside
from chapps_tw.rest.routing import invalid
from chapps_tw.rest.slices import Slices

MAX_NESTED: Final = 10_000
"""The most entries of one association in an answer."""

Found = Mapping[int, Sequence[Entry | LimitEntry]]


class Associations:
    """Reads them with one query for each association, and for each 500 entries.

    :param slices: for long lists.
    """

    def __init__(self, book: WritableBook, slices: Slices) -> None:
        self._book = book
        self._slices = slices

    async def read(self, kind: str, entries: Sequence[Entry], wanted: Sequence[str]) -> Mapping[str, Found]:
        """Return the entries of each association, by the ids of those that they belong to.

        :raises Refusal: 422 if there are too many of them.
        """
        return {name: await self._read(kind, [entry.id for entry in entries], name) for name in wanted}

    async def _read(self, kind: str, ids: Sequence[int], name: str) -> Found:
        found: Found
        if name == "limits":
            found = await self._book.limits_of(ids, MAX_NESTED + 1)
        else:
            found = await self._book.links(kind, ids, _kind_of(name), MAX_NESTED + 1)
        if sum(map(len, found.values())) > MAX_NESTED:
            remedy = f"use a smaller limit, or GET /{kind}/ID/{name}/"
            raise invalid("query", "with", f"would nest more than {MAX_NESTED} {name}: {remedy}")
        return found

    async def nested(self, kind: str, entries: Sequence[Entry], found: Mapping[str, Found]) -> list[dict[str, Any]]:
        """Return entries as the objects that the API shows, with their associations."""
        rows = await self._slices.collect(shown(kind, entry) for entry in entries)
        for name, by_id in found.items():
            for row in rows:
                each = await self._slices.collect(_shown(name, entry) for entry in by_id[row["id"]])
                row[name] = (each[0] if each else None) if name == "quota" else each
                await self._slices.pause()
        return rows


def _kind_of(name: str) -> str:
    return "quotas" if name == "quota" else name


def _shown(name: str, entry: Entry | LimitEntry) -> dict[str, Any]:
    return shown_beside(_kind_of(name), entry) if isinstance(entry, Entry) else entry._asdict()
