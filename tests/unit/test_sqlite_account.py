"""What the accounts of the SQLite state keep in memory, and what they write to the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

import pytest

from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Account, Charge, Message, Unit, Window
from chapps_tw.state.sqlite import spending
from chapps_tw.state.sqlite.accounts import Accounts
from chapps_tw.state.sqlite.chunks import SIZE
from chapps_tw.state.sqlite.schema import SCHEMA, run
from tests.support.sqlite_case import stored

START = 1_700_000_000.0
HOUR, DAY = 3600.0, 86400.0
BOB = Account("oqp", "bob")


class Case:
    """Accounts with their tables, and a clock."""

    def __init__(self, db: sqlite3.Cursor) -> None:
        self.db = db
        self.now = START
        self.accounts = Accounts(2**20)

    def spend(self, instance: str, *windows: float, account: Account = BOB, unit: Unit = Unit.MESSAGES) -> int:
        """Count a message in some windows, and write it; return what the first window contains."""
        charges = [Charge(account, unit, 1, 10**6, window) for window in windows]
        spent = spending.spend(self.db, self.now, self.accounts, Message(instance, "a", True), charges)
        assert spent.outcome in (Outcome.ACCEPTED, Outcome.REPEATED)
        self.accounts.write(self.db)
        return spent.used[0]

    def used(self, window: float, unit: Unit = Unit.MESSAGES) -> int:
        """Return what a window contains, read from the file."""
        self.accounts.clear()
        return spending.usage(self.db, self.now, self.accounts, [Window(BOB, unit, window)])[0].used

    def fold(self) -> None:
        """Move all that was counted into the chunks."""
        while self.accounts.is_unfolded:
            self.accounts.fold(self.db)

    def kept(self) -> list[float]:
        """Return for how long each chunk is kept, the last one last."""
        self.fold()
        return [row[0] for row in self.db.execute("SELECT keep FROM chunk ORDER BY chunk")]


@pytest.fixture
def case() -> Iterator[Case]:
    db = sqlite3.connect(":memory:", isolation_level=None)
    run(db, SCHEMA)
    yield Case(db.cursor())
    db.close()


def test_a_message_is_stored_once_whatever_number_of_windows_contain_it(case: Case) -> None:
    case.spend("i", HOUR, DAY, 60.0)
    assert len(stored(case.db.connection)) == 1
    assert case.kept() == [DAY]
    assert len(stored(case.db.connection)) == 1


def test_what_was_counted_is_kept_for_a_longer_window_that_begins_later(case: Case) -> None:
    case.spend("i", HOUR)
    assert case.kept() == [HOUR]
    assert case.spend("j", DAY) == 2
    assert case.kept() == [DAY]
    case.now += 2 * HOUR
    assert case.used(DAY) == 2
    assert case.used(HOUR) == 0


def test_messages_are_not_kept_for_a_window_that_is_not_used_for_its_length(case: Case) -> None:
    case.spend("i", DAY)
    for number in range(30):
        case.now += HOUR
        case.spend(str(number), HOUR)
    assert case.kept() == [HOUR]


def test_what_has_left_all_windows_is_not_kept_in_memory(case: Case) -> None:
    for number in range(5000):
        case.now += 1.0
        assert case.spend(str(number), 100.0, 10.0) == min(number + 1, 100)
    account = case.accounts.find(case.db, case.now, BOB, False)
    assert account.size < 300_000
    assert case.used(100.0) == 100


def test_the_memory_is_bounded_and_accounts_used_last_stay_in_it(case: Case) -> None:
    read: list[str] = []
    case.db.connection.set_trace_callback(read.append)
    for number in range(3000):
        case.spend(str(number), DAY, account=Account("oqp", str(number)))
        case.spend(str(number), DAY)
    accounts = case.accounts
    assert sum(account.size for account in accounts._accounts.values()) <= 2**20
    assert sum("data FROM chunk WHERE" in statement for statement in read) == 3001


def test_an_account_that_is_read_again_goes_on_after_chunks_that_were_removed_in_between(case: Case) -> None:
    instances = [str(number) for number in range(3 * SIZE)]
    for instance in instances:
        case.spend(instance, HOUR)
    case.fold()
    case.db.execute("DELETE FROM chunk WHERE chunk = 1")
    assert case.used(HOUR) == 2 * SIZE
    assert case.spend("new", HOUR) == 2 * SIZE + 1
    assert case.spend(instances[-1], HOUR) == 2 * SIZE + 1
    assert case.used(HOUR) == 2 * SIZE + 1


def test_what_has_expired_does_not_come_back_when_an_account_begins_anew(case: Case) -> None:
    for instance in "abc":
        case.spend(instance, HOUR)
    case.now += 2 * HOUR
    assert case.used(HOUR) == 0
    case.spend("d", HOUR)
    assert case.used(HOUR) == 1
    case.now -= 1.5 * HOUR
    assert case.used(HOUR) == 1
    case.fold()
    assert case.used(HOUR) == 1


def test_a_longer_window_keeps_distinct_recipients_too(case: Case) -> None:
    case.spend("i", HOUR, unit=Unit.DISTINCT_RECIPIENTS)
    case.spend("j", DAY, unit=Unit.DISTINCT_RECIPIENTS, account=BOB)
    case.now += 2 * HOUR
    assert case.used(DAY, Unit.DISTINCT_RECIPIENTS) == 1
    assert case.used(HOUR, Unit.DISTINCT_RECIPIENTS) == 0


def test_an_account_may_count_messages_and_distinct_recipients_apart(case: Case) -> None:
    case.spend("i", HOUR)
    assert case.used(HOUR, Unit.DISTINCT_RECIPIENTS) == 0
    case.spend("i", HOUR, unit=Unit.DISTINCT_RECIPIENTS)
    spending.reset(case.db, case.now, case.accounts, [Window(BOB, Unit.DISTINCT_RECIPIENTS, HOUR)])
    assert case.used(HOUR, Unit.DISTINCT_RECIPIENTS) == 0
    assert case.used(HOUR) == 1


def test_an_account_larger_than_the_memory_is_not_read_again_for_each_message(case: Case) -> None:
    case.accounts = Accounts(20_000)
    read: list[str] = []
    case.db.connection.set_trace_callback(lambda sql: read.append(sql) if "FROM chunk" in sql else None)
    for number in range(300):
        case.spend(f"i{number}", DAY)
        case.spend(f"j{number}", DAY)
    assert len(read) < 3
    assert case.used(DAY) == 600
