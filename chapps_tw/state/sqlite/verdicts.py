"""Cached verdicts in SQLite, and the counter that orders tokens and invalidations.

A token is the counter's value when it was issued. Each invalidation increments the counter, and stores its value in the
row (``dropped``). A value with a lower token was read from the book before the invalidation, and is not cached. A name
without a row has not been invalidated since the *drop watermark*.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from chapps_tw.interfaces.state import Verdict
from chapps_tw.mail.memo import Memo
from chapps_tw.state.sqlite.file import key

# Seconds to keep a row after it has expired, because tokens may still be in use.
GRACE = 3600.0

# Maximum size of each cache in bytes.
MEMO_BYTES = 8 << 20


class CachedVerdicts(NamedTuple):
    """Verdicts, cached or missing, and the interval in which all of them hold: the clock may be set back."""

    since: float
    until: float
    verdicts: list[Verdict]


_NOTHING = CachedVerdicts(0.0, 0.0, [])
_NO_ROW = (None, 0.0, 0.0, 0)

_SELECT_ONE = "SELECT allowed, kept, fresh, dropped FROM verdict WHERE name = ?"
# Takes half the time of two queries, or of one with IN.
_SELECT_TWO = """
    SELECT a.allowed, a.kept, a.fresh, a.dropped, b.allowed, b.kept, b.fresh, b.dropped
    FROM (SELECT 1) LEFT JOIN verdict a ON a.name = ? LEFT JOIN verdict b ON b.name = ?"""
_UPSERT = """
    INSERT INTO verdict (name, allowed, kept, fresh, dropped) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        allowed = excluded.allowed, kept = excluded.kept, fresh = excluded.fresh, dropped = excluded.dropped"""
_FIRST_TIME = """
    INSERT INTO once (space, name, until) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ? OR until > ?"""


def counter(db: sqlite3.Cursor) -> int:
    """Return the counter, which is issued as a token."""
    return int(db.execute("SELECT counter FROM meta").fetchone()[0])


def advance(db: sqlite3.Cursor) -> int:
    """Increment the counter; return its new value, which was never issued before."""
    db.execute("UPDATE meta SET counter = counter + 1")
    return counter(db)


def drop_watermark(db: sqlite3.Cursor) -> int:
    """Return the drop watermark, which is ``dropped`` of all names without a row."""
    return int(db.execute("SELECT floor FROM meta").fetchone()[0])


def write_ping(db: sqlite3.Cursor) -> None:
    """Write a new value. Writing the same value would not reach the disk, so a full disk would go unnoticed."""
    db.execute("UPDATE meta SET pings = pings + 1")


def is_current(token: str, dropped: int) -> bool:
    """Return whether nothing was invalidated since a token was issued."""
    return token.isascii() and token.isdigit() and len(token) < 20 and int(token) >= dropped


class Verdicts:
    """Cached verdicts in the file, with a read cache in memory."""

    def __init__(self) -> None:
        self._memo: Memo[tuple[str, str, Sequence[str]], CachedVerdicts] = Memo(MEMO_BYTES)

    def clear_cache(self) -> None:
        """Clear the read cache. Call after another process has written, and after a rollback."""
        self._memo.clear()

    def find(self, db: sqlite3.Cursor, now: float, space: str, owner: str, names: Sequence[str]) -> list[Verdict]:
        """Return the cached verdicts for some names, in order."""
        wanted = (space, owner, tuple(names))
        since, until, verdicts = self._memo.get(wanted, _NOTHING)
        if since <= now < until:
            return verdicts
        cached = find(db, now, space, owner, names)
        if cached.until > now:
            self._memo.keep(wanted, cached)
        return cached.verdicts

    def keep(
        self,
        db: sqlite3.Cursor,
        now: float,
        space: str,
        owner: str,
        verdicts: Iterable[tuple[str, bool, str]],
        ttl: float,
    ) -> None:
        """Cache the verdicts whose token is current."""
        self._memo.clear()
        keep(db, now, space, owner, verdicts, ttl)

    def drop(self, db: sqlite3.Cursor, now: float, space: str, owner: str, names: Iterable[str]) -> list[bool | None]:
        """Invalidate cached verdicts; return the previous value of each."""
        self._memo.clear()
        return drop(db, now, space, owner, names)


def find(db: sqlite3.Cursor, now: float, space: str, owner: str, names: Sequence[str]) -> CachedVerdicts:
    """Return the cached verdicts for some names, in order, and the interval in which they hold."""
    prefix = _key_prefix(space, owner)
    wanted = [prefix + key(name) for name in names]
    if len(wanted) == 2:
        row = db.execute(_SELECT_TWO, wanted).fetchone()
        rows = [row[:4], row[4:]]
    else:
        rows = [db.execute(_SELECT_ONE, (name,)).fetchone() or _NO_ROW for name in wanted]
    answer, token, since, until = [], "", 0.0, math.inf
    for allowed, kept, fresh, dropped in rows:
        if allowed is None or not kept <= now < fresh:
            token = token or str(counter(db))
            answer.append(Verdict(None, token))
            # An expired one is valid again if the clock is set back; one cached in the future becomes valid later.
            if allowed is not None and fresh <= now:
                since = max(since, fresh)
            elif allowed is not None:
                until = min(until, kept)
        else:
            answer.append(Verdict(allowed == 1, str(dropped)))
            since, until = max(since, kept), min(until, fresh)
    return CachedVerdicts(since, until, answer)


def _key_prefix(space: str, owner: str) -> bytes:
    """Return the prefix of the keys of an owner's verdicts. The lengths make it unambiguous."""
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
    """Cache the verdicts whose token is current."""
    prefix = _key_prefix(space, owner)
    for name, allowed, token in verdicts:
        row = db.execute(_SELECT_ONE, (prefix + key(name),)).fetchone()
        dropped = row[3] if row else drop_watermark(db)
        if is_current(token, dropped):
            db.execute(_UPSERT, (prefix + key(name), int(allowed), now, now + ttl, dropped))


def drop(db: sqlite3.Cursor, now: float, space: str, owner: str, names: Iterable[str]) -> list[bool | None]:
    """Invalidate cached verdicts; return the previous value of each."""
    dropped, prefix = advance(db), _key_prefix(space, owner)
    previous = []
    for name in names:
        row = db.execute(_SELECT_ONE, (prefix + key(name),)).fetchone()
        previous.append(row[0] == 1 if row and row[0] is not None and row[1] <= now < row[2] else None)
        db.execute(_UPSERT, (prefix + key(name), None, now, now, dropped))
    return previous


def first_time(db: sqlite3.Cursor, now: float, space: str, name: str, ttl: float) -> bool:
    """Return whether a name was not seen in the last ``ttl`` seconds, and record it.

    An expiry later than now plus ``ttl`` was recorded before the clock was set back, and is ignored.
    """
    end = now + ttl
    return db.execute(_FIRST_TIME, (key(space), key(name), end, now, end)).rowcount > 0
