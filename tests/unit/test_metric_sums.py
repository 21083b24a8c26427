"""Metrics of several processes as those of one."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.metric_sums import Family, added, as_text, remaining
from chapps_tw.observe.metrics import Metrics

DUNNO = Decision("DUNNO", Reason.WITHIN_QUOTA, "OutboundQuotaPolicy")
REJECT = Decision("REJECT", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy")


def process(*decisions: Decision, up: bool = True, connections: int = 0, pending: int = 0) -> list[Family]:
    """Return the metrics of a process, as they arrive from it."""
    metrics = Metrics("1.2.3", lambda: 0.0)
    for decision in decisions:
        metrics.answered("outbound", [decision], 0.003)
    metrics.add_gauge("chapps_up", "Help.", ("part",), lambda: [(("state",), up)])
    metrics.add_gauge("chapps_connections", "Help.", (), lambda: [((), connections)])
    metrics.add_gauge("chapps_notices_pending", "Help.", (), lambda: [((), pending)])
    found: list[Family] = json.loads(json.dumps(metrics.families()))
    return found


def values(*processes: list[Family]) -> dict[tuple[str, str], float]:
    """Return the value of each sample, by its name and the last of its labels."""
    families = text_string_to_metric_families(as_text(processes).decode())
    samples = [sample for family in families for sample in family.samples]
    return {(each.name, next(iter(each.labels.values()), "")): each.value for each in samples}


def decisions(*processes: list[Family]) -> dict[str, float]:
    families = text_string_to_metric_families(as_text(processes).decode())
    samples = [sample for family in families for sample in family.samples if sample.name == "chapps_decisions_total"]
    return {each.labels["reason"]: each.value for each in samples}


def test_counters_are_added_by_label() -> None:
    assert decisions(process(DUNNO, DUNNO), process(DUNNO, REJECT)) == {"within_quota": 3, "quota_exceeded": 1}


def test_histograms_are_added_and_stay_cumulative() -> None:
    text = as_text([process(DUNNO), process(), process(DUNNO, REJECT)]).decode()
    buckets = [line for line in text.splitlines() if line.startswith("chapps_answer_seconds_bucket")]
    counts = [float(line.split()[-1]) for line in buckets]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 3)
    assert 'chapps_answer_seconds_count{listener="outbound"} 3.0' in text


def test_a_dependency_is_up_if_it_is_for_all() -> None:
    assert values(process(), process(up=False), process())["chapps_up", "state"] == 0
    assert values(process(), process())["chapps_up", "state"] == 1


def test_gauges_are_added_but_what_all_see_alike() -> None:
    found = values(process(connections=2, pending=7), process(connections=3, pending=7))
    assert (found["chapps_connections", ""], found["chapps_notices_pending", ""]) == (5, 7)
    assert found["chapps_build_info", "1.2.3"] == 1


def test_counters_remain_of_a_process_that_has_ended_and_its_connections_do_not() -> None:
    rest = remaining(process(DUNNO, REJECT, connections=3))
    assert decisions(process(DUNNO), rest) == {"within_quota": 2, "quota_exceeded": 1}
    assert values(process(connections=1), rest)["chapps_connections", ""] == 1
    again = added([rest, remaining(process(REJECT))])
    assert decisions(process(), again) == {"within_quota": 1, "quota_exceeded": 2}
