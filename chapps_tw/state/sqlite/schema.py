"""The tables of the state file, and the upgrades from earlier versions."""

from __future__ import annotations

import sqlite3
from typing import Final

from chapps_tw.state.sqlite.keys import account_key

VERSION: Final = 4

_MEETING = """
CREATE TABLE meeting (
    tuple INTEGER PRIMARY KEY,          -- digest of client, sender and recipient
    first REAL NOT NULL,
    last REAL NOT NULL,
    until REAL NOT NULL
);
"""

# Rows of an account are neighbours, so that a message changes one page for each account. No row has sums: they are
# computed when the account is read.
_COUNTS = """
CREATE TABLE message (
    account BLOB NOT NULL,              -- digest of its space and name
    number INTEGER NOT NULL,            -- in order of time
    instance BLOB NOT NULL,
    at REAL NOT NULL,                   -- when it was first counted
    keep REAL NOT NULL,                 -- for so many seconds it may count
    cost INTEGER NOT NULL,              -- 0 if it was given back
    seen BLOB NOT NULL,                 -- digests of the recipients counted one by one, 8 bytes each
    settle REAL NOT NULL,               -- when its cost is given back; 0 if it counts for good
    PRIMARY KEY (account, number)
) WITHOUT ROWID;
CREATE TABLE recipient (
    account BLOB NOT NULL,
    recipient BLOB NOT NULL,            -- digest
    at REAL NOT NULL,                   -- of the last message to it
    keep REAL NOT NULL,
    PRIMARY KEY (account, recipient)
) WITHOUT ROWID;
"""

_VALUES = """
CREATE TABLE value (
    name BLOB PRIMARY KEY,              -- space, owner and name in one column: twice as fast as in three
    value BLOB,
    kept REAL NOT NULL,                 -- when it was cached; in the future if the clock was set back
    fresh REAL NOT NULL,                -- when it expires
    dropped INTEGER NOT NULL            -- counter at the last invalidation
) WITHOUT ROWID;
"""

_EVENTS = """
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    event BLOB NOT NULL
);
"""

# Rows that expire have no index on their expiry, which would cost one more page per message. They are found by scanning
# the tables (see upkeep.py).
SCHEMA: Final = f"""
CREATE TABLE meta (
    counter INTEGER NOT NULL,           -- the last token; always increasing
    floor INTEGER NOT NULL,             -- highest "dropped" of the rows that were removed
    pings INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta (counter, floor) VALUES (0, 0);
CREATE TABLE tally (
    client BLOB NOT NULL,
    instance BLOB NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,                -- the tally expires with its latest row
    PRIMARY KEY (client, instance)
) WITHOUT ROWID;
CREATE TABLE once (
    space BLOB NOT NULL,
    name BLOB NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (space, name)
) WITHOUT ROWID;
{_COUNTS}{_VALUES}{_EVENTS}{_MEETING}"""

# Upgrades from each version to the next. Greylist entries of version 1 are discarded, counts are kept.
_UPGRADES: Final = {
    1: f"""
        DROP TABLE meeting;
        {_MEETING}
        ALTER TABLE meta ADD COLUMN pings INTEGER NOT NULL DEFAULT 0;
        ALTER TABLE account ADD COLUMN oldest REAL;
        UPDATE account SET oldest = 0 WHERE run IS NOT NULL;
    """,
    2: """
        ALTER TABLE account ADD COLUMN kept REAL NOT NULL DEFAULT 0;
        ALTER TABLE verdict ADD COLUMN kept REAL NOT NULL DEFAULT 0;
    """,
    3: f"""
        ALTER TABLE message RENAME TO counted;
        {_COUNTS}
        INSERT INTO message
            SELECT account_key(a.name), ROW_NUMBER() OVER (PARTITION BY c.run ORDER BY c.first, c.instance),
                instance_key(c.instance), c.first, ROUND(c.until - c.first, 3), c.cost, c.seen, 0
            FROM counted c JOIN account a ON a.run = c.run;
        DROP TABLE counted;
        DROP TABLE account;
        {_VALUES}
        INSERT INTO value
            SELECT name, CAST(CAST(allowed AS TEXT) AS BLOB), kept, fresh, dropped FROM verdict;
        DROP TABLE verdict;
        {_EVENTS}
    """,
}


def run(db: sqlite3.Connection, statements: str) -> None:
    """Run statements in the current transaction."""
    # Not executescript(), which commits first.
    for statement in statements.split(";\n"):
        db.execute(statement)


def upgrade(db: sqlite3.Connection, version: int) -> None:
    """Upgrade the tables from a version, in the current transaction."""
    db.create_function("account_key", 1, lambda name: account_key(b"oqp", name))
    db.create_function("instance_key", 1, _instance_key)
    for each in range(version, VERSION):
        run(db, _UPGRADES[each])


def _instance_key(stored: bytes) -> bytes:
    """Return the key of an instance for one in which the part before the first dot was moved to the end."""
    time, dot, process = stored.rpartition(b".")
    return process + dot + time
