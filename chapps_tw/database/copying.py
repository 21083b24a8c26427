"""Reading a book of CHAPPS 0.5, and copying it to another database."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Engine, Table, func, insert, inspect, select

from chapps_tw.database import schema
from chapps_tw.database.models import LINKS, TABLES
from chapps_tw.database.moving import continue_ids
from chapps_tw.database.stale_keys import CHUNK, affected_by, chunks, stale_keys, union
from chapps_tw.database.text import normalizer, storable
from chapps_tw.database.transaction import Permit, transact
from chapps_tw.interfaces.book import StaleKeys

T = TypeVar("T")

# Rows that are read at once.
_PAGE: Final = 5000

# In this order: links need both ends.
_KINDS: Final = ("quotas", "domains", "emails", "users")
_NO_FLAGS: Final = {"greylist": False, "check_spf": False}


class Entry(NamedTuple):
    """A row.

    :ivar fields: without id and name.
    """

    id: int
    name: str
    fields: Mapping[str, Any]


@dataclass
class OldBook:
    """All rows of a book.

    :ivar entries: by kind.
    :ivar links: pairs of user and other id, by kind of the other.
    :ivar remarks: what normalizing the names does, in sentences.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    links: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def flagged(self) -> list[Entry]:
        """Domains with a flag."""
        return [each for each in self.entries["domains"] if any(each.fields.values())]

    @property
    def without_quota(self) -> list[str]:
        """Names of the users without a quota."""
        having = {user for user, _ in self.links["quotas"]}
        return [each.name for each in self.entries["users"] if each.id not in having]


@dataclass
class Copied:
    """What was copied.

    :ivar added: rows by kind, and ``links``.
    :ivar known: rows by kind that were there, which are left as they are.
    :ivar left_out: entries that cannot be used here, in sentences.
    """

    added: dict[str, int] = field(default_factory=dict)
    known: dict[str, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


# --- reading ---


def read(engine: Engine) -> OldBook:
    """Read a book of any revision; it is not changed.

    :raises SchemaError: if the database has no tables of CHAPPS.
    :raises sqlalchemy.exc.SQLAlchemyError: if it cannot be read.
    """
    book = OldBook()
    if not schema.preview(engine, book.remarks.append):
        raise schema.SchemaError("There are no tables of CHAPPS in it.")
    with engine.connect() as connection:
        columns = {column["name"] for column in inspect(connection).get_columns("domains")}
        for kind in _KINDS:
            book.entries[kind] = list(_entries(connection, kind, "greylist" in columns))
        for kind, (table, other) in LINKS.items():
            book.links[kind] = list(_links(connection, table, other))
    return book


def _entries(connection: Connection, kind: str, has_flags: bool) -> Iterator[Entry]:
    table = TABLES[kind]
    names = {"quotas": ["quota"], "domains": list(_NO_FLAGS) if has_flags else []}.get(kind, [])
    query = select(table.c.id, table.c.name, *(table.c[name] for name in names)).order_by(table.c.id).limit(_PAGE)
    last = -1
    while rows := connection.execute(query.where(table.c.id > last)).all():
        last = rows[-1].id
        for id, name, *values in rows:
            fields = dict(zip(names, values, strict=True))
            yield Entry(id, name, fields or (_NO_FLAGS if kind == "domains" else {}))


def _links(connection: Connection, table: Table, other: Column[Any]) -> Iterator[tuple[int, int]]:
    user = table.c.user_id
    query = select(user, other).order_by(user, other)
    first, last = connection.execute(select(func.min(user), func.max(user))).one()
    for start in range(first, last + 1, _PAGE) if first is not None else ():
        for row in connection.execute(query.where(user >= start, user < start + _PAGE)):
            yield row[0], row[1]


# --- copying ---


def copy(book: OldBook, engine: Engine, fold_case: bool) -> Copied:
    """Add what a database lacks of a book, in one transaction. What it has is left as it is, so it can be repeated.

    :param fold_case: ``[CHAPPS] fold_case``.
    :raises SchemaError: if the tables are not those of this version; upgrade them before.
    :raises BookUnavailable, BookConflict, sqlalchemy.exc.SQLAlchemyError: as
        :func:`~chapps_tw.database.transaction.transact` does.
    """
    schema.check(engine)
    return transact(
        engine, partial(_copy, book=book, fold_case=fold_case), Permit(), "Another client adds entries"
    ).value


def _copy(connection: Connection, book: OldBook, fold_case: bool) -> tuple[Copied, StaleKeys]:
    copied, ids, stale, changed = Copied(), {}, [], set[int]()
    for kind in _KINDS:
        named, ids_of_names = _by_name(kind, book.entries[kind], fold_case, copied.left_out)
        known = _ids(connection, kind, named)
        new = [each._replace(name=name) for name, each in named.items() if name not in known]
        _insert(connection, kind, new)
        known |= _ids(connection, kind, [each.name for each in new])
        copied.added[kind], copied.known[kind] = len(new), len(named) - len(new)
        ids[kind] = {old: known[name] for old, name in ids_of_names.items()}
        added = [known[each.name] for each in new]
        if kind == "users":
            changed.update(added)
        else:
            stale.append(stale_keys(connection, kind, added, affected_by(kind, ["name"])))
    linked = [_link(connection, kind, book.links[kind], ids["users"], ids[kind]) for kind in LINKS]
    copied.added["links"] = sum(map(len, linked))
    changed.update(*linked)
    stale.append(stale_keys(connection, "users", changed, affected_by("users", ["name"])))
    return copied, union(*stale)


def _by_name(
    kind: str, entries: Sequence[Entry], fold_case: bool, left_out: list[str]
) -> tuple[dict[str, Entry], dict[int, str]]:
    """Return the entries by their names here, and these names by old id.

    Of several users with the same name, one is used, as in the same database: the others and their links are left out.
    Of several domains or addresses, the links of all apply.
    """
    normal = normalizer(kind, fold_case) if kind != "quotas" else str
    length = TABLES[kind].c.name.type.length  # type: ignore[attr-defined]
    named: dict[str, Entry] = {}
    names: dict[int, str] = {}
    # A name that is in normal form already comes first.
    for each in sorted(entries, key=lambda entry: normal(entry.name) != entry.name):
        name = normal(each.name)
        if not storable(name, length):
            left_out.append(f"{kind}: {each.name!r} (id {each.id}) is not a valid name.")
        elif kind == "users" and name in named:
            left_out.append(f"users: {each.name!r} (id {each.id}) has the same name as {named[name].name!r}.")
        else:
            named.setdefault(name, each)
            names[each.id] = name
    return named, names


def _ids(connection: Connection, kind: str, names: Collection[str]) -> dict[str, int]:
    table, found = TABLES[kind], dict[str, int]()
    for some in _some(names):
        for row in connection.execute(select(table.c.name, table.c.id).where(table.c.name.in_(some))):
            found[row.name] = row.id
    return found


def _insert(connection: Connection, kind: str, entries: Sequence[Entry]) -> None:
    """Insert entries. They keep their ids where these are free, since clients of the HTTP API may use them."""
    table, taken = TABLES[kind], set[int]()
    for some in chunks([each.id for each in entries]):
        taken.update(connection.scalars(select(table.c.id).where(table.c.id.in_(some))))
    for each in _some([entry for entry in entries if entry.id not in taken]):
        connection.execute(insert(table), [{"id": id, "name": name, **fields} for id, name, fields in each])
    if entries:
        continue_ids(connection, table)
    for each in _some([entry for entry in entries if entry.id in taken]):
        connection.execute(insert(table), [{"name": name, **fields} for _, name, fields in each])


def _link(
    connection: Connection,
    kind: str,
    pairs: Sequence[tuple[int, int]],
    user_ids: Mapping[int, int],
    ids: Mapping[int, int],
) -> list[int]:
    """Add links that are missing; a user who has a quota keeps it. Returns the users of the new links."""
    table, column = LINKS[kind]
    wanted = dict.fromkeys((user_ids[user], ids[other]) for user, other in pairs if user in user_ids and other in ids)
    known: set[Any] = set()
    for some in chunks({user for user, _ in wanted}):
        for user, other in connection.execute(select(table.c.user_id, column).where(table.c.user_id.in_(some))):
            known.add(user if kind == "quotas" else (user, other))
    new = [pair for pair in wanted if (pair[0] if kind == "quotas" else pair) not in known]
    for each in _some(new):
        connection.execute(insert(table), [{"user_id": user, column.name: other} for user, other in each])
    return [user for user, _ in new]


def _some(items: Collection[T]) -> Iterator[list[T]]:
    """Yield items in lists that fit in one statement on every database."""
    rest = iter(items)
    while found := list(islice(rest, CHUNK)):
        yield found
