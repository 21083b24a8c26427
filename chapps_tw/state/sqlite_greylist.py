"""Greylisting in SQLite: tuples met, and the clients that are known by now."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

from chapps_tw.interfaces import Fill, Meeting, Met, Outcome, Patience, Verdict
from chapps_tw.memo import Memo
from chapps_tw.state import sqlite_verdicts
from chapps_tw.state.sqlite_file import key, readable
from chapps_tw.state.sqlite_verdicts import MEMO_ROOM

# Domains' flags are verdicts, in a space that no caller can name.
_FLAGS = "\0greylist"

# A tuple is still there for those who look when its lifetime has just ended; seconds.
_LONGER = 60.0

_NEVER: tuple[float, Verdict] = (0.0, Verdict(None, ""))
_NEVER_MET = (-math.inf, -math.inf)
_NOT_GREYLISTED = Met(Outcome.NOT_GREYLISTED, 0.0, 0, "")

_COUNT = "SELECT COUNT(*), MAX(until) FROM tally WHERE client = ?"
_FIND = "SELECT first, last FROM meeting WHERE tuple = ?"
_TRIM = """
    DELETE FROM tally WHERE client = ? AND instance IN (
        SELECT instance FROM tally WHERE client = ? ORDER BY at, instance LIMIT ?)"""
_MEET = "INSERT OR REPLACE INTO meeting (tuple, first, last, until) VALUES (?, ?, ?, ?)"


class Greylist:
    """Greylisting in the file, with flags and tallies remembered that were read before."""

    def __init__(self) -> None:
        self._flags: Memo[str, tuple[float, Verdict]] = Memo(MEMO_ROOM)
        self._tallies: Memo[str, tuple[int, float]] = Memo(MEMO_ROOM)

    def forget(self) -> None:
        """To be called when what was read before may not hold any more."""
        self._flags.clear()
        self._tallies.clear()

    def meet(
        self, db: sqlite3.Cursor, now: float, meeting: Meeting, patience: Patience, fill: Fill | None, dry: bool
    ) -> Met:
        """Greylist a message.

        :param dry: write nothing, and answer what would be answered.
        """
        client, domain, forced = meeting.client, meeting.domain, meeting.forced
        if fill is not None:
            if not dry:
                self._keep_flag(db, now, domain, fill)
            wanted = forced or fill.value != 0
        elif forced:
            wanted = True
        else:
            until, flag = self._flags.get(domain, _NEVER)
            if until <= now:
                flag = self._read_flag(db, now, domain)
            if flag.allowed is None:
                return Met(Outcome.MISSING, 0.0, 0, flag.token)
            wanted = flag.allowed
        if not wanted:
            return _NOT_GREYLISTED
        name = _tuple(client, meeting.sender, meeting.recipient)
        tally, ends = self._tallies.get(client) or self._read_tally(db, client)
        if ends <= now:
            tally = 0
        if 0 < patience.threshold <= tally:
            return Met(Outcome.KNOWN_CLIENT, 0.0, self._count(db, now, meeting, patience, tally, dry), "")
        first, last = db.execute(_FIND, (name,)).fetchone() or _NEVER_MET
        known = now - last <= patience.lifetime
        # A first time later than now: the clock was ahead, and nobody is made to wait until it is then.
        first = min(first, now) if known else now
        if not dry:
            db.execute(_MEET, (name, first, now, now + patience.lifetime + _LONGER))
        wait = first + patience.deferral - now
        if wait > 0:
            return Met(Outcome.EARLY if known else Outcome.FIRST, wait, tally, "")
        return Met(Outcome.PASSED, 0.0, self._count(db, now, meeting, patience, tally, dry), "")

    def _read_flag(self, db: sqlite3.Cursor, now: float, domain: str) -> Verdict:
        """A domain's flag, ``None`` when it is not known, and the token to bring it with."""
        [flag], until = sqlite_verdicts.find(db, now, _FLAGS, "", (domain,))
        if until > now:
            self._flags.keep(domain, (until, flag))
        return flag

    def _keep_flag(self, db: sqlite3.Cursor, now: float, domain: str, fill: Fill) -> None:
        self._flags.pop(domain, None)
        sqlite_verdicts.keep(db, now, _FLAGS, "", [(domain, fill.value != 0, fill.token)], fill.ttl)

    def _read_tally(self, db: sqlite3.Cursor, client: str) -> tuple[int, float]:
        """How many messages count for a client, and until when."""
        tally, ends = db.execute(_COUNT, (key(client),)).fetchone()
        self._tallies.keep(client, (tally, ends or 0.0))
        return tally, ends or 0.0

    def _count(
        self, db: sqlite3.Cursor, now: float, meeting: Meeting, patience: Patience, tally: int, dry: bool
    ) -> int:
        """Count a message that passes in its client's tally; returns the tally then."""
        if patience.threshold <= 0 or not meeting.instance:
            return tally
        client = key(meeting.client)
        where = (client, key(meeting.instance))
        if tally and db.execute("SELECT 1 FROM tally WHERE client = ? AND instance = ?", where).fetchone():
            return tally
        if not dry:
            if not tally:
                self.clear(db, meeting.client)
            row = (*where, now, now + patience.lifetime)
            db.execute("INSERT INTO tally (client, instance, at, until) VALUES (?, ?, ?, ?)", row)
            if tally >= patience.threshold:
                db.execute(_TRIM, (client, client, tally + 1 - patience.threshold))
            self._tallies.pop(meeting.client, None)
        return min(tally + 1, patience.threshold)

    def clear(self, db: sqlite3.Cursor, client: str) -> None:
        """Forget a client's tally."""
        self._tallies.pop(client, None)
        db.execute("DELETE FROM tally WHERE client = ?", (key(client),))

    def drop_flags(self, db: sqlite3.Cursor, now: float, domains: Iterable[str]) -> None:
        """Forget the cached flags of some domains."""
        self._flags.clear()
        sqlite_verdicts.drop(db, now, _FLAGS, "", domains)


def _tuple(client: str, sender: str, recipient: str) -> int:
    """The number that stands for a tuple: 64 bits, found in less time than bytes.

    A client's tuples are neighbours, so that a message to several recipients changes one page and not several. Of a
    client that has a million of them, one message in a million is taken for another.
    """
    # Two of the lengths go with it, so that no two tuples are written alike.
    text = f"{len(client)} {len(sender)} {client}{sender}{recipient}".encode("utf-8", "surrogatepass")
    neighbourhood = crc32(client.encode("utf-8", "surrogatepass")) >> 8
    return (neighbourhood << 40 | int.from_bytes(blake2b(text, digest_size=5).digest(), "big")) - 2**63


def last_met(db: sqlite3.Cursor, now: float, client: str, sender: str, recipient: str) -> float:
    """When a tuple was last met."""
    name = _tuple(client, sender, recipient)
    row = db.execute("SELECT last FROM meeting WHERE tuple = ? AND until > ?", (name, now)).fetchone()
    return float(row[0]) if row else 0.0


def tally(db: sqlite3.Cursor, now: float, client: str) -> list[tuple[str, float]]:
    """What counts for a client, oldest first."""
    name = key(client)
    count, until = db.execute(_COUNT, (name,)).fetchone()
    if not count or until <= now:
        return []
    rows = db.execute("SELECT instance, at FROM tally WHERE client = ? ORDER BY at, instance", (name,))
    return [(readable(instance), at) for instance, at in rows]
