"""Metrics in the Prometheus format."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.observe.metrics import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(metrics: Metrics) -> Samples:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


class Time:
    """A clock that stands still.

    :ivar now: what it shows.
    """

    now = 7.0

    def seconds(self) -> float:
        return self.now


def make() -> Metrics:
    return Metrics("9", Time().seconds)


def test_decisions_are_counted_by_listener_policy_action_reason_and_mode() -> None:
    metrics = make()
    refused = Decision("REJECT go away bob@example.com", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy")
    shadowed = Decision("DUNNO", Reason.QUOTA_EXCEEDED, "OutboundQuotaPolicy", shadow="REJECT x")
    metrics.answered("outbound", [refused], 0.003)
    metrics.answered("outbound", [refused, shadowed], 0.3)
    found = samples(metrics)
    common = (
        ("listener", "outbound"),
        ("mode", "enforce"),
        ("policy", "OutboundQuotaPolicy"),
        ("reason", "quota_exceeded"),
    )
    assert found["chapps_decisions_total", (("action", "REJECT"), *common)] == 2
    assert sum(value for (name, labels), value in found.items() if ("mode", "shadow") in labels) == 1
    assert "bob@example.com" not in metrics.text().decode()


def test_buckets_are_cumulative() -> None:
    metrics = make()
    for seconds in (0.00005, 0.003, 100.0):
        metrics.answered("outbound", [], seconds)
    found = samples(metrics)
    bucket = "chapps_answer_seconds_bucket"
    assert found[bucket, (("le", "0.0001"), ("listener", "outbound"))] == 1
    assert found[bucket, (("le", "0.005"), ("listener", "outbound"))] == 2
    assert found[bucket, (("le", "25.0"), ("listener", "outbound"))] == 2
    assert found[bucket, (("le", "+Inf"), ("listener", "outbound"))] == 3
    assert abs(found["chapps_answer_seconds_sum", (("listener", "outbound"),)] - 100.00305) < 1e-9


def test_a_timer_measures_a_call_and_returns_its_outcome() -> None:
    time = Time()
    metrics = Metrics("v1", time.seconds)
    end = metrics.timer("dns", "TXT")
    assert samples(metrics)["chapps_call_seconds_count", (("operation", "TXT"), ("part", "dns"))] == 0
    time.now += 2.0
    outcome = object()
    assert end(outcome) is outcome
    metrics.calls("dns", "TXT").observe(0.5)
    found = samples(metrics)
    labels = (("operation", "TXT"), ("part", "dns"))
    assert found["chapps_call_seconds_count", labels] == 2
    assert found["chapps_call_seconds_sum", labels] == 2.5
    assert found["chapps_call_seconds_bucket", (("le", "1.0"), *labels)] == 1


def test_callback_metrics_are_read_at_each_collection() -> None:
    metrics = make()
    up, lost = [1.0], [3]
    metrics.add_gauge("chapps_up", "Whether a dependency answers.", ("part",), lambda: [(("state",), up[0])])
    metrics.add_counter("chapps_log_lines_lost", "Lost.", (), lambda: [((), lost[0])])
    found = samples(metrics)
    assert (found["chapps_up", (("part", "state"),)], found["chapps_log_lines_lost_total", ()]) == (1, 3)
    up[0], lost[0] = 0.0, 4
    found = samples(metrics)
    assert (found["chapps_up", (("part", "state"),)], found["chapps_log_lines_lost_total", ()]) == (0, 4)
    assert "# TYPE chapps_up gauge\n" in metrics.text().decode()
    assert "# TYPE chapps_log_lines_lost_total counter\n" in metrics.text().decode()


def test_the_version_and_process_metrics_are_included() -> None:
    found = samples(make())
    assert found["chapps_build_info", (("version", "9"),)] == 1
    assert found["process_resident_memory_bytes", ()] > 1_000_000
