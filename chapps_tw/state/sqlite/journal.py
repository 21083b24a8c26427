"""The journal of changed messages: a row for each commit, until they are moved into the chunks of their accounts."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from typing import Final

from chapps_tw.state.sqlite import chunks, journal_rows
from chapps_tw.state.sqlite.columns import Row
from chapps_tw.state.sqlite.damage import is_damage
from chapps_tw.state.sqlite.journal_rows import Change, StoredRow

LONG: Final = 2**21
"""Size in bytes above which the journal should be folded without pauses."""

# What is done in a step, together under 2 ms: chunks that are written, with so many messages; bytes that are deleted.
_CHUNKS, _MESSAGES, _DELETED = 20, 800, 2**17


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

    def pop_chunk(self) -> list[Row]:
        """Remove and return the messages of the chunk that the first one is in, in order."""
        chunk = next(iter(self.rows)) // chunks.SIZE
        numbers = range(chunk * chunks.SIZE, (chunk + 1) * chunks.SIZE)
        wanted = list(self.rows) if len(self.rows) < chunks.SIZE else numbers
        return sorted(self.rows.pop(number) for number in wanted if number in numbers and number in self.rows)


class Journal:
    """Chunks and journal together are what was counted: a row is deleted when all that it says is in the chunks.

    It is deleted only together with all before it. The rest always goes up to the present, so that it leads to the
    same state from whatever the chunks have of it already.

    :ivar size: bytes of its rows in the file.
    """

    def __init__(self) -> None:
        # Accounts with a damaged chunk, for the life of this process.
        self._damaged: set[bytes] = set()
        # What could be read of a damaged journal, and the data_version of then.
        self._salvaged: tuple[int, list[StoredRow]] | None = None
        self.clear()

    def clear(self) -> None:
        """Forget everything, to read it again."""
        self.size = 0
        self._is_read = False
        self._next = 1
        # Number and bytes of each row in the file.
        self._rows: deque[tuple[int, int]] = deque()
        # By key, in order of ``first``.
        self._unfolded: OrderedDict[bytes, Unfolded] = OrderedDict()
        self._changes: list[Change] = []

    def read(self, db: sqlite3.Cursor) -> None:
        """Read it, unless that was done.

        :raises sqlite3.DatabaseError: if a part of it is damaged; the next time the other parts are used.
        """
        if self._is_read:
            return
        (version,) = db.execute("PRAGMA data_version").fetchone()
        if self._salvaged and self._salvaged[0] == version:
            found = self._salvaged[1]
        else:
            self._salvaged = None
            found, damage = journal_rows.read(db)
            if damage:
                self._salvaged = version, found
                raise damage
        for number, size, changes in found:
            self._note(number, size, changes)
        self._is_read = True

    def _mend(self, db: sqlite3.Cursor) -> None:
        """Replace the table if it is damaged."""
        if self._salvaged:
            journal_rows.replace(db, self._salvaged[1])
            self._salvaged = None

    @property
    def is_unfolded(self) -> bool:
        """Whether it has changes that may not be in the chunks, or rows to be deleted."""
        return bool(self._unfolded) or len(self._rows) > 1

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
        self._unfolded.pop(account, None)
        self._changes.append((account, -1.0, ()))

    def write(self, db: sqlite3.Cursor) -> None:
        """Write what was added."""
        if self._changes:
            self._append(db, self._changes)
            self._changes = []

    def _append(self, db: sqlite3.Cursor, changes: Sequence[Change]) -> None:
        self.read(db)
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

        :raises sqlite3.DatabaseError: if a chunk is damaged. Its account is not folded again.
        """
        self.read(db)
        self._mend(db)
        end, steps, messages = self._next, 1 + self.size // LONG // 2, 0
        for _ in range(_CHUNKS * steps):
            account, oldest = next(iter(self._unfolded.items()), (b"", None))
            if oldest is None or oldest.first >= end or messages >= _MESSAGES * steps:
                break
            if account in self._damaged:
                # It moves to the end, so that it is not in the way.
                del self._unfolded[account]
                self._append(db, [(account, oldest.keep, list(oldest.rows.values()))])
            else:
                messages += self._fold(db, account, oldest)
        self._delete_folded(db)

    def _fold(self, db: sqlite3.Cursor, account: bytes, oldest: Unfolded) -> int:
        """Fold one chunk of an account; return the number of messages."""
        rows = oldest.pop_chunk() if oldest.rows else []
        if rows:
            try:
                chunks.merge(db, account, oldest.keep, rows)
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    self._damaged.add(account)
                raise
        if not oldest.rows:
            del self._unfolded[account]
        return len(rows)

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
