"""Greylisting in SQLite: tuples met, and the clients that are known by now."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from chapps_tw.interfaces import Fill, Meeting, Met, Outcome, Patience
from chapps_tw.state import sqlite_verdicts
from chapps_tw.state.sqlite_file import key, readable

# Domains' flags are verdicts, in a space that no caller can name.
_FLAGS = "\0greylist"

# A tuple is still there for those who look when its lifetime has just ended; seconds.
_LONGER = 60.0

_COUNT = "SELECT COUNT(*), MAX(until) FROM tally WHERE client = ?"
# Half the time of two questions.
_FIND = """
    SELECT m.first, m.last, t.count, t.until
    FROM (SELECT COUNT(*) AS count, MAX(until) AS until FROM tally WHERE client = ?) t
    LEFT JOIN meeting m ON m.tuple = ?"""
_TRIM = """
    DELETE FROM tally WHERE client = ? AND instance IN (
        SELECT instance FROM tally WHERE client = ? ORDER BY at, instance LIMIT ?)"""
_MEET = "INSERT OR REPLACE INTO meeting (tuple, first, last, until) VALUES (?, ?, ?, ?)"


class _Question(NamedTuple):
    """What is asked, with the client as it is stored."""

    meeting: Meeting
    patience: Patience
    now: float
    client: bytes
    dry: bool
    memo: sqlite_verdicts.Memo
    settled: bool


def meet(
    db: sqlite3.Connection,
    now: float,
    meeting: Meeting,
    patience: Patience,
    fill: Fill | None,
    dry: bool,
    memo: sqlite_verdicts.Memo,
    settled: bool,
) -> Met:
    """Greylist a message.

    :param dry: write nothing, and answer what would be answered.
    :param memo: of the flags. ``settled`` is as in :meth:`~chapps_tw.state.sqlite_verdicts.Memo.find`.
    """
    return _answer(db, _Question(meeting, patience, now, key(meeting.client), dry, memo, settled), fill)


def _answer(db: sqlite3.Connection, asked: _Question, fill: Fill | None) -> Met:
    meeting, threshold = asked.meeting, asked.patience.threshold
    flag, token = _flag(db, asked, fill)
    if flag is None and not meeting.forced:
        return Met(Outcome.MISSING, 0.0, 0, token)
    if not flag and not meeting.forced:
        return Met(Outcome.NOT_GREYLISTED, 0.0, 0, "")
    name = _tuple(meeting.client, meeting.sender, meeting.recipient)
    first, last, count, until = db.execute(_FIND, (asked.client, name)).fetchone()
    tally = int(count) if count and until > asked.now else 0
    if 0 < threshold <= tally:
        return Met(Outcome.KNOWN_CLIENT, 0.0, _count(db, asked, tally), "")
    outcome, wait = _wait(db, asked, name, first, last)
    return Met(outcome, wait, _count(db, asked, tally) if outcome == Outcome.PASSED else tally, "")


def _flag(db: sqlite3.Connection, asked: _Question, fill: Fill | None) -> tuple[bool | None, str]:
    """A domain's flag, ``None`` when it is not known, and the token to bring it with."""
    domain = asked.meeting.domain
    if fill is not None:
        if not asked.dry:
            asked.memo.forget()
            sqlite_verdicts.keep(db, asked.now, _FLAGS, "", [(domain, fill.value != 0, fill.token)], fill.ttl)
        return fill.value != 0, ""
    if asked.meeting.forced:
        return None, ""
    [found] = asked.memo.find(db, asked.now, _FLAGS, "", (domain,), asked.settled)
    return found.allowed, found.token


def _wait(
    db: sqlite3.Connection, asked: _Question, name: bytes, before: float | None, last: float | None
) -> tuple[Outcome, float]:
    """How a tuple stands, and how long it must still wait; it is met now.

    :param before, last: when it was met first, and last.
    """
    now, patience = asked.now, asked.patience
    known = last is not None and now - last <= patience.lifetime
    first = before if known and before is not None else now
    if not asked.dry:
        db.execute(_MEET, (name, first, now, now + patience.lifetime + _LONGER))
    wait = first + patience.deferral - now
    if wait <= 0:
        return Outcome.PASSED, 0.0
    return (Outcome.EARLY if known else Outcome.FIRST), wait


def _tally(db: sqlite3.Connection, now: float, client: bytes) -> int:
    count, until = db.execute(_COUNT, (client,)).fetchone()
    return int(count) if count and until > now else 0


def _count(db: sqlite3.Connection, asked: _Question, tally: int) -> int:
    """Count a message that passes in its client's tally; returns the tally then."""
    now, client, threshold = asked.now, asked.client, asked.patience.threshold
    if threshold <= 0 or not asked.meeting.instance:
        return tally
    where = (client, key(asked.meeting.instance))
    if tally and db.execute("SELECT 1 FROM tally WHERE client = ? AND instance = ?", where).fetchone():
        return tally
    if not asked.dry:
        if not tally:
            clear(db, asked.meeting.client)
        row = (*where, now, now + asked.patience.lifetime)
        db.execute("INSERT INTO tally (client, instance, at, until) VALUES (?, ?, ?, ?)", row)
        if tally >= threshold:
            db.execute(_TRIM, (client, client, tally + 1 - threshold))
    return min(tally + 1, threshold)


def _tuple(client: str, sender: str, recipient: str) -> bytes:
    # Each part's length goes with it, so that no two tuples are written alike.
    parts = [part.encode("utf-8", "surrogatepass") for part in (client, sender, recipient)]
    return blake2b(b"".join(b"%d:%s" % (len(part), part) for part in parts), digest_size=16).digest()


def last_met(db: sqlite3.Connection, now: float, client: str, sender: str, recipient: str) -> float:
    """When a tuple was last met."""
    name = _tuple(client, sender, recipient)
    row = db.execute("SELECT last FROM meeting WHERE tuple = ? AND until > ?", (name, now)).fetchone()
    return float(row[0]) if row else 0.0


def tally(db: sqlite3.Connection, now: float, client: str) -> list[tuple[str, float]]:
    """What counts for a client, oldest first."""
    name = key(client)
    if not _tally(db, now, name):
        return []
    rows = db.execute("SELECT instance, at FROM tally WHERE client = ? ORDER BY at, instance", (name,))
    return [(readable(instance), at) for instance, at in rows]


def clear(db: sqlite3.Connection, client: str) -> None:
    """Forget a client's tally."""
    db.execute("DELETE FROM tally WHERE client = ?", (key(client),))


def drop_flags(db: sqlite3.Connection, now: float, domains: Iterable[str]) -> None:
    """Forget the cached flags of some domains."""
    sqlite_verdicts.drop(db, now, _FLAGS, "", domains)
