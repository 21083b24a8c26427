"""The journal of the SQLite state, the chunks that it is folded into, and damage of both."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from random import Random

import pytest

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit, Window
from chapps_tw.state.sqlite import chunks, journal, spending
from chapps_tw.state.sqlite.accounts import Accounts
from chapps_tw.state.sqlite.encoding import Damaged
from chapps_tw.state.sqlite.schema import SCHEMA, run
from tests.support.sqlite_case import stored

START = 1_700_000_000.0
HOUR = 3600.0
KEYS = {"chunk": "account", "journal": "number"}


class Case:
    """Accounts with their tables, and a clock."""

    def __init__(self, db: sqlite3.Cursor) -> None:
        self.db = db
        self.now = START
        self.accounts = Accounts(2**20)

    def spend(self, name: str, *instances: str, window: float = HOUR) -> int:
        """Count messages of a user in one commit; return what the window contains."""
        charge = Charge(Account("oqp", name), Unit.MESSAGES, 1, 10**6, window)
        for instance in instances:
            spent = spending.spend(self.db, self.now, self.accounts, Message(instance, "", True), [charge])
            assert spent.outcome in (Outcome.ACCEPTED, Outcome.REPEATED)
        self.accounts.write(self.db)
        return spent.used[0]

    def used(self, *names: str) -> list[int]:
        """Return what the windows of users contain, read from the file."""
        self.accounts.clear()
        windows = [Window(Account("oqp", name), Unit.MESSAGES, HOUR) for name in names]
        return [usage.used for usage in spending.usage(self.db, self.now, self.accounts, windows)]

    def reset(self, name: str) -> None:
        spending.reset(self.db, self.now, self.accounts, [Window(Account("oqp", name), Unit.MESSAGES, HOUR)])
        self.accounts.write(self.db)

    def fold(self) -> None:
        """Move everything into the chunks."""
        while self.accounts.is_unfolded:
            self.accounts.fold(self.db)

    def count(self, table: str) -> int:
        return int(self.db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


@pytest.fixture
def case() -> Iterator[Case]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    run(db, SCHEMA)
    yield Case(db.cursor())
    db.close()


def test_a_commit_writes_one_row_whatever_number_of_accounts_changed(case: Case) -> None:
    for name in ("ann", "bob", "eve"):
        charge = Charge(Account("oqp", name), Unit.MESSAGES, 1, 10, HOUR)
        spending.spend(case.db, case.now, case.accounts, Message("i", "", True), [charge])
    case.accounts.write(case.db)
    assert (case.count("journal"), case.count("chunk")) == (1, 0)
    case.accounts.write(case.db)
    assert case.count("journal") == 1
    assert case.used("ann", "bob", "eve") == [1, 1, 1]


def test_folding_leaves_a_row_for_each_chunk_and_the_last_row_of_the_journal(case: Case) -> None:
    for number in range(chunks.SIZE + 10):
        case.spend("bob", str(number))
    case.fold()
    assert (case.count("journal"), case.count("chunk")) == (1, 2)
    assert case.used("bob") == [chunks.SIZE + 10]


def test_the_file_has_everything_after_each_step_of_folding(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_STEP", 1)
    monkeypatch.setattr(journal, "_DELETED", 1)
    monkeypatch.setattr(chunks, "SIZE", 4)
    draw, names = Random(1), ("ann", "bob", "eve")
    model: dict[str, set[str]] = {name: set() for name in names}
    for number in range(600):
        name = draw.choice(names)
        match draw.randrange(8):
            case 0 if not draw.randrange(10):
                case.reset(name)
                model[name].clear()
            case 1 | 2 | 3:
                case.accounts.fold(case.db)
            case _:
                # Some are repeated.
                instances = [str(number - draw.randrange(5)) for _ in range(draw.randrange(1, 4))]
                case.spend(name, *instances)
                model[name].update(instances)
        assert case.used(*names) == [len(model[name]) for name in names]
    case.fold()
    assert case.used(*names) == [len(model[name]) for name in names]
    assert case.count("journal") == 1


def test_messages_that_have_left_all_windows_are_removed_from_their_chunk(case: Case) -> None:
    for number in range(20):
        case.spend("bob", str(number))
        case.now += HOUR / 4
        case.fold()
    case.db.execute("DELETE FROM journal")
    assert len(stored(case.db.connection)) == 4
    assert case.used("bob") == [3]


def test_what_was_reset_does_not_come_back_from_the_journal(case: Case) -> None:
    case.spend("ann", "first")
    case.spend("bob", "a", "b")
    case.reset("bob")
    assert case.used("bob") == [0]
    assert case.spend("bob", "c") == 1
    case.fold()
    assert case.used("ann", "bob") == [1, 1]


def test_a_longer_window_keeps_what_is_folded_and_what_is_not(case: Case) -> None:
    case.spend("bob", "a")
    case.fold()
    case.spend("bob", "b")
    case.spend("bob", "b", window=10 * HOUR)
    case.now += 5 * HOUR
    case.accounts.clear()
    assert case.spend("bob", "c", window=10 * HOUR) == 3
    case.fold()
    case.accounts.clear()
    assert case.spend("bob", "d", window=10 * HOUR) == 4


def test_an_account_that_is_not_in_memory_is_folded(case: Case) -> None:
    case.spend("bob", "a")
    case.accounts.clear()
    case.accounts.read(case.db)
    case.fold()
    assert case.count("chunk") == 1
    assert case.used("bob") == [1]


def spoil(case: Case, table: str, column: str) -> None:
    """Change a byte in the value of the first row, of which SQLite itself knows nothing."""
    key, value = case.db.execute(f"SELECT {KEYS[table]}, {column} FROM {table} LIMIT 1").fetchone()
    changed = value[:-1] + bytes([value[-1] ^ 1])
    case.db.execute(f"UPDATE {table} SET {column} = ? WHERE {KEYS[table]} = ?", (changed, key))


def test_a_chunk_with_a_changed_byte_fails_only_its_account(case: Case) -> None:
    for name in ("ann", "bob"):
        case.spend(name, "a")
        case.fold()
    spoil(case, "chunk", "data")
    results = []
    for name in ("ann", "bob"):
        try:
            results += case.used(name)
        except Damaged:
            results.append(-1)
    assert sorted(results) == [-1, 1]


def test_an_account_with_a_damaged_chunk_does_not_hold_up_the_others(case: Case) -> None:
    case.spend("ann", "a")
    case.fold()
    case.spend("ann", "b")
    for number in range(50):
        case.spend(f"user{number}", "a")
    spoil(case, "chunk", "data")
    with pytest.raises(Damaged):
        case.accounts.fold(case.db)
    # As GroupCommit does after each error.
    case.accounts.clear()
    case.accounts.read(case.db)
    for _ in range(20):
        case.accounts.fold(case.db)
    assert case.count("chunk") == 51
    assert case.used(*(f"user{number}" for number in range(50))) == [1] * 50
    # What could not be folded is still there.
    assert sorted(stored_in_journal(case)) == [0, 1]
    assert case.count("journal") == 1


def stored_in_journal(case: Case) -> list[int]:
    again = journal.Journal()
    again.read(case.db)
    return [number for each in again._unfolded.values() for number in each.rows]


def test_of_a_damaged_journal_the_rest_is_used_and_written_to_a_new_table(case: Case) -> None:
    for name in ("ann", "bob", "eve"):
        case.spend(name, "a")
    spoil(case, "journal", "changes")
    with pytest.raises(Damaged):
        case.used("ann")
    assert case.used("ann", "bob", "eve") == [0, 1, 1]
    # Reading again does not fail again, whether or not it was written in between.
    assert case.used("bob") == [1]
    assert case.spend("bob", "b") == 2
    assert case.used("ann", "bob", "eve") == [0, 2, 1]
    assert case.count("journal") == 2
    case.fold()
    assert case.used("ann", "bob", "eve") == [0, 2, 1]
    assert case.count("journal") == 1


def test_the_journal_stays_short_while_messages_come_faster_than_a_step_folds_them(case: Case) -> None:
    longest = 0
    for number in range(60):
        case.spend(f"user{number}", *(f"{number}.{each}" + 400 * "x" for each in range(1500)))
        case.accounts.fold(case.db)
        longest = max(longest, case.accounts._journal.size)
    assert journal.LONG < longest < 3 * journal.LONG
