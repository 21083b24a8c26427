"""Writing the history: in batches, with a store that fails, and what is removed."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from typing import Any, cast

from sqlalchemy.exc import DataError, IntegrityError
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher

from chapps_tw.history.files import FileStore
from chapps_tw.history.rows import Row, row_of
from chapps_tw.history.servers import ROW_BYTES, ServerStore
from chapps_tw.history.store import BATCH, Bounds, StoreUnusable
from chapps_tw.history.table import Ids
from chapps_tw.history.writer import Writer
from tests.support import decisions
from tests.support.decisions import REFUSED, entry
from tests.support.history import DAY, MOMENT, record
from tests.support.history_case import InFile, InMariaDB, InPostgreSQL
from tests.support.servers.common import HANGS, wait_until

PASSED = REFUSED._replace(action="DUNNO")


class Failing:
    """A store that can be made to fail.

    :ivar error: raised by each write, unless it is ``None``.
    :ivar rejects: the queue id of a row that it cannot store.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.error: Exception | None = None
        self.rejects = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(self, rows: Iterable[Row]) -> None:
        if self.error is not None:
            raise self.error
        written = list(rows)
        if any(self.rejects in row for row in written):
            raise DataError("", {}, Exception("cannot store this"))
        self._store.write(written)


class WriterTests:
    """The subclass names the store."""

    def write(self: Any, refused_only: bool = False, max_waiting: int = 100, node: str = "mx1") -> Writer:
        self.failing = Failing(self.store)
        writer = Writer(self.failing, node, refused_only, lambda: decisions.MOMENT, max_waiting)
        self.addCleanup(self.end, writer)
        return writer

    def end(self: Any, writer: Writer) -> None:
        writer.stop()
        writer.join(HANGS)

    def logged(self: Any) -> list[str]:
        lines: list[str] = []

        def observe(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("chapps_tw.history"):
                lines.append(formatEvent(event))

        observer = cast(ILogObserver, observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return lines

    def test_decisions_are_written_while_it_runs_and_at_its_end(self: Any) -> None:
        writer = self.write(max_waiting=2 * BATCH)
        for _ in range(BATCH + 7):
            writer.extend([entry()])
        writer.start()
        wait_until(lambda: writer.written == BATCH + 7, "the decisions written")
        writer.extend([entry(queue_id="LAST")])
        self.end(writer)
        self.assertEqual((writer.written, writer.lost, writer.waiting), (BATCH + 8, 0, 0))
        self.assertEqual(self.found(limit=1), ["LAST"])

    def pauses(self: Any, number: int) -> int:
        """Return how often it pauses while it makes rows of so many decisions, and writes them."""
        pauses: list[float] = []
        writer = Writer(self.store, "mx1", False, lambda: decisions.MOMENT, 2 * BATCH, pauses.append)
        self.addCleanup(self.end, writer)
        writer.extend([entry() for _ in range(number)])
        writer.start()
        wait_until(lambda: writer.written == number, "the decisions written")
        return len(pauses)

    def test_it_leaves_the_interpreter_to_others_after_some_rows_unless_many_wait(self: Any) -> None:
        self.assertEqual(self.pauses(100), 2 * 100 // 20)
        # Half of them have as many behind them.
        self.assertEqual(self.pauses(2 * BATCH), 2 * BATCH // 20)

    def test_only_refused_mail_is_kept_on_request(self: Any) -> None:
        writer = self.write(refused_only=True)
        for decision in (PASSED, REFUSED, PASSED):
            writer.extend([entry(decision)])
        writer.start()
        self.end(writer)
        self.assertEqual((writer.written, writer.lost), (1, 0))
        self.assertEqual([each.refused for each in self.everything()], [True])

    def test_decisions_wait_for_a_store_and_those_that_do_not_fit_are_lost_and_counted(self: Any) -> None:
        lines = self.logged()
        writer = self.write(max_waiting=5)
        self.failing.error = OSError("no room")
        writer.start()
        for number in range(5):
            writer.extend([entry(queue_id=f"Q{number}")])
        wait_until(lambda: lines and not writer._waiting, "the rows made")
        for _ in range(8):
            writer.extend([entry()])
        self.assertEqual((writer.written, writer.lost, writer.waiting), (0, 3, 10))
        self.failing.error = None
        wait_until(lambda: writer.waiting == 0 and len(lines) == 3, "the decisions written")
        self.assertEqual((writer.written, writer.lost), (10, 3))
        self.assertEqual(self.found()[-5:], [f"Q{number}" for number in reversed(range(5))])
        self.assertEqual(
            lines,
            [
                "The history cannot be written: no room; up to 10 decisions wait, others are lost",
                "The history is not written fast enough: decisions are lost",
                "The history is written again; 3 decisions were lost",
            ],
        )

    def test_a_number_that_another_process_has_too_is_changed(self: Any) -> None:
        first = self.write()
        other = self.write(node="mx2")
        first._ids, other._ids = Ids(5), Ids(5)
        for writer in (first, other):
            writer.extend([entry()])
            writer.start()
            self.end(writer)
        self.assertEqual((first.written, other.written, len(self.everything())), (1, 1, 2))

    def test_of_a_batch_with_a_decision_that_cannot_be_stored_the_others_are(self: Any) -> None:
        writer = self.write()
        for number in range(5):
            writer.extend([entry(queue_id=f"Q{number}")])
        self.failing.rejects = "Q3"
        writer.start()
        wait_until(lambda: writer.waiting == 0, "the others written")
        self.assertEqual((self.found(), writer.written, writer.lost), (["Q4", "Q2", "Q1", "Q0"], 4, 1))

    def test_an_error_of_ours_loses_a_batch_and_not_the_thread(self: Any) -> None:
        lines = self.logged()
        writer = self.write()
        self.failing.error = ValueError("a bug")
        writer.extend([entry()])
        writer.start()
        wait_until(lambda: writer.lost == 1, "the batch lost")
        self.failing.error = None
        writer.extend([entry()])
        wait_until(lambda: writer.written == 1, "the next batch written")
        self.assertEqual(lines, ["The history failed"])

    def test_ids_are_unique(self: Any) -> None:
        rows = [row_of(7, "mx1", record())]
        self.store.write(rows)
        with self.assertRaises(IntegrityError):
            self.store.write(rows)
        self.assertEqual(len(self.everything()), 1)

    def maintain(self: Any, now: float) -> None:
        while self.store.maintain(now):
            pass


class InFileTests(WriterTests, InFile):
    def test_old_decisions_are_removed_by_parts(self) -> None:
        for day in range(40):
            self.keep(record(time=MOMENT + day * DAY, queue_id=f"D{day}"))
            self.maintain(MOMENT + day * DAY)
        found = self.found()
        self.assertEqual(found[0], "D39")
        self.assertIn(found[-1], ("D8", "D9"))

    def test_the_last_decisions_of_an_idle_node_are_removed_too(self) -> None:
        self.keep(record())
        self.maintain(MOMENT + DAY * 2)
        self.assertEqual(len(self.everything()), 1)
        self.maintain(MOMENT + DAY * 31)
        self.assertEqual(self.everything(), [])

    def test_the_oldest_parts_are_removed_from_a_file_that_is_too_large(self) -> None:
        store = self.store = FileStore(str(self.directory / "small.sqlite3"), Bounds(30 * DAY, 2 << 20), 1000)
        self.addCleanup(store.close)
        for number in range(20):
            self.keep(*(record(time=MOMENT + number, detail="x" * 300) for _ in range(1000)))
            self.maintain(MOMENT + number)
        size = (self.directory / "small.sqlite3").stat().st_size
        self.assertLess(size, 4 << 20)
        found = self.everything()
        self.assertEqual((len(found), found[0].time), (1000, MOMENT + 19))

    def test_full_parts_are_indexed_and_exact_searches_use_the_indexes(self) -> None:
        for number in range(3):
            self.keep(*(record(time=MOMENT + number) for _ in range(3)))
        self.maintain(MOMENT)
        with closing(sqlite3.connect(self.path)) as db:
            made = db.execute("SELECT tbl_name, count(*) FROM sqlite_master WHERE type = 'index' GROUP BY 1").fetchall()
            self.assertEqual(made, [("history_1", 9), ("history_2", 9)])
            for column in ("user", "sender", "recipient_domain", "client_key", "instance", "queue_id"):
                query = f"EXPLAIN QUERY PLAN SELECT * FROM history_1 WHERE {column} = ? ORDER BY id DESC LIMIT 9"
                plan = "".join(row[3] for row in db.execute(query, ("x",)))
                self.assertEqual(plan, f"SEARCH history_1 USING INDEX ix_history_1_{column} ({column}=?)")

    def test_a_later_process_continues_the_last_part(self) -> None:
        rows = [record(time=MOMENT + number) for number in range(5)]
        self.keep(*rows[:2])
        self.store.close()
        self.store = self.open()
        self.keep(*rows[2:4])
        self.keep(*rows[4:])
        self.assertEqual(len(self.everything()), 5)
        with closing(sqlite3.connect(self.path)) as db:
            self.assertEqual(db.execute("SELECT count(*) FROM history_1").fetchone(), (4,))

    def test_decisions_are_in_order_after_the_clock_was_set_back(self) -> None:
        for moment in (5000, 5001, 5002, 1000, 1001, 5003, 1002, 9000):
            self.keep(record(time=MOMENT + moment))
        times = [each.time - MOMENT for each in self.everything()]
        self.assertEqual(times, sorted(times, reverse=True))
        seen, before = [], None
        while True:
            page = self.search(before, 2)
            seen += [each.time - MOMENT for each in page.decisions]
            before = page.next
            if before is None:
                break
        self.assertEqual(seen, times)

    def test_the_file_is_private(self) -> None:
        self.keep(record())
        self.assertEqual({path.stat().st_mode & 0o777 for path in self.path.parent.iterdir()}, {0o600})
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)

    def test_a_file_that_was_removed_is_made_again(self) -> None:
        self.keep(record())
        for path in self.path.parent.iterdir():
            os.unlink(path)
        self.keep(record(queue_id="NEW"))
        self.assertEqual(self.found(), ["NEW"])

    def test_the_database_of_another_program_is_left_alone(self) -> None:
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("CREATE TABLE history_1 (x)")
            db.commit()
        for change in (lambda: self.keep(record()), lambda: self.store.maintain(MOMENT)):
            with self.assertRaisesRegex(StoreUnusable, f"{self.path} is a database of another program"):
                change()

    def test_the_file_of_a_later_version_is_left_alone(self) -> None:
        self.keep(record())
        with closing(sqlite3.connect(self.path)) as db:
            db.execute("PRAGMA user_version = 2")
        self.store = self.open()
        with self.assertRaisesRegex(StoreUnusable, "was written by a later version"):
            self.keep(record())

    def test_it_is_searched_while_it_is_written_and_parts_are_removed(self) -> None:
        done = threading.Event()

        def write() -> None:
            for number in range(300):
                self.keep(record(time=MOMENT + number * DAY / 4), record(time=MOMENT + number * DAY / 4 + 1))
                self.store.maintain(MOMENT + number * DAY / 4)
            done.set()

        thread = threading.Thread(target=write)
        thread.start()
        while not done.is_set():
            times = [each.time for each in self.everything()]
            self.assertEqual(times, sorted(times, reverse=True))
        thread.join()
        self.assertGreater(len(self.everything()), 200)


class ServerTests(WriterTests):
    """The subclass names the store."""

    def test_old_decisions_are_removed_some_at_a_time(self: Any) -> None:
        rows = [record(time=MOMENT + number) for number in range(BATCH + 9)]
        self.keep(*rows[:BATCH])
        self.keep(*rows[BATCH:])
        now = MOMENT + 30 * DAY + BATCH + 4
        self.assertTrue(self.store.maintain(now))
        self.assertEqual(len(self.everything()), 9)
        self.assertFalse(self.store.maintain(now))
        self.assertEqual(len(self.everything()), 5)

    def test_the_oldest_decisions_are_removed_from_a_table_that_is_too_large(self: Any) -> None:
        store = ServerStore(self.engine, Bounds(30 * DAY, 20 * ROW_BYTES), 5)
        self.keep(*(record(time=MOMENT + number) for number in range(50)))
        store.maintain(MOMENT + 50)
        self.assertEqual([each.time for each in self.everything()][-1], MOMENT + 30)

    def test_a_transaction_whose_outcome_was_unknown_is_not_written_twice(self: Any) -> None:
        writer = self.write()
        self.failing.error = OSError("connection lost")
        writer.extend([entry()])
        writer.start()
        wait_until(lambda: writer._rows, "the first attempt")
        self.store.write(writer._rows)
        self.failing.error = None
        wait_until(lambda: writer.written, "the second attempt")
        self.assertEqual(len(self.everything()), 1)


class InPostgreSQLTests(ServerTests, InPostgreSQL):
    pass


class InMariaDBTests(ServerTests, InMariaDB):
    pass
