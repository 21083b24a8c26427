"""Cached verdicts in SQLite, and the counter by which a copy knows that it was dropped.

A token is the counter's value when it was given; each drop raises the counter and leaves its value
with the name. What comes with a token below that was decided before the drop. A name with no row has
not been dropped since the *floor*.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chapps_tw.interfaces.state import Verdict
from chapps_tw.mail.memo import Memo
from chapps_tw.state.sqlite.file import key

# Seconds that an expired row is kept, for tokens that are still held.
GRACE = 3600.0

# Bytes of each cache.
MEMO_ROOM = 8 << 20


class Held(NamedTuple):
    """Verdicts, cached or missing, and the period in which all of them are valid (the clock can be set)."""

    since: float
    until: float
    verdicts: list[Verdict]


_NOTHING = Held(0.0, 0.0, [])
_NO_ROW = (None, 0.0, 0.0, 0)

_ONE = "SELECT allowed, kept, fresh, dropped FROM verdict WHERE name = ?"
# Takes half the time of two queries, or of one with IN.
_TWO = """
    SELECT a.allowed, a.kept, a.fresh, a.dropped, b.allowed, b.kept, b.fresh, b.dropped
    FROM (SELECT 1) LEFT JOIN verdict a ON a.name = ? LEFT JOIN verdict b ON b.name = ?"""
_KEEP = """
    INSERT INTO verdict (name, allowed, kept, fresh, dropped) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        allowed = excluded.allowed, kept = excluded.kept, fresh = excluded.fresh, dropped = excluded.dropped"""
_FIRST_TIME = """
    INSERT INTO once (space, name, until) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ? OR until > ?"""


def counter(db: sqlite3.Cursor) -> int:
    """Return the counter, which serves as a token."""
    return int(db.execute("SELECT counter FROM meta").fetchone()[0])


def advance(db: sqlite3.Cursor) -> int:
    """Increment the counter; return a number never used before."""
    db.execute("UPDATE meta SET counter = counter + 1")
    return counter(db)


def floor(db: sqlite3.Cursor) -> int:
    """Return the counter at which a name without a row counts as dropped."""
    return int(db.execute("SELECT floor FROM meta").fetchone()[0])


def touch(db: sqlite3.Cursor) -> None:
    """Write a new value: SQLite does not write an unchanged row, so a full disk would go unnoticed."""
    db.execute("UPDATE meta SET pings = pings + 1")


def is_current(token: str, dropped: int) -> bool:
    """Return whether nothing was dropped since the token was issued."""
    return token.isascii() and token.isdigit() and len(token) < 20 and int(token) >= dropped


class Verdicts:
    """Cached verdicts in the file, with a cache in memory."""

    def __init__(self) -> None:
        self._memo: Memo[tuple[str, str, Sequence[str]], Held] = Memo(MEMO_ROOM)

    def forget(self) -> None:
        """Clear the cache. To be called after another process has written, or after a rollback."""
        self._memo.clear()

    def find(self, db: sqlite3.Cursor, now: float, space: str, owner: str, names: Sequence[str]) -> list[Verdict]:
        """Return the cached verdicts for names, in order."""
        wanted = (space, owner, tuple(names))
        since, until, verdicts = self._memo.get(wanted, _NOTHING)
        if since <= now < until:
            return verdicts
        held = find(db, now, space, owner, names)
        if held.until > now:
            self._memo.keep(wanted, held)
        return held.verdicts

    def keep(
        self,
        db: sqlite3.Cursor,
        now: float,
        space: str,
        owner: str,
        verdicts: Iterable[tuple[str, bool, str]],
        ttl: float,
    ) -> None:
        """Cache those verdicts whose token is current."""
        self._memo.clear()
        keep(db, now, space, owner, verdicts, ttl)

    def drop(self, db: sqlite3.Cursor, now: float, space: str, owner: str, names: Iterable[str]) -> list[bool | None]:
        """Delete cached verdicts; return what each was."""
        self._memo.clear()
        return drop(db, now, space, owner, names)


def find(db: sqlite3.Cursor, now: float, space: str, owner: str, names: Sequence[str]) -> Held:
    """Return the cached verdicts for names, in order."""
    whose = _whose(space, owner)
    wanted = [whose + key(name) for name in names]
    if len(wanted) == 2:
        row = db.execute(_TWO, wanted).fetchone()
        rows = [row[:4], row[4:]]
    else:
        rows = [db.execute(_ONE, (name,)).fetchone() or _NO_ROW for name in wanted]
    answer, token, since, until = [], "", 0.0, math.inf
    for allowed, kept, fresh, dropped in rows:
        if allowed is None or not kept <= now < fresh:
            token = token or str(counter(db))
            answer.append(Verdict(None, token))
            # One that expired is valid again if the clock is set back; one of a clock that was ahead is valid later.
            if allowed is not None and fresh <= now:
                since = max(since, fresh)
            elif allowed is not None:
                until = min(until, kept)
        else:
            answer.append(Verdict(allowed == 1, str(dropped)))
            since, until = max(since, kept), min(until, fresh)
    return Held(since, until, answer)


def _whose(space: str, owner: str) -> bytes:
    """Return the prefix of the keys of an owner's verdicts; the lengths make it unambiguous."""
    space_key, owner_key = key(space), key(owner)
    return b"%d:%d:%b%b" % (len(space_key), len(owner_key), space_key, owner_key)


def keep(
    db: sqlite3.Cursor,
    now: float,
    space: str,
    owner: str,
    verdicts: Iterable[tuple[str, bool, str]],
    ttl: float,
) -> None:
    """Cache those verdicts whose token is current."""
    whose = _whose(space, owner)
    for name, allowed, token in verdicts:
        row = db.execute(_ONE, (whose + key(name),)).fetchone()
        dropped = row[3] if row else floor(db)
        if is_current(token, dropped):
            db.execute(_KEEP, (whose + key(name), int(allowed), now, now + ttl, dropped))


def drop(db: sqlite3.Cursor, now: float, space: str, owner: str, names: Iterable[str]) -> list[bool | None]:
    """Delete cached verdicts; return what each was."""
    dropped, whose = advance(db), _whose(space, owner)
    were = []
    for name in names:
        row = db.execute(_ONE, (whose + key(name),)).fetchone()
        were.append(row[0] == 1 if row and row[0] is not None and row[1] <= now < row[2] else None)
        db.execute(_KEEP, (whose + key(name), None, now, now, dropped))
    return were


def first_time(db: sqlite3.Cursor, now: float, space: str, name: str, ttl: float) -> bool:
    """Return whether a name is new within ``ttl`` seconds, and store it.

    A name that stays for longer is of a clock that was ahead.
    """
    end = now + ttl
    return db.execute(_FIRST_TIME, (key(space), key(name), end, now, end)).rowcount > 0
