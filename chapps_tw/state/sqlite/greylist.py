"""Greylisting in SQLite: tuples, and tallies of clients."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

from chapps_tw.interfaces.state import Fill, GreylistAttempt, GreylistResult, GreylistRules, Outcome, Verdict
from chapps_tw.mail.memo import Memo
from chapps_tw.state.sqlite import verdicts as sqlite_verdicts
from chapps_tw.state.sqlite.file import key, readable
from chapps_tw.state.sqlite.verdicts import MEMO_ROOM, Held

# Domains' flags are verdicts, in a space that no caller can name.
_FLAGS = "\0greylist"

# Seconds that a tuple is kept after its lifetime, for the API.
_LONGER = 60.0

_NEVER = Held(0.0, 0.0, [Verdict(None, "")])
# Bytes of a cached tally, besides its name.
_TALLY = 200

_NOT_GREYLISTED = GreylistResult(Outcome.NOT_GREYLISTED, 0.0, 0, "")

_COUNT = "SELECT COUNT(*), MAX(until) FROM tally WHERE client = ?"
_FIND = "SELECT first, last FROM meeting WHERE tuple = ?"
_TRIM = """
    DELETE FROM tally WHERE client = ? AND instance IN (
        SELECT instance FROM tally WHERE client = ? ORDER BY at, instance LIMIT ?)"""
_STORE = "INSERT OR REPLACE INTO meeting (tuple, first, last, until) VALUES (?, ?, ?, ?)"


class Greylist:
    """Greylisting in the file, with a cache of flags and tallies."""

    def __init__(self) -> None:
        self._flags: Memo[str, Held] = Memo(MEMO_ROOM)
        self._tallies: Memo[str, tuple[int, float]] = Memo(MEMO_ROOM)

    def forget(self) -> None:
        """Clear the caches. To be called after another process has written, or after a rollback."""
        self._flags.clear()
        self._tallies.clear()

    def check_greylist(
        self,
        db: sqlite3.Cursor,
        now: float,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        fill: Fill | None,
        dry: bool,
    ) -> GreylistResult:
        """Apply greylisting to a delivery attempt.

        :param dry: write nothing.
        """
        if fill is not None and not dry:
            self._keep_flag(db, now, attempt.domain, fill)
        if not attempt.forced:
            flag = self._flag(db, now, attempt.domain, fill)
            if flag.allowed is None:
                return GreylistResult(Outcome.MISSING, 0.0, 0, flag.token)
            if not flag.allowed:
                return _NOT_GREYLISTED
        counted, tally = self._counted(db, now, attempt, rules, dry)
        if 0 < rules.threshold <= tally:
            return GreylistResult(
                Outcome.KNOWN_CLIENT, 0.0, self._count(db, now, attempt, rules, counted, tally, dry), ""
            )
        names = _tuples(attempt)
        first = _first_attempt(db, now, names, rules)
        known = first is not None
        # A first attempt later than now: the clock was ahead. The client must not wait until that time.
        first = now if first is None else min(first, now)
        wait = first + rules.deferral - now
        if not dry:
            until = now + (rules.retry_window if wait > 0 else rules.pass_ttl) + _LONGER
            for name in names:
                db.execute(_STORE, (name, first, now, until))
        if wait > 0:
            return GreylistResult(Outcome.EARLY if known else Outcome.FIRST, wait, tally, "")
        return GreylistResult(Outcome.PASSED, 0.0, self._count(db, now, attempt, rules, counted, tally, dry), "")

    def _counted(
        self, db: sqlite3.Cursor, now: float, attempt: GreylistAttempt, rules: GreylistRules, dry: bool
    ) -> tuple[str, int]:
        """Return the name of the client whose tally applies, and the tally."""
        client, spf_domain = attempt.client, attempt.spf_domain
        latest = None if dry else now + rules.tally_ttl
        tally = self._tally(db, now, spf_domain or client, latest)
        if spf_domain and tally < rules.threshold <= (other := self._tally(db, now, client, latest)):
            return client, other
        return spf_domain or client, tally

    def _tally(self, db: sqlite3.Cursor, now: float, client: str, latest: float | None) -> int:
        """Return the tally of a client.

        :param latest: when a tally can end that the clock has not kept while it was ahead; ``None``: change nothing.
        """
        tally, ends = self._tallies.get(client) or self._read_tally(db, client)
        if latest is not None and ends > latest:
            self._count_from_now(db, now, client, latest)
        return tally if ends > now else 0

    def _flag(self, db: sqlite3.Cursor, now: float, domain: str, fill: Fill | None) -> Verdict:
        """A domain's flag, ``None`` if it is not cached, and the token for the book's answer."""
        if fill is not None:
            return Verdict(fill.value != 0, "")
        since, until, [flag] = self._flags.get(domain, _NEVER)
        if since <= now < until:
            return flag
        held = sqlite_verdicts.find(db, now, _FLAGS, "", (domain,))
        if held.until > now:
            self._flags.keep(domain, held)
        return held.verdicts[0]

    def _keep_flag(self, db: sqlite3.Cursor, now: float, domain: str, fill: Fill) -> None:
        self._flags.pop(domain, None)
        sqlite_verdicts.keep(db, now, _FLAGS, "", [(domain, fill.value != 0, fill.token)], fill.ttl)

    def _read_tally(self, db: sqlite3.Cursor, client: str) -> tuple[int, float]:
        """Read a client's tally; return it with the time when it expires."""
        tally, ends = db.execute(_COUNT, (key(client),)).fetchone()
        self._tallies.keep(client, (tally, ends or 0.0), _TALLY + 4 * len(client))
        return tally, ends or 0.0

    def _count(
        self,
        db: sqlite3.Cursor,
        now: float,
        attempt: GreylistAttempt,
        rules: GreylistRules,
        counted: str,
        tally: int,
        dry: bool,
    ) -> int:
        """Add a message to a client's tally; return the new tally."""
        if rules.threshold <= 0 or not attempt.instance:
            return tally
        client = key(counted)
        where = (client, key(attempt.instance))
        if tally and db.execute("SELECT 1 FROM tally WHERE client = ? AND instance = ?", where).fetchone():
            return tally
        if not dry:
            if not tally:
                self.clear(db, counted)
            row = (*where, now, now + rules.tally_ttl)
            db.execute("INSERT INTO tally (client, instance, at, until) VALUES (?, ?, ?, ?)", row)
            if tally >= rules.threshold:
                db.execute(_TRIM, (client, client, tally + 1 - rules.threshold))
            self._tallies.pop(counted, None)
        return min(tally + 1, rules.threshold)

    def _count_from_now(self, db: sqlite3.Cursor, now: float, client: str, until: float) -> None:
        """Correct a tally with times later than now, from a clock that was ahead: it expires like one of now."""
        row = (now, until, key(client))
        db.execute("UPDATE tally SET at = MIN(at, ?), until = MIN(until, ?) WHERE client = ?", row)
        self._tallies.pop(client, None)

    def clear(self, db: sqlite3.Cursor, client: str) -> None:
        """Delete a client's tally."""
        self._tallies.pop(client, None)
        db.execute("DELETE FROM tally WHERE client = ?", (key(client),))

    def drop_flags(self, db: sqlite3.Cursor, now: float, domains: Iterable[str]) -> None:
        """Delete cached flags."""
        self._flags.clear()
        sqlite_verdicts.drop(db, now, _FLAGS, "", domains)


def _tuples(attempt: GreylistAttempt) -> tuple[int, ...]:
    """Return the ids of an attempt's tuples, one for each name of its client."""
    by_network = _tuple(attempt.client, attempt.sender, attempt.recipient)
    if not attempt.spf_domain:
        return (by_network,)
    return by_network, _tuple(attempt.spf_domain, attempt.sender, attempt.recipient)


def _first_attempt(db: sqlite3.Cursor, now: float, names: tuple[int, ...], rules: GreylistRules) -> float | None:
    """Return the time of the first attempt of any of these tuples; ``None`` if none is stored."""
    found = None
    for name in names:
        row = db.execute(_FIND, (name,)).fetchone()
        if row is None:
            continue
        first, last = row
        # One that was met after its deferral has passed; one of the far future was met by a clock that was ahead,
        # nobody knows when.
        passed = last - first >= rules.deferral
        if abs(now - last) <= (rules.pass_ttl if passed else rules.retry_window):
            found = first if found is None else min(first, found)
    return found


def _tuple(client: str, sender: str, recipient: str) -> int:
    """Return the id of a tuple: 64 bits, which an index finds faster than bytes.

    A client's tuples are neighbours, so that a message to several recipients changes one page and not several. Of a
    client that has a million of them, one message in a million is taken for another.
    """
    # Two of the lengths go with it, so that no two tuples are written alike.
    text = f"{len(client)} {len(sender)} {client}{sender}{recipient}".encode("utf-8", "surrogatepass")
    neighbourhood = crc32(client.encode("utf-8", "surrogatepass")) >> 8
    return (neighbourhood << 40 | int.from_bytes(blake2b(text, digest_size=5).digest(), "big")) - 2**63


def last_attempt(db: sqlite3.Cursor, now: float, client: str, sender: str, recipient: str) -> float:
    """Return the time of a tuple's last attempt."""
    name = _tuple(client, sender, recipient)
    row = db.execute("SELECT last FROM meeting WHERE tuple = ? AND until > ?", (name, now)).fetchone()
    return float(row[0]) if row else 0.0


def tally(db: sqlite3.Cursor, now: float, client: str) -> list[tuple[str, float]]:
    """Return the instances in a client's tally, oldest first."""
    name = key(client)
    count, until = db.execute(_COUNT, (name,)).fetchone()
    if not count or until <= now:
        return []
    rows = db.execute("SELECT instance, at FROM tally WHERE client = ? ORDER BY at, instance", (name,))
    return [(readable(instance), at) for instance, at in rows]
