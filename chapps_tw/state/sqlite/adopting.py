"""Taking over counts, tuples and tallies that another service has made."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from chapps_tw.interfaces.adoption import PastCounts, PastTally, PastTuple
from chapps_tw.interfaces.greylist import GreylistRules
from chapps_tw.state.sqlite.accounts import Accounts
from chapps_tw.state.sqlite.greylist import GRACE, SELECT_TUPLE, TRIM_TALLY, UPSERT_TUPLE, Greylist, tuple_key
from chapps_tw.state.sqlite.keys import key

_ADD_TO_TALLY = "INSERT OR IGNORE INTO tally (client, instance, at, until) VALUES (?, ?, ?, ?)"


def adopt_counts(db: sqlite3.Cursor, now: float, accounts: Accounts, counts: Sequence[PastCounts]) -> int:
    """Count messages of the past; return how many were new."""
    accounts.trim()
    return sum(accounts.adopt(db, now, each) for each in counts)


def adopt_tuples(db: sqlite3.Cursor, now: float, tuples: Sequence[PastTuple], rules: GreylistRules) -> int:
    """Have tuples as if they had been deferred at their time; return how many that changed."""
    return sum(_adopt_tuple(db, now, each, rules) for each in tuples)


def _adopt_tuple(db: sqlite3.Cursor, now: float, past: PastTuple, rules: GreylistRules) -> bool:
    name, at = tuple_key(past.client, past.sender, past.recipient), min(past.at, now)
    known = db.execute(SELECT_TUPLE, (name,)).fetchone()
    first = last = at
    began, seen = known or (at, at)
    if abs(now - seen) <= _lifetime(began, seen, rules):
        first, last = min(began, at), max(seen, at)
        if (first, last) == known:
            return False
    until = last + _lifetime(first, last, rules)
    if until <= now:
        return False
    db.execute(UPSERT_TUPLE, (name, first, last, until + GRACE))
    return True


def _lifetime(first: float, last: float, rules: GreylistRules) -> float:
    """Return for how many seconds after its last attempt a tuple lives."""
    return rules.pass_ttl if last - first >= rules.deferral else rules.retry_window


def adopt_tallies(
    db: sqlite3.Cursor, now: float, greylist: Greylist, tallies: Sequence[PastTally], rules: GreylistRules
) -> int:
    """Add messages to the tallies of clients; return how many were new."""
    return sum(_adopt_tally(db, now, greylist, each, rules) for each in tallies)


def _adopt_tally(db: sqlite3.Cursor, now: float, greylist: Greylist, past: PastTally, rules: GreylistRules) -> int:
    client, ttl = key(past.client), rules.tally_ttl
    (ends,) = db.execute("SELECT MAX(until) FROM tally WHERE client = ?", (client,)).fetchone()
    if ends is not None and ends <= now:
        greylist.clear_tally(db, past.client)
    rows = [
        (client, key(instance), min(at, now), min(at, now) + ttl) for instance, at in past.messages if at + ttl > now
    ]
    added = sum(db.execute(_ADD_TO_TALLY, row).rowcount for row in rows)
    if added:
        (size,) = db.execute("SELECT COUNT(*) FROM tally WHERE client = ?", (client,)).fetchone()
        db.execute(TRIM_TALLY, (client, client, max(0, size - rules.threshold)))
        greylist.forget_tally(past.client)
    return added
