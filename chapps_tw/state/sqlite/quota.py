"""Quota usage in SQLite: an exact rolling window, with a running sum for each user."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from chapps_tw.interfaces.state import UNKNOWN_USER, Fill, Outcome, Rules, Spend, Spent, Usage
from chapps_tw.state.sqlite.file import key
from chapps_tw.state.sqlite.verdicts import GRACE, advance, counter, drop_watermark, is_current

# Limits and costs are clamped to this, so that sums stay far below SQLite's 64 bits.
_MAX_UNITS = 2**53

_SELECT = """
    SELECT a.run, a.used, a.last, a.oldest, a.quota, a.kept, a.fresh, a.dropped, a.until, m.first, m.cost, m.seen
    FROM account a LEFT JOIN message m ON m.run = a.run AND m.instance = ?
    WHERE a.name = ?"""
_INSERT_MESSAGE = "INSERT INTO message (run, instance, first, until, cost, seen) VALUES (?, ?, ?, ?, ?, ?)"
_UPDATE_MESSAGE = "UPDATE message SET cost = ?, seen = ? WHERE run = ? AND instance = ?"
_UPDATE_ACCOUNT = "UPDATE account SET used = ?, last = ?, oldest = ?, until = ? WHERE name = ?"
_UPDATE_USED = "UPDATE account SET used = ? WHERE name = ?"
_SELECT_OLDEST = "SELECT MIN(first) FROM message WHERE run = ? AND first > ? AND instance <> ?"
_BEGIN_RUN = """
    INSERT INTO account (name, run, dropped, until) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET run = excluded.run"""
_UPSERT_LIMIT = """
    INSERT INTO account (name, quota, kept, fresh, dropped, until) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET quota = excluded.quota, kept = excluded.kept, fresh = excluded.fresh,
        dropped = excluded.dropped, until = MAX(until, excluded.until)"""


class _Found(NamedTuple):
    """The account of a user, and the row of a message.

    :ivar oldest: lower bound of the times of its messages; ``None`` if it has no run.
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


class _Request(NamedTuple):
    """A request, with the stored forms of its names."""

    spend: Spend
    rules: Rules
    now: float
    name: bytes
    instance: bytes
    dry: bool


def spend(db: sqlite3.Cursor, now: float, spend: Spend, rules: Rules, fill: Fill | None, dry: bool) -> Spent:
    """Count a message, or another recipient of it, if the limit allows.

    :param dry: return the result, but write nothing.
    """
    name = key(spend.user)
    # No key of a name begins with this byte, so the message is unique.
    instance = key(_by_time(spend.instance)) if spend.instance else b"\xfe" + os.urandom(15)
    found = _find(db, name, instance)
    limit = found.quota if found.kept <= now < found.fresh else None
    if fill is not None:
        limit = min(fill.value, _MAX_UNITS)
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
    return _judge(db, _Request(spend, rules, now, name, instance, dry), found, limit)


def _by_time(instance: str) -> str:
    """Move the process of ``process.seconds.microseconds.number`` to the end, so that keys are sorted by time."""
    process, dot, time = instance.partition(".")
    return time + dot + process


def _judge(db: sqlite3.Cursor, request: _Request, found: _Found, limit: int) -> Spent:
    now, rules, used, own = request.now, request.rules, found.used, found.own or 0
    mark, target = _target(request.spend, own, found.seen or b"")
    if target == own:
        return Spent(Outcome.REPEATED, limit, used, 0.0, "")
    if own == 0 and found.last is not None and now - found.last < rules.min_delta:
        return Spent(Outcome.TOO_SOON, limit, used, found.last + rules.min_delta - now, "")
    total = used - own + target
    most = limit + rules.margin_count + math.floor(limit * rules.margin_ratio)
    if target > own and not ((own > 0 or used < limit) and total <= most):
        return _exceeded(db, request, found, limit)
    if not request.dry:
        _count(db, request, found, target, total, mark)
    return Spent(Outcome.ACCEPTED, limit, total, 0.0, "")


def _find(db: sqlite3.Cursor, name: bytes, instance: bytes) -> _Found:
    row = db.execute(_SELECT, (instance, name)).fetchone()
    return _Found._make(row) if row else _Found()


def _target(spend: Spend, own: int, seen: bytes) -> tuple[bytes, int]:
    """Return the digest of the recipient, and the new cost of the message."""
    if not spend.recipient:
        return b"", min(spend.cost, _MAX_UNITS) if spend.cost > 0 else own or 1
    mark = blake2b(spend.recipient.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # A match across two digests is as unlikely as a collision of two digests.
    return mark, own if own > 0 and mark in seen else own + 1


def _copy(db: sqlite3.Cursor, now: float, name: bytes, found: _Found, limit: int, fill: Fill) -> None:
    dropped = drop_watermark(db) if found.dropped is None else found.dropped
    if is_current(fill.token, dropped):
        fresh = now + fill.ttl
        db.execute(_UPSERT_LIMIT, (name, limit, now, fresh, dropped, fresh + GRACE))


def _count_from_now(db: sqlite3.Cursor, now: float, interval: float, name: bytes, found: _Found, dry: bool) -> _Found:
    """Count messages with a time in the future, from before the clock was set back, from now."""
    if not dry:
        until = now + interval
        db.execute("UPDATE message SET first = ?, until = ? WHERE run = ? AND first > ?", (now, until, found.run, now))
        # The time may be that of a message that was refunded.
        db.execute("UPDATE account SET last = ?, oldest = MIN(oldest, ?) WHERE name = ?", (now, now, name))
    oldest = found.oldest if found.oldest is None else min(found.oldest, now)
    return found._replace(last=now, oldest=oldest)


def _slide(db: sqlite3.Cursor, name: bytes, found: _Found, end: float, dry: bool) -> _Found:
    """Subtract messages counted at or before ``end``."""
    if found.last is not None and found.last <= end:
        if not dry:
            # The rows are orphaned until they are cleaned, so that the cost does not depend on their number.
            db.execute("UPDATE account SET run = NULL, used = 0, oldest = NULL WHERE name = ?", (name,))
        return found._replace(run=None, used=0, first=None, own=None, seen=None, oldest=None)
    gone = db.execute("SELECT SUM(cost) FROM message WHERE run = ? AND first <= ?", (found.run, end)).fetchone()[0]
    used = found.used - (gone or 0)
    (oldest,) = db.execute(_SELECT_OLDEST, (found.run, end, b"")).fetchone()
    if not dry:
        db.execute("DELETE FROM message WHERE run = ? AND first <= ?", (found.run, end))
        db.execute("UPDATE account SET used = ?, oldest = ? WHERE name = ?", (used, oldest, name))
    if found.first is not None and found.first <= end:
        return found._replace(used=used, first=None, own=None, seen=None, oldest=oldest)
    return found._replace(used=used, oldest=oldest)


def _exceeded(db: sqlite3.Cursor, request: _Request, found: _Found, limit: int) -> Spent:
    """Reject a message. If it is rejected as a whole, refund its previous cost."""
    interval, used = request.rules.interval, found.used
    is_refunded = found.own and not request.spend.recipient
    others = request.instance if is_refunded else b""
    (oldest,) = db.execute(_SELECT_OLDEST, (found.run, request.now - interval, others)).fetchone()
    if is_refunded:
        used -= found.own or 0
        if not request.dry:
            db.execute("DELETE FROM message WHERE run = ? AND instance = ?", (found.run, request.instance))
            db.execute(_UPDATE_USED, (used, request.name))
    wait = min(oldest, request.now) + interval - request.now if oldest is not None else 0.0
    return Spent(Outcome.EXCEEDED, limit, used, wait, "")


def _count(db: sqlite3.Cursor, request: _Request, found: _Found, target: int, total: int, mark: bytes) -> None:
    if found.own:
        db.execute(_UPDATE_MESSAGE, (target, (found.seen or b"") + mark, found.run, request.instance))
        db.execute(_UPDATE_USED, (total, request.name))
        return
    run, now, until = found.run, request.now, request.now + request.rules.interval
    if run is None:
        run = advance(db)
        db.execute(
            _BEGIN_RUN, (request.name, run, drop_watermark(db) if found.dropped is None else found.dropped, until)
        )
    db.execute(_INSERT_MESSAGE, (run, request.instance, now, until, target, mark))
    oldest = now if found.oldest is None else found.oldest
    db.execute(_UPDATE_ACCOUNT, (total, now, oldest, max(found.until, until + request.rules.min_delta), request.name))


def usage(db: sqlite3.Cursor, now: float, users: Iterable[str], interval: float) -> list[Usage]:
    """Return the usage of each user."""
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
    """Delete all counts of a user; return the transmissions that were in the window."""
    used = usage(db, now, [user], interval)[0].used
    db.execute("UPDATE account SET run = NULL, used = 0, last = NULL, oldest = NULL WHERE name = ?", (key(user),))
    return used


def drop_limits(db: sqlite3.Cursor, now: float, users: Iterable[str]) -> None:
    """Invalidate the cached limits of some users."""
    dropped = advance(db)
    db.executemany(_UPSERT_LIMIT, [(key(user), None, now, now, dropped, now + GRACE) for user in users])
