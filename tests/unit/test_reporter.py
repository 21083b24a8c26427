"""Reporting of answers to the sinks."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from chapps_tw.application.reporter import FAILURE_SECONDS, Reporter, beside
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.decision_record import Entry, Record, as_record
from chapps_tw.observe.listener_requests import ListenerRequests
from chapps_tw.observe.metrics import Metrics
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import LimitEvent
from chapps_tw.policies.slots import Answer


def of(policy: str, reason: Reason, action: str = "DUNNO", shadow: str = "") -> Decision:
    return Decision(action, reason, policy, shadow=shadow)


HEADER = of("SPF", Reason.SPF_PASS, action="PREPEND Received-SPF: pass")
PASSED = of("GRL", Reason.GREYLIST_PASSED)
EXEMPTED = of("SPF", Reason.EXEMPTED)
SHADOWED = of("GRL", Reason.GREYLIST_FIRST, shadow="DEFER")
QUOTA = of("OQP", Reason.WITHIN_QUOTA)


@pytest.mark.parametrize(
    ("sent", "decisions", "told"),
    [
        (HEADER, [HEADER, PASSED], "GRL:greylist_passed"),
        (HEADER, [HEADER, PASSED, QUOTA], "GRL:greylist_passed,OQP:within_quota"),
        (QUOTA, [PASSED, QUOTA], ""),
        (HEADER, [HEADER], ""),
        (HEADER._replace(action="DUNNO"), [HEADER, PASSED], "GRL:greylist_passed"),
        (HEADER, [HEADER, SHADOWED], ""),
        (PASSED, [EXEMPTED, PASSED], "SPF:exempted"),
        (EXEMPTED, [EXEMPTED], ""),
    ],
)
def test_the_decisions_of_other_policies_are_included(sent: Decision, decisions: Sequence[Decision], told: str) -> None:
    assert beside(sent, decisions) == told


def reported(answer: Answer) -> tuple[list[list[Record]], str]:
    """What two sinks are told of an answer, and the metrics."""
    clock = Clock()
    sinks: list[list[Entry]] = [[], []]
    metrics = Metrics("1", clock.seconds)
    reporter = Reporter(metrics, ListenerRequests(), [sink.extend for sink in sinks], clock.seconds, lambda: 17.25)
    reporter.answered("inbound", [(OutboundPPR({"sender": "a@example.org"}), answer, 0.0)])
    return [[as_record(entry) for entry in sink] for sink in sinks], metrics.text().decode()


def test_every_sink_gets_the_answer_with_the_other_decisions() -> None:
    [first, second], metrics = reported(Answer(HEADER, [HEADER, PASSED]))
    assert first == second
    [record] = first
    assert (record.time, record.listener, record.policy, record.sender) == (17.25, "inbound", "SPF", "a@example.org")
    assert record.also == "GRL:greylist_passed"
    assert metrics.count("chapps_decisions_total{") == 2


def test_a_policy_in_shadow_mode_has_a_record_of_its_own() -> None:
    [records, _], _ = reported(Answer(HEADER, [HEADER, SHADOWED]))
    assert [(each.policy, each.shadow, each.also) for each in records] == [("GRL", "DEFER", ""), ("SPF", "", "")]
    [records, _], _ = reported(Answer(SHADOWED, [SHADOWED]))
    assert [each.policy for each in records] == ["GRL"]


def test_an_unexpected_exception_is_logged_at_a_limited_rate() -> None:
    clock = Clock()
    events: list[LogEvent] = []
    observer = events.append
    reporter = Reporter(Metrics("1", clock.seconds), ListenerRequests(), [], clock.seconds, lambda: 1.5)
    globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
    try:
        for seconds in (0, FAILURE_SECONDS - 1, 1):
            clock.advance(seconds)
            reporter.failed("P", ValueError("x"))
            reporter.failed("Q", ValueError("x"))
    finally:
        globalLogPublisher.removeObserver(observer)  # type: ignore[arg-type]
    assert [event["policy"] for event in events if "policy" in event] == ["P", "Q", "P", "Q"]


def test_an_event_near_a_limit_is_logged_and_counted() -> None:
    clock, logged = Clock(), list[LogEvent]()
    observer = logged.append
    metrics = Metrics("1", clock.seconds)
    reporter = Reporter(metrics, ListenerRequests(), [], clock.seconds, lambda: 1.5)
    globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
    try:
        reporter.near_limit(LimitEvent("near_limit", "oqp", "ann\r", "hour", "user", 4, 5, 3600.0, 1.5))
    finally:
        globalLogPublisher.removeObserver(observer)  # type: ignore[arg-type]
    assert [formatEvent(event) for event in logged] == ["user limit hour: 'ann\\r' has used 4 of 5 (near_limit)"]
    assert b'chapps_limit_events_total{kind="near_limit"} 1.0' in metrics.text()
