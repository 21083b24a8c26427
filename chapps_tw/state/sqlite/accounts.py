"""The accounts: read from the file when they are first used, kept in memory, and written before each commit."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from typing import Any, Final, TypeAlias

from chapps_tw.interfaces.state import Account
from chapps_tw.state.sqlite.account import CountedAccount
from chapps_tw.state.sqlite.keys import account_key, key
from chapps_tw.state.sqlite.recipients import RecipientAccount

AnyAccount: TypeAlias = CountedAccount | RecipientAccount

MAX_BYTES: Final = 96 * 2**20
"""Size of the accounts in memory, by estimate. Those of one turn may exceed it."""

_SELECT = {
    "message": """
        SELECT * FROM message WHERE account = ? ORDER BY number""",
    "recipient": "SELECT * FROM recipient WHERE account = ? ORDER BY at",
}
_WRITE = {
    "message": """
        INSERT OR REPLACE INTO message (account, number, instance, at, keep, cost, seen, settle)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)""",
    "recipient": "INSERT OR REPLACE INTO recipient (account, recipient, at, keep) VALUES (?, ?, ?, ?)",
}


class Accounts:
    """The accounts in the file, and in memory those that were used last.

    :param max_bytes: size of the memory, by estimate.
    :ivar changes: number of changes so far.
    """

    def __init__(self, max_bytes: int) -> None:
        self.changes = 0
        self._max_bytes = max_bytes
        self._size = 0
        # By name, and whether distinct recipients are counted; in order of use.
        self._accounts: OrderedDict[tuple[Account, bool], AnyAccount] = OrderedDict()
        self._changed: set[AnyAccount] = set()
        # Used since the memory was last trimmed.
        self._recent: set[tuple[Account, bool]] = set()

    def clear(self) -> None:
        """Forget all accounts, and all changes that are not written."""
        self._accounts.clear()
        self._changed.clear()
        self._recent.clear()
        self._size = 0

    def find(self, db: sqlite3.Cursor, now: float, name: Account, is_distinct: bool) -> AnyAccount:
        """Return an account as it is now."""
        wanted = (name, is_distinct)
        self._recent.add(wanted)
        account = self._accounts.get(wanted)
        if account is None:
            account = self._accounts[wanted] = _read(db, now, name, is_distinct)
            self._account_for(account)
        else:
            self._accounts.move_to_end(wanted)
        account.advance(now)
        if account.changed:
            # The clock was set back.
            self._changed.add(account)
        return account

    def note(self, account: AnyAccount) -> None:
        """Note that an account has changed."""
        self.changes += 1
        self._changed.add(account)

    def write(self, db: sqlite3.Cursor) -> None:
        """Write all changes to the file."""
        rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in _WRITE}
        for account in self._changed:
            if account.widened:
                _widen(db, account)
            rows[account.table] += account.rows()
            account.changed.clear()
            self._account_for(account)
        for table, statement in _WRITE.items():
            if rows[table]:
                db.executemany(statement, rows[table])
        self._changed.clear()
        self.trim()

    def trim(self) -> None:
        """Forget accounts that were not used for longest, until the others fit.

        Those used since the last time stay: a large one that all mail counts in would be read again for each message.
        """
        if self._size > self._max_bytes and not self._changed:
            while self._size > self._max_bytes and len(self._accounts) > len(self._recent):
                _, account = self._accounts.popitem(last=False)
                self._size -= account.accounted
        self._recent.clear()

    def delete(self, db: sqlite3.Cursor, name: Account, is_distinct: bool) -> None:
        """Delete all counts of an account that was just found."""
        account = self._accounts.pop((name, is_distinct))
        self._recent.discard((name, is_distinct))
        self._size -= account.accounted
        self._changed.discard(account)
        db.execute(f"DELETE FROM {account.table} WHERE account = ?", (account.key,))

    def _account_for(self, account: AnyAccount) -> None:
        size = account.size
        self._size += size - account.accounted
        account.accounted = size


def _read(db: sqlite3.Cursor, now: float, name: Account, is_distinct: bool) -> AnyAccount:
    kind = RecipientAccount if is_distinct else CountedAccount
    stored = account_key(key(name.space), key(name.name))
    return kind(stored, db.execute(_SELECT[kind.table], (stored,)), now)


def _widen(db: sqlite3.Cursor, account: AnyAccount) -> None:
    """Have all counts of an account kept for longer."""
    change = f"UPDATE {account.table} SET keep = ? WHERE account = ? AND keep < ?"
    db.execute(change, (account.keep, account.key, account.keep))
    account.widened = False
