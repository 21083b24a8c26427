-- A live state of file version 3, as the service wrote it before a message had several charges. Limits: 9 in 1,000
-- seconds. Made with a clock that began at 1,700,000,000 (T), dumped with Python's Connection.iterdump():
--   T - 2000: carol 7
--   T: carol 1; bob 2 in message 1a2b.6553f100.5678.0, and a@example.net and b@example.net of 1a2b.6553f100.9abc.0;
--      alice 3 in 1a2b.6553f100.def0.0. For 86,400 seconds: bob may send as example.org, not as other.example;
--      check_spf of our.example is on, and so is its greylisting; "prepend" of 1a2b.6553f100.5678.0 has happened.
--      A verdict about bob and dropped.example was dropped. s@example.net from 192.0.2.0/24 to r@our.example deferred.
--   T + 400: bob 1 in 1a2b.6553f290.1111.0; the message that was deferred has passed.
BEGIN TRANSACTION;
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
INSERT INTO "account" VALUES(X'616C696365',4,3,1700000000.0,1700000000.0,9,1700000000.0,1700086400.0,0,1700001000.0);
INSERT INTO "account" VALUES(X'626F62',3,5,1700000400.0,1700000000.0,9,1700000000.0,1700086400.0,0,1700001400.0);
INSERT INTO "account" VALUES(X'6361726F6C',2,1,1700000000.0,1700000000.0,9,1699998000.0,1700084400.0,0,1700001000.0);
CREATE TABLE meeting (
    tuple INTEGER PRIMARY KEY,          -- digest of client, sender and recipient
    first REAL NOT NULL,
    last REAL NOT NULL,
    until REAL NOT NULL
);
INSERT INTO "meeting" VALUES(2574296711928028755,1700000000.0,1700000400.0,1700086860.0);
CREATE TABLE message (
    run INTEGER NOT NULL,
    instance BLOB NOT NULL,
    first REAL NOT NULL,                -- when it was first counted
    until REAL NOT NULL,
    cost INTEGER NOT NULL,
    seen BLOB NOT NULL,                 -- digests of the recipients counted, 8 bytes each
    PRIMARY KEY (instance, run)         -- ordered by time, so that the messages of a turn are on few pages
) WITHOUT ROWID;
INSERT INTO "message" VALUES(1,X'36353533653933302E312E302E31613262',1699998000.0,1699999000.0,7,X'');
INSERT INTO "message" VALUES(2,X'36353533663130302E312E302E31613262',1700000000.0,1700001000.0,1,X'');
INSERT INTO "message" VALUES(3,X'36353533663130302E353637382E302E31613262',1700000000.0,1700001000.0,2,X'');
INSERT INTO "message" VALUES(3,X'36353533663130302E396162632E302E31613262',1700000000.0,1700001000.0,2,X'C0049A026181816DB9DD6C2AFECC3403');
INSERT INTO "message" VALUES(4,X'36353533663130302E646566302E302E31613262',1700000000.0,1700001000.0,3,X'');
INSERT INTO "message" VALUES(3,X'36353533663239302E313131312E302E31613262',1700000400.0,1700001400.0,1,X'');
CREATE TABLE meta (
    counter INTEGER NOT NULL,           -- the last token or run; always increasing
    floor INTEGER NOT NULL,             -- highest "dropped" of the rows that were removed
    pings INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "meta" VALUES(5,0,0);
CREATE TABLE once (
    space BLOB NOT NULL,
    name BLOB NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (space, name)
) WITHOUT ROWID;
INSERT INTO "once" VALUES(X'70726570656E64',X'316132622E36353533663130302E353637382E30',1700086400.0);
CREATE TABLE tally (
    client BLOB NOT NULL,
    instance BLOB NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,                -- the tally expires with its latest row
    PRIMARY KEY (client, instance)
) WITHOUT ROWID;
INSERT INTO "tally" VALUES(X'3139322E302E322E302F3234',X'6732',1700000400.0,1700086800.0);
CREATE TABLE verdict (
    name BLOB PRIMARY KEY,              -- space, owner and name in one column: twice as fast as in three
    allowed INTEGER,
    kept REAL NOT NULL,                 -- as in account
    fresh REAL NOT NULL,
    dropped INTEGER NOT NULL
) WITHOUT ROWID;
INSERT INTO "verdict" VALUES(X'333A31313A7370666F75722E6578616D706C65636865636B5F737066',1,1700000000.0,1700086400.0,0);
INSERT INTO "verdict" VALUES(X'333A333A736461626F6264726F707065642E6578616D706C65',NULL,1700000000.0,1700000000.0,5);
INSERT INTO "verdict" VALUES(X'333A333A736461626F626578616D706C652E6F7267',1,1700000000.0,1700086400.0,0);
INSERT INTO "verdict" VALUES(X'333A333A736461626F626F746865722E6578616D706C65',0,1700000000.0,1700086400.0,0);
INSERT INTO "verdict" VALUES(X'393A303A00677265796C6973746F75722E6578616D706C65',1,1700000000.0,1700086400.0,0);
CREATE UNIQUE INDEX account_run ON account (run);
CREATE INDEX message_first ON message (run, first);
COMMIT;
PRAGMA application_id = 1128813655;
PRAGMA user_version = 3;
