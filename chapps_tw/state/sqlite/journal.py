"""The journal of changed messages: a row for each commit, until they are moved into the chunks of their accounts."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from itertools import groupby, islice
from typing import Final

from chapps_tw.state.sqlite import chunks, journal_rows
from chapps_tw.state.sqlite.columns import Row
from chapps_tw.state.sqlite.damage import is_damage
from chapps_tw.state.sqlite.journal_rows import Change

LONG: Final = 2**21
"""Size in bytes above which the journal should be folded without pauses: it is read in less than 100 ms."""

# The cost of a step of folding, in messages: together some 1.5 ms. A chunk that is written costs this in addition.
_STEP, _CHUNK_COST = 1500, 50
# Bytes that are deleted in a step.
_DELETED = 2**17


class Unfolded:
    """What the journal has of an account, while its chunks may not have it.

    :param first: number of the first row of the journal with a part of it.
    :ivar keep: for how many seconds messages have to be kept.
    :ivar rows: by number.
    """

    __slots__ = ("first", "keep", "rows")

    def __init__(self, first: int) -> None:
        self.first = first
        self.keep = 0.0
        self.rows: dict[int, Row] = {}


class Journal:
    """Chunks and journal together are what was counted: a row is deleted when all that it says is in the chunks.

    It is deleted only together with all before it. The rest always goes up to the present, so that it leads to the
    same state from whatever the chunks have of it already.

    :ivar size: bytes of its rows in the file.
    """

    def __init__(self) -> None:
        # Accounts with a damaged chunk, for the life of this process.
        self._damaged: set[bytes] = set()
        self._forget()

    def _forget(self) -> None:
        self.size = 0
        # The connection and its data_version when it was read.
        self._version: tuple[sqlite3.Connection, int] | None = None
        self._is_read = self._is_modified = self._is_damaged = False
        self._next = 1
        # Number and bytes of each row in the file.
        self._rows: deque[tuple[int, int]] = deque()
        # By key, in order of ``first``.
        self._unfolded: OrderedDict[bytes, Unfolded] = OrderedDict()
        self._changes: list[Change] = []

    def clear(self) -> None:
        """Forget what is not committed. The rest is read again if another process has written."""
        if self._is_modified:
            self._forget()
        self._changes = []
        self._is_read = False

    def committed(self) -> None:
        """Note that everything is committed."""
        self._is_modified = False

    def read(self, db: sqlite3.Cursor) -> None:
        """Read it, unless that was done.

        :raises sqlite3.DatabaseError: if a part of it is damaged; the next time the other parts are used.
        """
        if self._is_read:
            return
        version = db.connection, db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._forget()
            rows, damage = journal_rows.read(db)
            for number, size, changes in rows:
                self._note(number, size, changes)
            self._version = version
            if damage:
                self._is_damaged = True
                raise damage
        self._is_read = True

    def _mend(self, db: sqlite3.Cursor) -> None:
        """Replace the table if it is damaged: write what could be read to a new one."""
        if self._is_damaged:
            self._is_damaged = False
            journal_rows.replace(db, self._next)
            self._rows.clear()
            self.size = 0
            self._carry_over(db, list(self._unfolded))

    def _carry_over(self, db: sqlite3.Cursor, accounts: Sequence[bytes]) -> None:
        """Write what the journal has of accounts again, so that the rows before are not needed for them."""
        every = [(account, self._unfolded.pop(account)) for account in accounts]
        if every:
            self._append(db, [(account, each.keep, list(each.rows.values())) for account, each in every])

    @property
    def is_unfolded(self) -> bool:
        """Whether it may have changes that can be moved into the chunks, or rows that can be deleted."""
        return not self._version or len(self._rows) > 1 or not self._unfolded.keys() <= self._damaged

    def unfolded(self, db: sqlite3.Cursor, account: bytes) -> Unfolded | None:
        """Return what the chunks of an account may not have. Raises what :meth:`read` does."""
        self.read(db)
        return self._unfolded.get(account)

    def add(self, account: bytes, keep: float, rows: Sequence[Row], is_new: bool) -> None:
        """Add changes of an account to the next row.

        :param keep: for how many seconds its messages have to be kept; more than 0.
        :param is_new: whether everything before is deleted.
        """
        self._changes.append((account, -keep if is_new else keep, rows))

    def delete(self, account: bytes) -> None:
        """Delete everything of an account, with the next row."""
        self._is_modified = True
        self._unfolded.pop(account, None)
        self._changes.append((account, -1.0, ()))

    def write(self, db: sqlite3.Cursor) -> None:
        """Write what was added."""
        if self._changes:
            self._append(db, self._changes)
            self._changes = []

    def _append(self, db: sqlite3.Cursor, changes: Sequence[Change]) -> None:
        self.read(db)
        self._is_modified = True
        self._mend(db)
        self._note(self._next, journal_rows.insert(db, self._next, changes), changes)

    def _note(self, number: int, size: int, changes: Iterable[Change]) -> None:
        self._next = number + 1
        self._rows.append((number, size))
        self.size += size
        for account, keep, rows in changes:
            if keep < 0:
                self._unfolded.pop(account, None)
            found = self._unfolded.get(account)
            if found is None:
                found = self._unfolded[account] = Unfolded(number)
            found.keep = abs(keep)
            for row in rows:
                found.rows[row[0]] = row

    def fold(self, db: sqlite3.Cursor) -> None:
        """Move the oldest changes into the chunks; more of them where they come faster than that.

        :raises sqlite3.DatabaseError: if a chunk is damaged; its account is not folded again, and nothing is changed.
        """
        self.read(db)
        self._mend(db)
        folded = self._merge(db)
        # Not before: if a chunk was damaged, there is nothing to be read again.
        self._is_modified = True
        for account, rows in folded:
            left = self._unfolded[account].rows
            for row in rows:
                del left[row[0]]
            if not left:
                del self._unfolded[account]
        # They would be in the way.
        self._carry_over(db, [account for account in self._damaged if account in self._unfolded])
        self._delete_folded(db)

    def _merge(self, db: sqlite3.Cursor) -> list[tuple[bytes, list[Row]]]:
        """Put the oldest changes into the chunks; return them by account."""
        folded: list[tuple[bytes, list[Row]]] = []
        cost = _STEP * (1 + max(0, self.size - LONG) // (LONG // 2))
        for account, oldest in self._unfolded.items():
            if cost <= 0:
                break
            if account not in self._damaged:
                for rows in _by_chunk(sorted(islice(oldest.rows.values(), cost))):
                    if cost > 0:
                        self._merge_chunk(db, account, oldest.keep, rows)
                        folded.append((account, rows))
                        cost -= _CHUNK_COST + len(rows)
        return folded

    def _merge_chunk(self, db: sqlite3.Cursor, account: bytes, keep: float, rows: list[Row]) -> None:
        try:
            if rows:
                chunks.merge(db, account, keep, rows)
        except sqlite3.DatabaseError as error:
            if is_damage(error):
                self._damaged.add(account)
            raise

    def _delete_folded(self, db: sqlite3.Cursor) -> None:
        """Delete the first rows, if all that they say is in the chunks; never the last one, whose number counts on."""
        oldest = next(iter(self._unfolded.values()), None)
        end = oldest.first if oldest else self._next - 1
        gone = 0
        while self._rows and self._rows[0][0] < end and gone < _DELETED:
            gone += self._rows.popleft()[1]
        if gone:
            self.size -= gone
            db.execute("DELETE FROM journal WHERE number < ?", (self._rows[0][0],))


def _by_chunk(rows: list[Row]) -> list[list[Row]]:
    """Return rows, in order of their numbers, for each chunk; one empty list if there are none."""
    return [list(each) for _, each in groupby(rows, lambda row: row[0] // chunks.SIZE)] or [[]]
