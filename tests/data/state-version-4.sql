-- A live state of file version 4, as the service wrote it when each message was a row. Made with a clock that began at
-- 1,700,000,000 (T), dumped with Python's Connection.iterdump(). Limits: 9 in 1,000 seconds.
--   T - 2000: carol 7
--   T: carol 1; bob 2 in message 1a2b.6553f100.5678.0, and a@example.net and b@example.net of 1a2b.6553f100.9abc.0;
--      alice 3 in 1a2b.6553f100.def0.0; dave 1 in a message whose instance is 600 times "x", 1 in a message without an
--      instance, and a@example.net of 1a2b.6553f100.7777.0, reserved for 700 s; erin 1 in 1a2b.6553f100.8888.0, also
--      in 86,400 seconds, and a@example.net as a distinct recipient.
--   T + 400: bob 1 in 1a2b.6553f290.1111.0; erin 1 in 1a2b.6553f290.2222.0.
BEGIN TRANSACTION;
CREATE TABLE event (
    number INTEGER PRIMARY KEY,
    event BLOB NOT NULL
);
CREATE TABLE meeting (
    tuple INTEGER PRIMARY KEY,          -- digest of client, sender and recipient
    first REAL NOT NULL,
    last REAL NOT NULL,
    until REAL NOT NULL
);
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
INSERT INTO "message" VALUES(X'1428B998A34BC8F5437211C39FC92058',0,X'316132622E36353533663030302E312E30',1699998000.0,1000.0,7,X'',0.0);
INSERT INTO "message" VALUES(X'1428B998A34BC8F5437211C39FC92058',1,X'316132622E36353533663130302E313233342E30',1700000000.0,1000.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'946F371293CBF29CE0527BD150966BBC',0,X'316132622E36353533663130302E383838382E30',1700000000.0,86400.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'946F371293CBF29CE0527BD150966BBC',1,X'316132622E36353533663239302E323232322E30',1700000400.0,86400.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'B68A24FDF6848B5EDBBFDDDCAD6B8EB9',0,X'316132622E36353533663130302E353637382E30',1700000000.0,1000.0,2,X'',0.0);
INSERT INTO "message" VALUES(X'B68A24FDF6848B5EDBBFDDDCAD6B8EB9',1,X'316132622E36353533663130302E396162632E30',1700000000.0,1000.0,2,X'C0049A026181816DB9DD6C2AFECC3403',0.0);
INSERT INTO "message" VALUES(X'B68A24FDF6848B5EDBBFDDDCAD6B8EB9',2,X'316132622E36353533663239302E313131312E30',1700000400.0,1000.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'C38DE086CF53A85F69CB55D2F7232CFE',0,X'FFBA8EBF47B83FBA1CDD0628D0431966718D2DFB5FB97A00C21A28430BB62936F5',1700000000.0,1000.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'C38DE086CF53A85F69CB55D2F7232CFE',1,X'FE520F42B1811C1D24CDF8123AF89A61',1700000000.0,1000.0,1,X'',0.0);
INSERT INTO "message" VALUES(X'C38DE086CF53A85F69CB55D2F7232CFE',2,X'316132622E36353533663130302E373737372E30',1700000000.0,1000.0,1,X'C0049A026181816D',1700000700.0);
INSERT INTO "message" VALUES(X'F12215373B22B176BDF1BA83372DF4BD',0,X'316132622E36353533663130302E646566302E30',1700000000.0,1000.0,3,X'',0.0);
CREATE TABLE meta (
    counter INTEGER NOT NULL,           -- the last token; always increasing
    floor INTEGER NOT NULL,             -- highest "dropped" of the rows that were removed
    pings INTEGER NOT NULL DEFAULT 0
);
INSERT INTO "meta" VALUES(0,0,0);
CREATE TABLE once (
    space BLOB NOT NULL,
    name BLOB NOT NULL,
    until REAL NOT NULL,
    PRIMARY KEY (space, name)
) WITHOUT ROWID;
CREATE TABLE recipient (
    account BLOB NOT NULL,
    recipient BLOB NOT NULL,            -- digest
    at REAL NOT NULL,                   -- of the last message to it
    keep REAL NOT NULL,
    PRIMARY KEY (account, recipient)
) WITHOUT ROWID;
INSERT INTO "recipient" VALUES(X'946F371293CBF29CE0527BD150966BBC',X'C0049A026181816D',1700000000.0,1000.0);
CREATE TABLE tally (
    client BLOB NOT NULL,
    instance BLOB NOT NULL,
    at REAL NOT NULL,
    until REAL NOT NULL,                -- the tally expires with its latest row
    PRIMARY KEY (client, instance)
) WITHOUT ROWID;
CREATE TABLE value (
    name BLOB PRIMARY KEY,              -- space, owner and name in one column: twice as fast as in three
    value BLOB,
    kept REAL NOT NULL,                 -- when it was cached; in the future if the clock was set back
    fresh REAL NOT NULL,                -- when it expires
    dropped INTEGER NOT NULL            -- counter at the last invalidation
) WITHOUT ROWID;
PRAGMA application_id = 1128813655;
PRAGMA user_version = 4;
COMMIT;
