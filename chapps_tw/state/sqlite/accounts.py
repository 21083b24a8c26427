"""The accounts: read from the file when they are first used, kept in memory, and written before each commit."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from typing import Final, TypeAlias

from chapps_tw.interfaces.adoption import PastCounts
from chapps_tw.interfaces.state import Account
from chapps_tw.state.sqlite.account import CountedAccount
from chapps_tw.state.sqlite.claims import MAX_UNITS
from chapps_tw.state.sqlite.columns import Row
from chapps_tw.state.sqlite.journal import LONG, Journal
from chapps_tw.state.sqlite.keys import account_key, key, message_key
from chapps_tw.state.sqlite.recipients import RecipientAccount

AnyAccount: TypeAlias = CountedAccount | RecipientAccount

MAX_BYTES: Final = 96 * 2**20
"""Size of the accounts in memory, by estimate. Those of one turn may exceed it."""


class Accounts:
    """The accounts in the file, and in memory those that were used last.

    :param max_bytes: size of the memory, by estimate.
    :ivar changes: number of changes so far.
    """

    def __init__(self, max_bytes: int) -> None:
        self.changes = 0
        self._max_bytes = max_bytes
        self._size = 0
        # By name, and whether distinct recipients are counted; in order of the turns in which they were used.
        self._accounts: OrderedDict[tuple[Account, bool], AnyAccount] = OrderedDict()
        self._changed: set[AnyAccount] = set()
        self._turn = 1
        self._journal = Journal()

    def clear(self) -> None:
        """Forget all accounts, and all changes that are not written."""
        self._accounts.clear()
        self._changed.clear()
        self._journal.clear()
        self._size = 0

    def find(self, db: sqlite3.Cursor, now: float, name: Account, is_distinct: bool) -> AnyAccount:
        """Return an account as it is now."""
        wanted = (name, is_distinct)
        account = self._accounts.get(wanted)
        if account is None:
            kind = RecipientAccount if is_distinct else CountedAccount
            stored = account_key(key(name.space), key(name.name))
            account = self._accounts[wanted] = kind.read(db, self._journal, stored, now)
            self._account_for(account)
        if account.turn != self._turn:
            account.turn = self._turn
            self._accounts.move_to_end(wanted)
        account.advance(now)
        if account.changed:
            # The clock was set back.
            self._changed.add(account)
        return account

    def adopt(self, db: sqlite3.Cursor, now: float, counts: PastCounts) -> int:
        """Count messages of the past in an account; return how many were new."""
        account = self.find(db, now, counts.account, False)
        assert isinstance(account, CountedAccount)
        found = {message_key(instance): (min(at, now), amount) for instance, at, amount in counts.messages}
        past: list[Row] = [
            (0, instance, at, min(amount, MAX_UNITS), b"", 0.0)
            for instance, (at, amount) in found.items()
            if at > now - counts.window and not account.counts(instance)
        ]
        if past:
            adopted = account.adopt(past, counts.window)
            self._replace((counts.account, False), account, adopted)
            self.note(adopted)
        return len(past)

    def _replace(self, wanted: tuple[Account, bool], account: AnyAccount, other: AnyAccount) -> None:
        if other is not account:
            other.turn, other.accounted = account.turn, account.accounted
            self._changed.discard(account)
            self._accounts[wanted] = other

    def note(self, account: AnyAccount) -> None:
        """Note that an account has changed."""
        self.changes += 1
        self._changed.add(account)

    def write(self, db: sqlite3.Cursor) -> None:
        """Write all changes to the file."""
        for account in self._changed:
            account.write(db, self._journal)
            self._account_for(account)
        self._changed.clear()
        self._journal.write(db)
        self.trim()

    def committed(self) -> None:
        """Note that what was written is committed."""
        self._journal.committed()

    def trim(self) -> None:
        """Begin a turn: forget accounts that were not used for longest, until the others fit.

        Those used since the last time stay: a large one that all mail counts in would be read again for each message.
        """
        if self._size > self._max_bytes and not self._changed:
            while self._size > self._max_bytes and self._accounts:
                name, account = next(iter(self._accounts.items()))
                if account.turn == self._turn:
                    break
                del self._accounts[name]
                self._size -= account.accounted
        self._turn += 1

    def read(self, db: sqlite3.Cursor) -> None:
        """Read the journal, so that the first request need not wait for it.

        :raises sqlite3.DatabaseError: if it is damaged.
        """
        self._journal.read(db)

    @property
    def is_unfolded(self) -> bool:
        """Whether there is something to fold."""
        return self._journal.is_unfolded

    @property
    def is_long(self) -> bool:
        """Whether the journal is to be folded without pauses."""
        return self._journal.size > LONG

    def fold(self, db: sqlite3.Cursor) -> None:
        """Move a part of the journal into the accounts in the file.

        :raises sqlite3.DatabaseError: as in :meth:`~chapps_tw.state.sqlite.journal.Journal.fold`.
        """
        # If it fails half way, all of it has to be taken back.
        self.changes += 1
        self._journal.fold(db)

    def delete(self, db: sqlite3.Cursor, name: Account, is_distinct: bool) -> None:
        """Delete all counts of an account that was just found."""
        account = self._accounts.pop((name, is_distinct))
        self.changes += 1
        self._size -= account.accounted
        self._changed.discard(account)
        account.delete(db, self._journal)

    def _account_for(self, account: AnyAccount) -> None:
        size = account.size
        self._size += size - account.accounted
        account.accounted = size
