"""Counts of transmissions in SQLite: an exact rolling window with a running sum for each user."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from chapps_tw.interfaces.state import UNKNOWN_USER, Fill, Outcome, Rules, Spend, Spent, Usage
from chapps_tw.state.sqlite.file import key
from chapps_tw.state.sqlite.verdicts import GRACE, advance, counter, floor, is_current

# Maximum of limits and costs, so that sums fit in SQLite's 64 bits.
_MOST = 2**53

_FIND = """
    SELECT a.run, a.used, a.last, a.oldest, a.quota, a.kept, a.fresh, a.dropped, a.until, m.first, m.cost, m.seen
    FROM account a LEFT JOIN message m ON m.run = a.run AND m.instance = ?
    WHERE a.name = ?"""
_ADD_MESSAGE = "INSERT INTO message (run, instance, first, until, cost, seen) VALUES (?, ?, ?, ?, ?, ?)"
_CHANGE_MESSAGE = "UPDATE message SET cost = ?, seen = ? WHERE run = ? AND instance = ?"
_COUNT_NEW = "UPDATE account SET used = ?, last = ?, oldest = ?, until = ? WHERE name = ?"
_COUNT_MORE = "UPDATE account SET used = ? WHERE name = ?"
_OLDEST = "SELECT MIN(first) FROM message WHERE run = ? AND first > ? AND instance <> ?"
_BEGIN_RUN = """
    INSERT INTO account (name, run, dropped, until) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET run = excluded.run"""
_COPY = """
    INSERT INTO account (name, quota, kept, fresh, dropped, until) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET quota = excluded.quota, kept = excluded.kept, fresh = excluded.fresh,
        dropped = excluded.dropped, until = MAX(until, excluded.until)"""


class _Found(NamedTuple):
    """A user's account, and the row of the message in question.

    :ivar oldest: lower bound of the times of its messages; ``None`` without a run.
    """

    run: int | None = None
    used: int = 0
    last: float | None = None
    oldest: float | None = None
    quota: int | None = None
    kept: float = 0.0
    fresh: float = 0.0
    dropped: int | None = None
    until: float = 0.0
    first: float | None = None
    own: int | None = None
    seen: bytes | None = None


class _Question(NamedTuple):
    """The request, with names as stored."""

    wanted: Spend
    rules: Rules
    now: float
    name: bytes
    instance: bytes
    dry: bool


def spend(db: sqlite3.Cursor, now: float, wanted: Spend, rules: Rules, fill: Fill | None, dry: bool) -> Spent:
    """Count a message, or another recipient of it, if the limit allows.

    :param dry: write nothing.
    """
    name = key(wanted.user)
    # No key of a name begins with this byte: it is a message with a single request.
    instance = key(_by_time(wanted.instance)) if wanted.instance else b"\xfe" + os.urandom(15)
    found = _find(db, name, instance)
    limit = found.quota if found.kept <= now < found.fresh else None
    if fill is not None:
        limit = min(fill.value, _MOST)
        if not dry:
            _copy(db, now, name, found, limit, fill)
    if limit is None:
        return Spent(Outcome.MISSING, 0, 0, 0.0, str(counter(db)))
    if limit < 0:
        return Spent(Outcome.UNKNOWN_USER if limit == UNKNOWN_USER else Outcome.NO_QUOTA, 0, 0, 0.0, "")
    if found.last is not None and found.last > now:
        found = _count_from_now(db, now, rules.interval, name, found, dry)
    if found.oldest is not None and found.oldest <= now - rules.interval:
        found = _slide(db, name, found, now - rules.interval, dry)
    return _judge(db, _Question(wanted, rules, now, name, instance, dry), found, limit)


def _by_time(instance: str) -> str:
    """Move the process id in ``process.seconds.microseconds.number`` to the end: unique, and sorted by time."""
    process, dot, time = instance.partition(".")
    return time + dot + process


def _judge(db: sqlite3.Cursor, asked: _Question, found: _Found, limit: int) -> Spent:
    now, rules, used, own = asked.now, asked.rules, found.used, found.own or 0
    mark, target = _target(asked.wanted, own, found.seen or b"")
    if target == own:
        return Spent(Outcome.REPEATED, limit, used, 0.0, "")
    if own == 0 and found.last is not None and now - found.last < rules.min_delta:
        return Spent(Outcome.TOO_SOON, limit, used, found.last + rules.min_delta - now, "")
    total = used - own + target
    most = limit + rules.margin_count + math.floor(limit * rules.margin_ratio)
    if target > own and not ((own > 0 or used < limit) and total <= most):
        return _exceeded(db, asked, found, limit)
    if not asked.dry:
        _count(db, asked, found, target, total, mark)
    return Spent(Outcome.ACCEPTED, limit, total, 0.0, "")


def _find(db: sqlite3.Cursor, name: bytes, instance: bytes) -> _Found:
    row = db.execute(_FIND, (instance, name)).fetchone()
    return _Found._make(row) if row else _Found()


def _target(wanted: Spend, own: int, seen: bytes) -> tuple[bytes, int]:
    """Return the digest of the recipient, and the new cost of the message."""
    if not wanted.recipient:
        return b"", min(wanted.cost, _MOST) if wanted.cost > 0 else own or 1
    mark = blake2b(wanted.recipient.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # A match across two digests is as unlikely as a collision of two digests.
    return mark, own if own > 0 and mark in seen else own + 1


def _copy(db: sqlite3.Cursor, now: float, name: bytes, found: _Found, limit: int, fill: Fill) -> None:
    dropped = floor(db) if found.dropped is None else found.dropped
    if is_current(fill.token, dropped):
        fresh = now + fill.ttl
        db.execute(_COPY, (name, limit, now, fresh, dropped, fresh + GRACE))


def _count_from_now(db: sqlite3.Cursor, now: float, interval: float, name: bytes, found: _Found, dry: bool) -> _Found:
    """Count messages with times later than now, from a clock that was ahead, as of now."""
    if not dry:
        until = now + interval
        db.execute("UPDATE message SET first = ?, until = ? WHERE run = ? AND first > ?", (now, until, found.run, now))
        # A message that was given back may have left this time.
        db.execute("UPDATE account SET last = ?, oldest = MIN(oldest, ?) WHERE name = ?", (now, now, name))
    oldest = found.oldest if found.oldest is None else min(found.oldest, now)
    return found._replace(last=now, oldest=oldest)


def _slide(db: sqlite3.Cursor, name: bytes, found: _Found, end: float, dry: bool) -> _Found:
    """Subtract messages counted at or before ``end``."""
    if found.last is not None and found.last <= end:
        if not dry:
            # The rows stay without an owner until they are cleaned up: the cost does not depend on their number.
            db.execute("UPDATE account SET run = NULL, used = 0, oldest = NULL WHERE name = ?", (name,))
        return found._replace(run=None, used=0, first=None, own=None, seen=None, oldest=None)
    gone = db.execute("SELECT SUM(cost) FROM message WHERE run = ? AND first <= ?", (found.run, end)).fetchone()[0]
    used = found.used - (gone or 0)
    (oldest,) = db.execute(_OLDEST, (found.run, end, b"")).fetchone()
    if not dry:
        db.execute("DELETE FROM message WHERE run = ? AND first <= ?", (found.run, end))
        db.execute("UPDATE account SET used = ?, oldest = ? WHERE name = ?", (used, oldest, name))
    if found.first is not None and found.first <= end:
        return found._replace(used=used, first=None, own=None, seen=None, oldest=oldest)
    return found._replace(used=used, oldest=oldest)


def _exceeded(db: sqlite3.Cursor, asked: _Question, found: _Found, limit: int) -> Spent:
    """Refuse a message; if refused as a whole, give back its previous cost."""
    interval, used = asked.rules.interval, found.used
    given_back = found.own and not asked.wanted.recipient
    others = asked.instance if given_back else b""
    (oldest,) = db.execute(_OLDEST, (found.run, asked.now - interval, others)).fetchone()
    if given_back:
        used -= found.own or 0
        if not asked.dry:
            db.execute("DELETE FROM message WHERE run = ? AND instance = ?", (found.run, asked.instance))
            db.execute(_COUNT_MORE, (used, asked.name))
    wait = min(oldest, asked.now) + interval - asked.now if oldest is not None else 0.0
    return Spent(Outcome.EXCEEDED, limit, used, wait, "")


def _count(db: sqlite3.Cursor, asked: _Question, found: _Found, target: int, total: int, mark: bytes) -> None:
    if found.own:
        db.execute(_CHANGE_MESSAGE, (target, (found.seen or b"") + mark, found.run, asked.instance))
        db.execute(_COUNT_MORE, (total, asked.name))
        return
    run, now, until = found.run, asked.now, asked.now + asked.rules.interval
    if run is None:
        run = advance(db)
        db.execute(_BEGIN_RUN, (asked.name, run, floor(db) if found.dropped is None else found.dropped, until))
    db.execute(_ADD_MESSAGE, (run, asked.instance, now, until, target, mark))
    oldest = now if found.oldest is None else found.oldest
    db.execute(_COUNT_NEW, (total, now, oldest, max(found.until, until + asked.rules.min_delta), asked.name))


def usage(db: sqlite3.Cursor, now: float, users: Iterable[str], interval: float) -> list[Usage]:
    """Return the usage of users."""
    answer = []
    for user in users:
        name = key(user)
        found = _find(db, name, b"")
        limit = found.quota if found.kept <= now < found.fresh else None
        if found.oldest is not None:
            found = _slide(db, name, found, now - interval, True)
        answer.append(Usage(limit, found.used, min(found.last or 0.0, now)))
    return answer


def reset(db: sqlite3.Cursor, now: float, user: str, interval: float) -> int:
    """Reset the usage of a user; return how much was counted."""
    used = usage(db, now, [user], interval)[0].used
    db.execute("UPDATE account SET run = NULL, used = 0, last = NULL, oldest = NULL WHERE name = ?", (key(user),))
    return used


def drop_limits(db: sqlite3.Cursor, now: float, users: Iterable[str]) -> None:
    """Delete cached limits."""
    dropped = advance(db)
    db.executemany(_COPY, [(key(user), None, now, now, dropped, now + GRACE) for user in users])
