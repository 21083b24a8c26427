"""Entries of the book by their names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from chapps_tw.cli.client import Answer, Client, path

# Entries in an answer. Limits, overrides and exemptions have no more.
PAGE = 1000


def entry(api: Client, kind: str, name: str) -> Answer:
    """Return an entry and its associations.

    :param kind: ``users``, ``domains``, ``emails`` or ``quotas``.
    :raises NotFound: if there is none.
    """
    return api.get(path(kind, "by-name", name))


def id_of(api: Client, kind: str, name: str) -> int:
    """Return the id of an entry. Raises :exc:`NotFound`."""
    return int(entry(api, kind, name).response["id"])


def ids_of(api: Client, kind: str, names: Iterable[str]) -> list[int]:
    """Return the ids of entries. Raises :exc:`NotFound`."""
    return [id_of(api, kind, name) for name in names]


def pages(api: Client, where: str, limit: int, **query: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of a list, at most ``limit``; 0 for all."""
    skip = 0
    while True:
        wanted = min(PAGE, limit - skip) if limit else PAGE
        rows = api.get(where, skip=skip or None, limit=wanted, **query).response
        yield from rows
        skip += len(rows)
        if len(rows) < wanted or skip == limit:
            break
