"""Normalizing the names in the book, and reporting those that cannot be normalized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from chapps_tw.database.models import TABLES
from chapps_tw.database.outbox import append
from chapps_tw.database.stale_keys import affected_by, stale_keys
from chapps_tw.database.text import normal_of, storable

KINDS: Final = ("users", "domains", "emails")

# Which of several entries with the same name applies, and the remedy.
_REMEDY: Final[Mapping[str, str]] = {
    "users": "A login by any of these names is id {first}; the others are kept, but not used until they or id {first}"
    " are renamed",
    "domains": "The flags of id {first} apply, and the links of all; move the links to id {first} and delete the"
    " others",
    "emails": "The links of all apply; move the links to id {first} and delete the others",
}


class Row(NamedTuple):
    id: int
    name: str


class Plan(NamedTuple):
    """How to normalize the names of a kind.

    :ivar renamed: rows, with their new names.
    :ivar duplicates: by normal form, the rows that share it, which are left unchanged.
    """

    kind: str
    renamed: Sequence[Row]
    duplicates: Mapping[str, Sequence[Row]]


Say = Callable[[str], None]


def normalise(connection: Connection, say: Say) -> None:
    """Normalize the names of users, domains and addresses.

    Entries that would get the same name are left unchanged and reported, with the one that policies use: an
    administrator must decide. What is cached about any of them is invalidated.

    :param say: called with a sentence for each kind that was changed, and for each name with several entries.
    :raises sqlalchemy.exc.SQLAlchemyError: if the query fails.
    """
    plans = _plans(connection)
    for kind, renamed, duplicates in plans:
        _rename(connection, kind, renamed)
        ids = [row.id for row in chain(renamed, *duplicates.values())]
        append(connection, stale_keys(connection, kind, ids, affected_by(kind, ["name"])))
    _report(plans, say)


def preview(connection: Connection, say: Say) -> None:
    """Report what :func:`normalise` would do, without changes. Same parameters and exceptions."""
    _report(_plans(connection), say)


def _plans(connection: Connection) -> list[Plan]:
    found = []
    for kind in KINDS:
        names = by_normal_name(connection, kind)
        length = TABLES[kind].c.name.type.length  # type: ignore[attr-defined]
        single = ((name, rows[0]) for name, rows in names.items() if len(rows) == 1)
        renamed = [Row(row.id, name) for name, row in single if row.name != name and storable(name, length)]
        found.append(Plan(kind, renamed, {name: rows for name, rows in names.items() if len(rows) > 1}))
    return found


def _report(plans: Sequence[Plan], say: Say) -> None:
    for plan in plans:
        if plan.renamed:
            say(f"Names of {plan.kind} normalized: {len(plan.renamed)}.")
    for plan in plans:
        for name, rows in plan.duplicates.items():
            say(_duplicates(plan.kind, name, rows))


def by_normal_name(connection: Connection, kind: str) -> dict[str, list[Row]]:
    """Return the rows of a kind by the normal form of their names. Invalid names are omitted."""
    table, normal = TABLES[kind], normal_of(connection, kind)
    found: dict[str, list[Row]] = {}
    for id, name in connection.execute(select(table.c.id, table.c.name).order_by(table.c.id)):
        if form := normal(name):
            found.setdefault(form, []).append(Row(id, name))
    return found


def _rename(connection: Connection, kind: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    table = TABLES[kind]
    change = update(table).where(table.c.id == bindparam("row")).values(name=bindparam("form"))
    connection.execute(change, [{"row": row.id, "form": row.name} for row in rows])


def _duplicates(kind: str, name: str, rows: Sequence[Row]) -> str:
    ordered = sorted(rows, key=lambda row: row.name != name)
    listed = ", ".join(f"{row.name!r} (id {row.id})" for row in ordered)
    remedy = _REMEDY[kind].format(first=ordered[0].id)
    return f"{len(rows)} {kind} have the same name in different spellings: {listed}. {remedy}."
