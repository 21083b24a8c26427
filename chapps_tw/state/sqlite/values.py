"""Cached values in SQLite, and the counter that orders tokens and invalidations.

A token is the counter's value when it was issued. Each invalidation increments the counter, and stores its value in the
row (``dropped``). A value with a lower token was read from the book before the invalidation, and is not cached. A key
without a row has not been invalidated since the *drop watermark*.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import TypeAlias

from chapps_tw.interfaces.state import CachedValue, Fresh, ValueKey
from chapps_tw.mail.memo import Memo
from chapps_tw.state.sqlite.keys import key

# Seconds to keep a row after it has expired, because tokens may still be in use.
GRACE = 3600.0

# Maximum size of the memory in bytes, and its part that a single value may take: all exemptions are one value.
_MEMO_BYTES, _MEMO_PART = 16 << 20, 4

_Held: TypeAlias = tuple[float, float, CachedValue]
"""A value, cached or missing, and the interval in which this holds: the clock may be set back."""

_NOTHING: _Held = (0.0, 0.0, CachedValue(None, ""))
_NO_ROW = (None, 0.0, 0.0, 0)

_SELECT = "SELECT value, kept, fresh, dropped FROM value WHERE name = ?"
_UPSERT = """
    INSERT INTO value (name, value, kept, fresh, dropped) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET
        value = excluded.value, kept = excluded.kept, fresh = excluded.fresh, dropped = excluded.dropped"""
_FIRST_TIME = """
    INSERT INTO once (space, name, until) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET until = excluded.until WHERE until <= ? OR until > ?"""


class CachedValues:
    """Cached values in the file, with a read cache in memory."""

    def __init__(self) -> None:
        self._memo: Memo[ValueKey, _Held] = Memo(_MEMO_BYTES, _MEMO_PART)

    def clear(self) -> None:
        """Clear the read cache. Call after another process has written, and after a rollback."""
        self._memo.clear()

    def find(self, db: sqlite3.Cursor, now: float, keys: Sequence[ValueKey]) -> list[CachedValue]:
        """Return cached values, in order."""
        answer, memo = [], self._memo
        for wanted in keys:
            since, until, value = memo.get(wanted, _NOTHING)
            if not since <= now < until:
                value = self._read(db, now, wanted)
            answer.append(value)
        return answer

    def _read(self, db: sqlite3.Cursor, now: float, wanted: ValueKey) -> CachedValue:
        held = _read(db, now, wanted)
        if held[1] > now:
            self._memo.keep(wanted, held)
        return held[2]

    def keep(self, db: sqlite3.Cursor, now: float, values: Sequence[Fresh], ttl: float) -> None:
        """Cache the values whose token is current."""
        for wanted, value, token in values:
            self._memo.pop(wanted, None)
            name = _name(wanted)
            row = db.execute(_SELECT, (name,)).fetchone()
            dropped = row[3] if row else _drop_watermark(db)
            if _is_current(token, dropped):
                db.execute(_UPSERT, (name, value.encode("utf-8", "surrogatepass"), now, now + ttl, dropped))

    def drop(self, db: sqlite3.Cursor, now: float, keys: Sequence[ValueKey]) -> list[str | None]:
        """Invalidate cached values; return the previous value of each."""
        dropped = _advance(db)
        previous = []
        for wanted in keys:
            previous.append(_read(db, now, wanted)[2].value)
            self._memo.pop(wanted, None)
            db.execute(_UPSERT, (_name(wanted), None, now, now, dropped))
        return previous


def _read(db: sqlite3.Cursor, now: float, wanted: ValueKey) -> _Held:
    value, kept, fresh, dropped = db.execute(_SELECT, (_name(wanted),)).fetchone() or _NO_ROW
    if value is not None and kept <= now < fresh:
        return kept, fresh, CachedValue(value.decode("utf-8", "surrogatepass"), str(dropped))
    missing = CachedValue(None, str(_counter(db)))
    if value is None:
        return 0.0, math.inf, missing
    # An expired one is valid again if the clock is set back; one cached in the future becomes valid later.
    return (fresh, math.inf, missing) if fresh <= now else (0.0, kept, missing)


def _name(wanted: ValueKey) -> bytes:
    """Return a key as one column, which is twice as fast as three. The lengths make it unambiguous."""
    space, owner = key(wanted.space), key(wanted.owner)
    return b"%d:%d:%b%b%b" % (len(space), len(owner), space, owner, key(wanted.name))


def _counter(db: sqlite3.Cursor) -> int:
    """Return the counter, which is issued as a token."""
    return int(db.execute("SELECT counter FROM meta").fetchone()[0])


def _advance(db: sqlite3.Cursor) -> int:
    """Increment the counter; return its new value, which was never issued before."""
    db.execute("UPDATE meta SET counter = counter + 1")
    return _counter(db)


def _drop_watermark(db: sqlite3.Cursor) -> int:
    """Return the drop watermark, which is ``dropped`` of all names without a row."""
    return int(db.execute("SELECT floor FROM meta").fetchone()[0])


def _is_current(token: str, dropped: int) -> bool:
    """Return whether nothing was invalidated since a token was issued."""
    return token.isascii() and token.isdigit() and len(token) < 20 and int(token) >= dropped


def write_ping(db: sqlite3.Cursor) -> None:
    """Write a new value. Writing the same value would not reach the disk, so a full disk would go unnoticed."""
    db.execute("UPDATE meta SET pings = pings + 1")


def first_time(db: sqlite3.Cursor, now: float, space: str, name: str, ttl: float) -> bool:
    """Return whether a name was not seen in the last ``ttl`` seconds, and record it.

    An expiry later than now plus ``ttl`` was recorded before the clock was set back, and is ignored.
    """
    end = now + ttl
    return db.execute(_FIRST_TIME, (key(space), key(name), end, now, end)).rowcount > 0
