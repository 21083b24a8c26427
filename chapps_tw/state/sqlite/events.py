"""The list of events in SQLite."""

from __future__ import annotations

import sqlite3

from chapps_tw.state.sqlite.values import first_time

# Events that are kept.
_KEPT = 1000
# Characters of an event that are stored.
_MAX_EVENT = 2000
# The space in which the names of events are remembered; callers do not use it.
_SPACE = "\0event"


def note(db: sqlite3.Cursor, now: float, name: str, ttl: float, event: str) -> bool:
    """Add an event, unless one with the same name was added within ``ttl`` seconds; return whether."""
    if not first_time(db, now, _SPACE, name, ttl):
        return False
    db.execute("INSERT INTO event (event) VALUES (?)", (event[:_MAX_EVENT].encode("utf-8", "surrogatepass"),))
    db.execute("DELETE FROM event WHERE number <= (SELECT MAX(number) FROM event) - ?", (_KEPT,))
    return True


def last(db: sqlite3.Cursor, count: int) -> list[str]:
    """Return the last events, newest first."""
    rows = db.execute("SELECT event FROM event ORDER BY number DESC LIMIT ?", (max(0, min(count, _KEPT)),))
    return [event.decode("utf-8", "surrogatepass") for (event,) in rows]
