"""Normalizing the names in the book, and reporting those that cannot be normalized."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

from sqlalchemy import Connection, bindparam, select, update

from chapps_tw.database.models import TABLES
from chapps_tw.database.outbox import append
from chapps_tw.database.stale_keys import everything, stale_keys
from chapps_tw.database.text import normal_of, storable

KINDS: Final = ("users", "domains", "emails")

# What applies to entries with the same name, and what to do about them.
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
    """What is to be done about the names of a kind.

    :ivar renamed: rows with the names that they are to have.
    :ivar several: by a name in its normal form, the rows that cannot all have it, and are left as they are.
    """

    kind: str
    renamed: Sequence[Row]
    several: Mapping[str, Sequence[Row]]


Say = Callable[[str], None]


def normalise(connection: Connection, say: Say) -> None:
    """Rewrite the names of users, domains and addresses that are not in their normal form.

    Where that would give several the same name, all of them are left as they are, and it is told which one the
    policies take: whoever knows whose they are decides. What is cached about any of them is invalidated.

    :param say: takes a sentence for each kind that was changed, and for each name that stands there several times.
    :raises sqlalchemy.exc.SQLAlchemyError: when the database cannot be asked.
    """
    plans = _plans(connection)
    for kind, renamed, several in plans:
        _rename(connection, kind, renamed)
        ids = [row.id for row in chain(renamed, *several.values())]
        append(connection, stale_keys(connection, kind, ids, everything(kind)))
    _tell(plans, say)


def preview(connection: Connection, say: Say) -> None:
    """Tell what :func:`normalise` would do and tell, and change nothing. Takes and raises the same."""
    _tell(_plans(connection), say)


def _plans(connection: Connection) -> list[Plan]:
    found = []
    for kind in KINDS:
        names = _by_normal_name(connection, kind)
        length = TABLES[kind].c.name.type.length  # type: ignore[attr-defined]
        single = ((name, rows[0]) for name, rows in names.items() if len(rows) == 1)
        renamed = [Row(row.id, name) for name, row in single if row.name != name and storable(name, length)]
        found.append(Plan(kind, renamed, {name: rows for name, rows in names.items() if len(rows) > 1}))
    return found


def _tell(plans: Sequence[Plan], say: Say) -> None:
    for plan in plans:
        if plan.renamed:
            say(f"Names of {plan.kind} normalized: {len(plan.renamed)}.")
    for plan in plans:
        for name, rows in plan.several.items():
            say(_told(plan.kind, name, rows))


def _by_normal_name(connection: Connection, kind: str) -> dict[str, list[Row]]:
    """All rows of a kind by the normal form of their names; what has none is left out."""
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


def _told(kind: str, name: str, rows: Sequence[Row]) -> str:
    ordered = sorted(rows, key=lambda row: row.name != name)
    them = ", ".join(f"{row.name!r} (id {row.id})" for row in ordered)
    remedy = _REMEDY[kind].format(first=ordered[0].id)
    return f"{len(rows)} {kind} have the same name in different spellings: {them}. {remedy}."
