"""The SQLite file of the embedded live state: opening it, its tables, and the keys for names."""

from __future__ import annotations

import sqlite3
from hashlib import blake2b

from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.security import sqlite_files
from chapps_tw.security.private_files import explain

MEMORY = ":memory:"

_VERSION = 3
# "CHTW": identifies this file among other SQLite files.
_APPLICATION = 0x43485457
_MAX_KEY = 512
# Small pages: a commit writes every changed page, and the rows of most users are on different pages.
PAGE = 2048
# Size in bytes to which the WAL is truncated when it is restarted.
_WAL_SIZE_LIMIT = 8 * 2**20
# Milliseconds to wait for locks of other processes. This blocks the reactor.
_BUSY_TIMEOUT = 200
# The same while tables are created or upgraded, which happens once per version.
_SETUP_BUSY_TIMEOUT = 5000

_MEETING = """
CREATE TABLE meeting (
    tuple INTEGER PRIMARY KEY,          -- digest of client, sender and recipient
    first REAL NOT NULL,
    last REAL NOT NULL,
    until REAL NOT NULL
);
"""

# Rows that expire have no index on their expiry, which would cost one more page per message. They are found by scanning
# the tables (see upkeep.py).
_SCHEMA = """
CREATE TABLE meta (
    counter INTEGER NOT NULL,           -- the last token or run; always increasing
    floor INTEGER NOT NULL,             -- highest "dropped" of the rows that were removed
    pings INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta (counter, floor) VALUES (0, 0);
CREATE TABLE account (
    name BLOB PRIMARY KEY,
    run INTEGER,                        -- of the account's messages; a new run discards all earlier ones
    used INTEGER NOT NULL DEFAULT 0,    -- total cost of the run's messages
    last REAL,                          -- when a new message was last counted
    oldest REAL,                        -- none of the run's messages is older
    quota INTEGER,                      -- cached limit
    kept REAL NOT NULL DEFAULT 0,       -- when the limit was cached; in the future if the clock was set back
    fresh REAL NOT NULL DEFAULT 0,      -- when the cached limit expires
    dropped INTEGER NOT NULL,           -- counter at the last invalidation
    until REAL NOT NULL                 -- when the row expires
) WITHOUT ROWID;
CREATE UNIQUE INDEX account_run ON account (run);
CREATE TABLE message (
    run INTEGER NOT NULL,
    instance BLOB NOT NULL,
    first REAL NOT NULL,                -- when it was first counted
    until REAL NOT NULL,
    cost INTEGER NOT NULL,
    seen BLOB NOT NULL,                 -- digests of the recipients counted, 8 bytes each
    PRIMARY KEY (instance, run)         -- ordered by time, so that the messages of a turn are on few pages
) WITHOUT ROWID;
CREATE INDEX message_first ON message (run, first);
CREATE TABLE verdict (
    name BLOB PRIMARY KEY,              -- space, owner and name in one column: twice as fast as in three
    allowed INTEGER,
    kept REAL NOT NULL,                 -- as in account
    fresh REAL NOT NULL,
    dropped INTEGER NOT NULL
) WITHOUT ROWID;
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
"""

# Upgrades from each version to the next. Greylist entries are discarded, counts are kept.
_UPGRADES = {
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
}


class StateTooNew(StateUnavailable):
    """The file was written by a later version."""


def key(name: str) -> bytes:
    """Return the key for a name: any text, distinct for distinct names, at most 512 bytes."""
    # surrogatepass is injective; surrogateescape would encode "\udcc3\udca9" and "é" alike.
    encoded = name.encode("utf-8", "surrogatepass")
    if len(encoded) <= _MAX_KEY:
        return encoded
    return b"\xff" + blake2b(encoded, digest_size=32).digest()


def readable(stored: bytes) -> str:
    """Return the name for a key; if the name was too long to be stored, its digest."""
    return stored[1:].hex() if stored[:1] == b"\xff" else stored.decode("utf-8", "surrogatepass")


def unavailable(path: str, error: sqlite3.Error) -> StateUnavailable:
    """Return the exception to raise for an error of SQLite."""
    return StateUnavailable(f"The live state in {path} cannot be used: {error}.")


def open_file(path: str) -> sqlite3.Connection:
    """Open the file. Creates it (mode 0600) and its directory (mode 0700) if they do not exist.

    :raises StateTooNew: if a later version wrote the file.
    :raises StateUnavailable: if it cannot be opened, or is not a live state.
    """
    try:
        if path != MEMORY:
            sqlite_files.create(path)
        db = connect(path, _BUSY_TIMEOUT)
    except OSError as error:
        raise StateUnavailable(f"The live state in {path} cannot be opened: {explain(path, error)}.") from error
    except sqlite3.Error as error:
        raise unavailable(path, error) from error
    try:
        _prepare(db, path)
    except sqlite3.Error as error:
        db.close()
        raise unavailable(path, error) from error
    except StateUnavailable:
        db.close()
        raise
    return db


def connect(path: str, busy_timeout: int) -> sqlite3.Connection:
    """Return a plain connection. ``busy_timeout`` is in milliseconds."""
    # Transactions begin explicitly; close() may be called from another thread than the reactor's.
    return sqlite3.connect(path, busy_timeout / 1000, isolation_level=None, check_same_thread=False)


def _prepare(db: sqlite3.Connection, path: str) -> None:
    found = _check(db, path)
    # Before WAL mode, in which the page size cannot be changed.
    db.execute(f"PRAGMA page_size = {PAGE}")
    sqlite_files.write_ahead(db)
    # A long WAL is truncated to this size, not to zero: overwriting is faster than extending.
    wal_size_limit = f"journal_size_limit = {_WAL_SIZE_LIMIT}"
    for pragma in ("synchronous = NORMAL", "wal_autocheckpoint = 0", "cache_size = -32000", wal_size_limit):
        db.execute(f"PRAGMA {pragma}").fetchall()
    if found < _VERSION:
        _make_tables(db, path)


def _make_tables(db: sqlite3.Connection, path: str) -> None:
    db.execute(f"PRAGMA busy_timeout = {_SETUP_BUSY_TIMEOUT}").fetchall()
    db.execute("BEGIN IMMEDIATE")
    # Check again under the lock: another process may have created them meanwhile.
    found = _check(db, path)
    if not found:
        _run(db, _SCHEMA + _MEETING)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
    else:
        for version in range(found, _VERSION):
            _run(db, _UPGRADES[version])
    db.execute(f"PRAGMA user_version = {_VERSION}")
    db.execute("COMMIT")
    db.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT}").fetchall()


def _run(db: sqlite3.Connection, statements: str) -> None:
    # Not executescript(), which commits first.
    for statement in statements.split(";\n"):
        db.execute(statement)


def _check(db: sqlite3.Connection, path: str) -> int:
    """Return the version of the tables, 0 if there are none."""
    if not db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]:
        return 0
    if db.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
        raise StateUnavailable(f"{path} is a database of another program: the live state needs its own file.")
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > _VERSION:
        raise StateTooNew(
            f"The live state in {path} has version {version}; this program supports version {_VERSION}. "
            "Run the program that wrote it, or move the file away to start with an empty state."
        )
    return version
