"""Decisions per second of the last hour."""

from __future__ import annotations

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.observe.decision_rates import HOUR, Bucket, DecisionRates
from chapps_tw.observe.decision_record import entry_of

PASS = Decision("DUNNO", Reason.WITHIN_QUOTA, "P")
REFUSE = Decision("REJECT no", Reason.QUOTA_EXCEEDED, "P")
NOW = 1_790_000_000.0


def add(rates: DecisionRates, at: float, decision: Decision = PASS) -> None:
    rates.extend([entry_of("out", "", PolicyRequest({}), decision, at)])


def test_decisions_are_counted_by_second_and_refusals_apart() -> None:
    rates = DecisionRates()
    for at, decision in ((0.0, PASS), (0.9, REFUSE), (1.0, PASS), (9.5, PASS), (10.0, REFUSE)):
        add(rates, NOW + at, decision)
    buckets = rates.buckets(NOW + 10, 10)
    assert len(buckets) == 360
    assert buckets[-2:] == [Bucket(int(NOW), 4, 1), Bucket(int(NOW) + 10, 1, 1)]
    assert sum(each.decisions for each in buckets) == 5


def test_reasons_are_those_of_the_last_hour() -> None:
    rates = DecisionRates()
    add(rates, NOW)
    for _ in range(2):
        add(rates, NOW + 1, REFUSE)
    assert rates.reasons(NOW + 2) == [("quota_exceeded", 2), ("within_quota", 1)]
    assert rates.reasons(NOW + 1 + HOUR) == [("quota_exceeded", 2)]
    assert rates.reasons(NOW + 3 + HOUR) == []
    assert sum(each.decisions for each in rates.buckets(NOW + 3 + HOUR, 10)) == 0


def test_counts_of_a_clock_that_was_set_back_are_dropped() -> None:
    rates = DecisionRates()
    add(rates, NOW + 1000)
    add(rates, NOW)
    assert rates.reasons(NOW) == [("within_quota", 1)]
