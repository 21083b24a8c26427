"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from chapps_tw.decision import Decision, Reason
from chapps_tw.metrics import Gauge, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_decisions_are_counted_by_listener_policy_action_reason_and_mode() -> None:
    metrics = Metrics("v1")
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


def test_durations_are_cumulated_by_bucket() -> None:
    metrics = Metrics("v1")
    for seconds in (0.0001, 0.003, 100.0):
        metrics.answered("outbound", [], seconds)
    found = samples(metrics)
    bucket = "chapps_answer_seconds_bucket"
    assert found[bucket, (("le", "0.0005"), ("listener", "outbound"))] == 1
    assert found[bucket, (("le", "0.005"), ("listener", "outbound"))] == 2
    assert found[bucket, (("le", "+Inf"), ("listener", "outbound"))] == 3
    assert abs(found["chapps_answer_seconds_sum", (("listener", "outbound"),)] - 100.0031) < 1e-9


def test_calls_lookups_gauges_and_the_version_are_shown() -> None:
    metrics = Metrics("CHAPPS-TW v9")
    metrics.called("state", "spend", 0.01)
    metrics.looked_up("sda", True)
    up = [1.0]
    metrics.add_gauge(Gauge("chapps_up", "Whether a dependency answers.", ("part",), lambda: [(("state",), up[0])]))
    up[0] = 0.0
    found = samples(metrics)
    assert found["chapps_call_seconds_count", (("operation", "spend"), ("part", "state"))] == 1
    assert found["chapps_cache_lookups_total", (("cache", "sda"), ("result", "hit"))] == 1
    assert found["chapps_up", (("part", "state"),)] == 0.0
    assert found["chapps_build_info", (("version", "CHAPPS-TW v9"),)] == 1
