"""The tables of the state file, and the upgrades from earlier versions."""

from __future__ import annotations

import sqlite3
from itertools import groupby
from typing import Final

from chapps_tw.state.sqlite.chunks import SIZE, merge
from chapps_tw.state.sqlite.keys import account_key

VERSION: Final = 5

_MEETING = """
CREATE TABLE meeting (
    tuple INTEGER PRIMARY KEY,          -- digest of client, sender and recipient
    first REAL NOT NULL,
    last REAL NOT NULL,
    until REAL NOT NULL
);
"""

# Messages up to version 4.
_MESSAGES = """
CREATE TABLE message (
    account BLOB NOT NULL,
    number INTEGER NOT NULL,
    instance BLOB NOT NULL,
    at REAL NOT NULL,
    keep REAL NOT NULL,
    cost INTEGER NOT NULL,
    seen BLOB NOT NULL,
    settle REAL NOT NULL,
    PRIMARY KEY (account, number)
) WITHOUT ROWID;
"""

_RECIPIENTS = """
CREATE TABLE recipient (
    account BLOB NOT NULL,
    recipient BLOB NOT NULL,            -- digest
    at REAL NOT NULL,                   -- of the last message to it
    keep REAL NOT NULL,
    PRIMARY KEY (account, recipient)
) WITHOUT ROWID;
"""

# What was counted is in both together: a commit writes one row of the journal, which is moved into the chunks later.
JOURNAL: Final = """
CREATE TABLE journal (
    number INTEGER PRIMARY KEY,
    changes BLOB NOT NULL               -- see journal.py
)"""
_CHUNKS = f"""{JOURNAL};
CREATE TABLE chunk (
    account BLOB NOT NULL,              -- digest of its space and name
    chunk INTEGER NOT NULL,             -- in order of time
    last REAL NOT NULL,                 -- when the last of its messages was counted
    keep REAL NOT NULL,                 -- for so many seconds they may count
    data BLOB NOT NULL,                 -- see chunks.py
    PRIMARY KEY (account, chunk)
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
{_CHUNKS}{_RECIPIENTS}{_VALUES}{_EVENTS}{_MEETING}"""

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
        {_MESSAGES}{_RECIPIENTS}
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
    4: _CHUNKS,
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
        if each == 4:
            _move_into_chunks(db)


def _move_into_chunks(db: sqlite3.Connection) -> None:
    rows = db.execute("SELECT * FROM message ORDER BY account, number")
    for (account, _), each in groupby(rows, lambda row: (row[0], row[1] // SIZE)):
        messages = list(each)
        keep = max(row[4] for row in messages)
        changes = [(row[1], _message_key(row[2]), row[3], *row[5:]) for row in messages]
        merge(db.cursor(), account, keep, changes)
    db.execute("DROP TABLE message")


def _message_key(stored: bytes) -> bytes:
    """Return the key of a message for one of version 4; it had other digests, and no unique ones."""
    if stored[:1] == b"\xff":
        return b"\xfe" + stored[1:].hex().encode()
    return b"" if stored[:1] == b"\xfe" else stored


def _instance_key(stored: bytes) -> bytes:
    """Return the key of an instance for one in which the part before the first dot was moved to the end."""
    time, dot, process = stored.rpartition(b".")
    return process + dot + time
