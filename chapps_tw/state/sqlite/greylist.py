"""Greylisting in SQLite: tuples, and the tallies of clients."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from zlib import crc32

from chapps_tw.interfaces.greylist import Fill, GreylistAttempt, GreylistResult, GreylistRules
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import CachedValue, Fresh, ValueKey
from chapps_tw.mail.memo import Memo
from chapps_tw.state.sqlite.keys import key, readable
from chapps_tw.state.sqlite.values import CachedValues

# Flags of domains are stored as values, in a space that callers do not use.
_FLAGS = "\0greylist"

# Seconds to keep a tuple after it has expired.
GRACE = 60.0

# Maximum size of the cache of tallies in bytes, and size of a tally without the client.
_TALLIES_BYTES, _TALLY_BYTES = 8 << 20, 200

_NOT_GREYLISTED = GreylistResult(Outcome.NOT_GREYLISTED, 0.0, 0, "")

_SELECT_TALLY = "SELECT COUNT(*), MAX(until) FROM tally WHERE client = ?"
SELECT_TUPLE = "SELECT first, last FROM meeting WHERE tuple = ?"
TRIM_TALLY = """
    DELETE FROM tally WHERE client = ? AND instance IN (
        SELECT instance FROM tally WHERE client = ? ORDER BY at, instance LIMIT ?)"""
UPSERT_TUPLE = "INSERT OR REPLACE INTO meeting (tuple, first, last, until) VALUES (?, ?, ?, ?)"


class Greylist:
    """Greylisting in the file, with a read cache of flags and tallies in memory."""

    def __init__(self) -> None:
        self._flags = CachedValues()
        self._tallies: Memo[str, tuple[int, float]] = Memo(_TALLIES_BYTES)

    def clear(self) -> None:
        """Clear the read caches. Call after another process has written, and after a rollback."""
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
        """Check a message against the greylist.

        :param dry: return the result, but write nothing.
        """
        if fill is not None and not dry:
            self._keep_flag(db, now, attempt.domain, fill)
        if not attempt.forced:
            flag = self._flag(db, now, attempt.domain, fill)
            if flag.value is None:
                return GreylistResult(Outcome.MISSING, 0.0, 0, flag.token)
            if flag.value == "0":
                return _NOT_GREYLISTED
        counted, tally = self._select_tally(db, now, attempt, rules, dry)
        if 0 < rules.threshold <= tally:
            return GreylistResult(
                Outcome.KNOWN_CLIENT, 0.0, self._count(db, now, attempt, rules, counted, tally, dry), ""
            )
        names = _tuples(attempt)
        first = _first_seen(db, now, names, rules)
        known = first is not None
        # A time in the future was recorded before the clock was set back: the client does not wait for it.
        first = now if first is None else min(first, now)
        wait = first + rules.deferral - now
        if not dry:
            until = now + (rules.retry_window if wait > 0 else rules.pass_ttl) + GRACE
            for name in names:
                db.execute(UPSERT_TUPLE, (name, first, now, until))
        if wait > 0:
            return GreylistResult(Outcome.EARLY if known else Outcome.FIRST, wait, tally, "")
        return GreylistResult(Outcome.PASSED, 0.0, self._count(db, now, attempt, rules, counted, tally, dry), "")

    def _select_tally(
        self, db: sqlite3.Cursor, now: float, attempt: GreylistAttempt, rules: GreylistRules, dry: bool
    ) -> tuple[str, int]:
        """Return the name whose tally the message counts in (SPF domain or network), and the size of that tally."""
        client, spf_domain = attempt.client, attempt.spf_domain
        latest = None if dry else now + rules.tally_ttl
        tally = self._tally(db, now, spf_domain or client, latest)
        if spf_domain and tally < rules.threshold <= (other := self._tally(db, now, client, latest)):
            return client, other
        return spf_domain or client, tally

    def _tally(self, db: sqlite3.Cursor, now: float, client: str, latest: float | None) -> int:
        """Return the size of a client's tally.

        :param latest: the latest possible expiry; a later one was recorded before the clock was set back, and is
            clamped. ``None``: change nothing.
        """
        tally, ends = self._tallies.get(client) or self._read_tally(db, client)
        if latest is not None and ends > latest:
            self._clamp_to_now(db, now, client, latest)
        return tally if ends > now else 0

    def _flag(self, db: sqlite3.Cursor, now: float, domain: str, fill: Fill | None) -> CachedValue:
        """Return a domain's flag, ``1`` or ``0``."""
        if fill is not None:
            return CachedValue(_text(fill.value), "")
        return self._flags.find(db, now, [_flag_key(domain)])[0]

    def _keep_flag(self, db: sqlite3.Cursor, now: float, domain: str, fill: Fill) -> None:
        self._flags.keep(db, now, [Fresh(_flag_key(domain), _text(fill.value), fill.token)], fill.ttl)

    def _read_tally(self, db: sqlite3.Cursor, client: str) -> tuple[int, float]:
        """Return the size of a client's tally in the file, and when it expires."""
        tally, ends = db.execute(_SELECT_TALLY, (key(client),)).fetchone()
        self._tallies.keep(client, (tally, ends or 0.0), _TALLY_BYTES + 4 * len(client))
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
        """Count a message in a client's tally; return the new size."""
        if rules.threshold <= 0 or not attempt.instance:
            return tally
        client = key(counted)
        where = (client, key(attempt.instance))
        if tally and db.execute("SELECT 1 FROM tally WHERE client = ? AND instance = ?", where).fetchone():
            return tally
        if not dry:
            if not tally:
                self.clear_tally(db, counted)
            row = (*where, now, now + rules.tally_ttl)
            db.execute("INSERT INTO tally (client, instance, at, until) VALUES (?, ?, ?, ?)", row)
            if tally >= rules.threshold:
                db.execute(TRIM_TALLY, (client, client, tally + 1 - rules.threshold))
            self._tallies.pop(counted, None)
        return min(tally + 1, rules.threshold)

    def _clamp_to_now(self, db: sqlite3.Cursor, now: float, client: str, until: float) -> None:
        """Clamp the times of a tally, recorded before the clock was set back, to those of a message counted now."""
        row = (now, until, key(client))
        db.execute("UPDATE tally SET at = MIN(at, ?), until = MIN(until, ?) WHERE client = ?", row)
        self._tallies.pop(client, None)

    def clear_tally(self, db: sqlite3.Cursor, client: str) -> None:
        """Delete a client's tally."""
        self.forget_tally(client)
        db.execute("DELETE FROM tally WHERE client = ?", (key(client),))

    def forget_tally(self, client: str) -> None:
        """Clear the read cache of a client's tally, which was changed in the file."""
        self._tallies.pop(client, None)

    def drop_flags(self, db: sqlite3.Cursor, now: float, domains: Iterable[str]) -> None:
        """Invalidate the cached flags of some domains."""
        self._flags.drop(db, now, [_flag_key(domain) for domain in domains])


def _flag_key(domain: str) -> ValueKey:
    return ValueKey(_FLAGS, "", domain)


def _text(flag: int) -> str:
    return "1" if flag else "0"


def _tuples(attempt: GreylistAttempt) -> tuple[int, ...]:
    """Return the keys of a message's tuple: by network, and by SPF domain if there is one."""
    by_network = tuple_key(attempt.client, attempt.sender, attempt.recipient)
    if not attempt.spf_domain:
        return (by_network,)
    return by_network, tuple_key(attempt.spf_domain, attempt.sender, attempt.recipient)


def _first_seen(db: sqlite3.Cursor, now: float, names: tuple[int, ...], rules: GreylistRules) -> float | None:
    """Return when the earliest of some tuples was first seen; ``None`` if there is none, or all have expired."""
    found = None
    for name in names:
        row = db.execute(SELECT_TUPLE, (name,)).fetchone()
        if row is None:
            continue
        first, last = row
        # A tuple seen again after its deferral has passed. A time in the far future was recorded before the clock was
        # set back, so the real time is unknown.
        passed = last - first >= rules.deferral
        if abs(now - last) <= (rules.pass_ttl if passed else rules.retry_window):
            found = first if found is None else min(first, found)
    return found


def tuple_key(client: str, sender: str, recipient: str) -> int:
    """Return the key of a tuple: a 64-bit digest, which is looked up faster than bytes.

    The tuples of a client have adjacent keys, so that a message to several recipients changes only one page. If a
    client has a million tuples, one message in a million is mistaken for another.
    """
    # With two of the lengths, the encoding is unambiguous.
    text = f"{len(client)} {len(sender)} {client}{sender}{recipient}".encode("utf-8", "surrogatepass")
    neighbourhood = crc32(client.encode("utf-8", "surrogatepass")) >> 8
    return (neighbourhood << 40 | int.from_bytes(blake2b(text, digest_size=5).digest(), "big")) - 2**63


def let_pass(db: sqlite3.Cursor, now: float, names: tuple[str, str, str], rules: GreylistRules) -> None:
    """Record a tuple as retried after its deferral.

    :param names: client, sender and recipient.
    """
    # A second more, since the difference of two times is not exact.
    first = now - rules.deferral - 1.0
    db.execute(UPSERT_TUPLE, (tuple_key(*names), first, now, now + rules.pass_ttl + GRACE))


def last_attempt(db: sqlite3.Cursor, now: float, client: str, sender: str, recipient: str) -> float:
    """Return when a tuple was last seen, in epoch seconds; 0.0 if never."""
    name = tuple_key(client, sender, recipient)
    row = db.execute("SELECT last FROM meeting WHERE tuple = ? AND until > ?", (name, now)).fetchone()
    return float(row[0]) if row else 0.0


def tally(db: sqlite3.Cursor, now: float, client: str) -> list[tuple[str, float]]:
    """Return the instances in a client's tally with their times in epoch seconds, oldest first."""
    name = key(client)
    count, until = db.execute(_SELECT_TALLY, (name,)).fetchone()
    if not count or until <= now:
        return []
    rows = db.execute("SELECT instance, at FROM tally WHERE client = ? ORDER BY at, instance", (name,))
    return [(readable(instance), at) for instance, at in rows]
