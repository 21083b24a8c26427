"""Import of many permissions and quotas: read and check all lines, then change the book in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from time import sleep
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import Connection, delete, insert, select, tuple_

from chapps_tw.database import audit
from chapps_tw.database.audit import Trail
from chapps_tw.database.lookups import id_of, ids_of
from chapps_tw.database.models import LINKS, TABLES, quota_user
from chapps_tw.database.stale_keys import CHUNK, chunks, senders_of, union
from chapps_tw.database.text import normalizer, storable
from chapps_tw.interfaces.book import StaleKeys
from chapps_tw.interfaces.writable_book import MAX_BAD_LINES, MAX_LINES, BadLine, BadLines, Imported

T = TypeVar("T")

# By kind and name.
_Ids: TypeAlias = dict[str, dict[str, int]]

_OPERATIONS: Final = ("allow", "deny", "quota")
_FORM: Final = "must be allow:USER:DOMAIN, allow:USER:ADDRESS, deny:... or quota:USER:QUOTA"

# Lines after which other threads get their turn: otherwise each of theirs would wait until this one has held the
# interpreter for 5 ms.
_TURN: Final = 100
_PAUSE: Final = 0.0002

# Characters of a name in a message.
_SHOWN: Final = 100

# Names to look up in a turn.
_NAMES: Final = 50


# Number, kind of what is linked to the user (domains, emails or quotas), user and other name in normal form, and
# whether to link them. Plain tuples, which the cyclic garbage collector soon ignores: with 100,000 objects of another
# type, it would stop all threads for 50 ms.
_Line: TypeAlias = tuple[int, str, str, str, bool]

# User and other name, and whether to link them.
_Wish: TypeAlias = tuple[str, str, bool]


class _Faults:
    """Collects what is wrong with lines."""

    def __init__(self) -> None:
        self._found: list[BadLine] = []
        self._total = 0

    def add(self, number: int, sentence: str) -> None:
        self._total += 1
        if len(self._found) < MAX_BAD_LINES:
            self._found.append(BadLine(number, sentence))

    def stop(self, invalid: bool) -> None:
        """Raise :exc:`BadLines` if there are any."""
        if self._total:
            raise BadLines(sorted(self._found), self._total, invalid)


class Import:
    """An import, made of its text. To be used in a thread.

    :param text: lines ``allow:USER:DOMAIN-OR-ADDRESS``, ``deny:USER:DOMAIN-OR-ADDRESS`` or ``quota:USER:QUOTA``. White
        space around a line, empty lines and lines that begin with ``#`` are ignored. Of several lines about the same
        user and domain, address or quota, the last one counts.
    :param create: whether domains and addresses of ``allow`` are created if they do not exist.
    :param fold_case: ``[CHAPPS] fold_case``.
    :raises BadLines: with the lines that have no valid form.
    """

    def __init__(self, text: bytes, create: bool, fold_case: bool) -> None:
        self._create = create
        self._normal = {kind: normalizer(kind, fold_case) for kind in ("users", "domains", "emails")}
        faults = _Faults()
        self._lines = list(self._parsed(text, faults))
        faults.stop(invalid=True)

    # --- reading ---

    def _parsed(self, text: bytes, faults: _Faults) -> Iterator[_Line]:
        lines = text.split(b"\n")
        if len(lines) > MAX_LINES + 1:
            faults.add(MAX_LINES + 1, f"is beyond the {MAX_LINES} lines that a file may have")
            return
        for number, raw in _yielding(enumerate(lines, 1)):
            line = raw.strip()
            if line and not line.startswith(b"#"):
                try:
                    yield self._parse(number, line)
                except ValueError as error:
                    faults.add(number, str(error))

    def _parse(self, number: int, line: bytes) -> _Line:
        """Return a line. Raises ValueError with a sentence."""
        try:
            parts = line.decode("utf-8").split(":")
        except UnicodeDecodeError:
            raise ValueError("is not UTF-8") from None
        if len(parts) != 3 or parts[0] not in _OPERATIONS:
            raise ValueError(_FORM)
        operation, user, name = parts
        kind = "quotas" if operation == "quota" else "emails" if "@" in name else "domains"
        # What has no normal form is the name of nothing.
        other = name if kind == "quotas" else self._normal[kind](name) or name
        return number, kind, self._normal["users"](user) or user, other, operation != "deny"

    # --- applying ---

    def apply(self, connection: Connection, author: str, now: float) -> tuple[Imported, StaleKeys]:
        """Apply all lines, and record it.

        :returns: the numbers of what was changed, and the stale keys.
        :raises BadLines: with the lines that name what does not exist.
        """
        ids, created = self._ids(connection)
        wanted = self._wanted(ids)
        links = [_change_links(connection, kind, wanted[kind]) for kind in ("domains", "emails")]
        quotas = _change_quotas(connection, {user: wish for (user, _), wish in wanted["quotas"].items()}, ids["quotas"])
        done = Imported(
            lines=len(self._lines),
            allowed=sum(len(added) for added, _ in links),
            denied=sum(len(removed) for _, removed in links),
            quotas=len(quotas),
            created=sum(map(len, created.values())),
        )
        self._record(connection, author, now, done)
        pairs = ((user, other) for wishes in chain(*links) for user, other, _ in _yielding(wishes))
        plans = StaleKeys(users=frozenset(user for user, _, _ in quotas))
        return done, union(_created(created), senders_of(pairs), plans)

    def _wanted(self, ids: _Ids) -> dict[str, dict[tuple[int, int], _Wish]]:
        """Return the last line about each pair of user and domain or address, and about the quota of each user."""
        wanted: dict[str, dict[tuple[int, int], _Wish]] = {kind: {} for kind in LINKS}
        for _, kind, user, other, links in _yielding(self._lines):
            id = 0 if kind == "quotas" else ids[kind][other]
            wanted[kind][ids["users"][user], id] = user, other, links
        return wanted

    def _ids(self, connection: Connection) -> tuple[_Ids, dict[str, list[str]]]:
        """Return the ids of all names, by kind, and the names that were created.

        :raises BadLines: with the lines that name what does not exist.
        """
        names: dict[str, dict[str, None]] = {kind: {} for kind in TABLES}
        for _, kind, user, other, _ in _yielding(self._lines):
            names["users"][user] = None
            names[kind][other] = None
        ids = {kind: _found(connection, kind, list(names[kind])) for kind in TABLES}
        created = {kind: list(new) for kind, new in self._new(ids).items()}
        for kind, new in created.items():
            name, id = TABLES[kind].c.name, TABLES[kind].c.id
            for part in _parts(new):
                connection.execute(insert(TABLES[kind]), [{"name": each} for each in part])
                ids[kind].update((row[0], row[1]) for row in connection.execute(select(name, id).where(name.in_(part))))
        return ids, created

    def _new(self, ids: _Ids) -> dict[str, dict[str, None]]:
        """Return the names to create, by kind. Raises :exc:`BadLines`."""
        new: dict[str, dict[str, None]] = {"domains": {}, "emails": {}}
        faults = _Faults()
        for number, kind, user, other, links in _yielding(self._lines):
            if user not in ids["users"]:
                faults.add(number, f"there is no user named {user[:_SHOWN]}")
            if other in ids[kind]:
                continue
            if self._create and links and kind in new and self._is_name(kind, other):
                new[kind][other] = None
            elif other not in new.get(kind, ()):
                faults.add(number, f"there is no {kind[:-1]} named {other[:_SHOWN]}")
        faults.stop(invalid=False)
        return new

    def _is_name(self, kind: str, name: str) -> bool:
        length: int = TABLES[kind].c.name.type.length  # type: ignore[attr-defined]
        return self._normal[kind](name) == name and storable(name, length)

    def _record(self, connection: Connection, author: str, now: float, done: Imported) -> None:
        users = list(dict.fromkeys(user for _, _, user, _, _ in self._lines))
        about = audit.listed("users", users, len(users))
        counts = {name: value for name, value in done._asdict().items() if not name.startswith("awaits")}
        Trail(connection, author, now).add("import", "import", None, "", None, {**counts, **about})


def _found(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in _parts(names, _NAMES):
        if kind == "quotas":
            found.update((name, id) for name in part if (id := id_of(connection, kind, name)) is not None)
        else:
            found |= ids_of(connection, kind, part)
    return found


def _change_links(
    connection: Connection, kind: str, wanted: Mapping[tuple[int, int], _Wish]
) -> tuple[list[_Wish], list[_Wish]]:
    """Add and remove links; return those that were added, and those that were removed."""
    table, column = LINKS[kind]
    pair = tuple_(table.c.user_id, column)
    existing: set[tuple[int, int]] = set()
    for part in _parts(list(wanted)):
        rows = connection.execute(select(table.c.user_id, column).where(pair.in_(part)))
        existing.update((row[0], row[1]) for row in rows)
    add = [each for each, (_, _, links) in wanted.items() if links and each not in existing]
    remove = [each for each, (_, _, links) in wanted.items() if not links and each in existing]
    for part in _parts(add):
        connection.execute(insert(table), [{"user_id": user, column.name: other} for user, other in part])
    for part in _parts(remove):
        connection.execute(delete(table).where(pair.in_(part)))
    return [wanted[each] for each in add], [wanted[each] for each in remove]


def _change_quotas(connection: Connection, wanted: Mapping[int, _Wish], ids: Mapping[str, int]) -> list[_Wish]:
    """Give users quotas; return what was given to those who had another one, or none.

    :param wanted: by id of the user.
    :param ids: of the quotas, by name.
    """
    existing: dict[int, int] = {}
    for part in chunks(wanted):
        rows = connection.execute(select(quota_user).where(quota_user.c.user_id.in_(part)))
        existing.update((row.user_id, row.quota_id) for row in rows)
    changed = [user for user, (_, quota, _) in wanted.items() if existing.get(user) != ids[quota]]
    for part in _parts(changed):
        connection.execute(delete(quota_user).where(quota_user.c.user_id.in_(part)))
        given = [{"user_id": user, "quota_id": ids[wanted[user][1]]} for user in part]
        connection.execute(insert(quota_user), given)
    return [wanted[user] for user in changed]


def _created(names: Mapping[str, Sequence[str]]) -> StaleKeys:
    """Return the keys of what is cached about domains that did not exist."""
    domains = frozenset(names["domains"])
    return StaleKeys(flags=domains, domains=domains)


def _parts(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Yield items in parts, and let other threads run in between."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
        sleep(_PAUSE)


def _yielding(items: Iterable[T]) -> Iterator[T]:
    """Yield items, and let other threads run from time to time."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _TURN == 0:
            sleep(_PAUSE)
