"""The benchmark of the history: what it writes is found as a loop over all decisions finds it."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from bench.history import COUNTS, SEARCHES, decisions, fill, measured
from chapps_tw.history.rows import domain_of
from chapps_tw.interfaces.history import GroupBy
from chapps_tw.mail.decision import stops
from chapps_tw.observe.decision_record import Record
from tests.support.history_case import InFile, InMariaDB, InPostgreSQL

ROWS = 3000


def fits(record: Record, name: str, value: Any) -> bool:
    """Return whether a decision fits a condition, in the simplest way."""
    if name == "client":
        return ip_address(record.client) in value
    if name == "refused":
        return stops(record.action)
    found = getattr(record, name)
    if name in ("sender", "recipient"):
        return value.removeprefix("@") in (found, domain_of(found)) if "@" in value else value in found
    return bool(found == value)


class BenchTests:
    """The subclass names the store."""

    def test_each_search_finds_what_a_loop_finds(self: Any) -> None:
        fill(self.store, ROWS)
        everything = list(decisions(ROWS))[::-1]
        for name, wanted in SEARCHES.items():
            fitting = [each for each in everything if all(fits(each, *condition) for condition in wanted.items())]
            expected = [each.queue_id for each in fitting][:100]
            self.assertEqual(self.found(**wanted), expected, name)
        self.assertEqual([each.name for each in measured(self.store)], [*SEARCHES, *COUNTS])

    def test_all_groups_together_have_all_decisions(self: Any) -> None:
        fill(self.store, ROWS)
        refused = sum(stops(each.action) for each in decisions(ROWS))
        for by in (GroupBy.DAY, GroupBy.HOUR, GroupBy.REASON):
            groups = self.counts(by, limit=1000).groups
            found = sum(each.decisions for each in groups), sum(each.refused for each in groups)
            self.assertEqual(found, (ROWS, refused), by)


class InFileTests(BenchTests, InFile):
    part_rows = 700


class InPostgreSQLTests(BenchTests, InPostgreSQL):
    span_rows = 500


class InMariaDBTests(BenchTests, InMariaDB):
    span_rows = 500
