"""All counters and histograms of the service.

Counting costs one dictionary access. The metric families of prometheus_client are created when they are collected.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

from chapps_tw.mail.decision import Decision
from chapps_tw.observe.metric_sums import Family, as_text

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)

_BOUNDS = [*map(str, BUCKETS), "+Inf"]

T = TypeVar("T")

Values = Iterable[tuple[tuple[str, ...], float]]


class Histogram:
    """A histogram of durations in seconds, with :data:`BUCKETS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper bounds with their cumulative counts, as Prometheus expects them."""
        found: list[tuple[str, float]] = []
        cumulative = 0
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            cumulative += count
            found.append((bound, cumulative))
        return found


class CallbackMetric(NamedTuple):
    """A metric whose values are read by a callback when it is collected.

    :ivar name: name of the metric; without ``_total`` for a counter.
    :ivar read: returns pairs of label values and value.
    """

    family: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Values]


class Metrics(Collector):
    """The metrics of the process.

    :ivar limit_events: events near a limit that this node was the first to note, by kind.
    :param version: version number of the service.
    :param monotonic: monotonic clock.
    """

    def __init__(self, version: str, monotonic: Callable[[], float]) -> None:
        self._version = version
        self._monotonic = monotonic
        self._decisions: defaultdict[tuple[str, str, str, str, str], int] = defaultdict(int)
        self._answers: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        self._calls: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        self.limit_events: defaultdict[str, int] = defaultdict(int)
        self._callbacks: list[CallbackMetric] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answered(self, listener: str, decisions: Iterable[Decision], seconds: float) -> None:
        """Count the decisions of a listener and the duration of its answer in seconds."""
        counts = self._decisions
        for decision in decisions:
            shadow = "shadow" if decision.shadow else "enforce"
            counts[listener, decision.policy, decision.action.partition(" ")[0], decision.reason, shadow] += 1
        self._answers[listener,].observe(seconds)

    def calls(self, part: str, operation: str) -> Histogram:
        """Return the histogram of the durations of a call."""
        return self._calls[part, operation]

    def timer(self, part: str, operation: str) -> Callable[[T], T]:
        """Start timing a call. The returned function ends it, and returns its argument."""
        observe, monotonic = self._calls[part, operation].observe, self._monotonic
        started = monotonic()

        def end(outcome: T) -> T:
            observe(monotonic() - started)
            return outcome

        return end

    def add_gauge(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        """Add a gauge whose values are read by a callback."""
        self._callbacks.append(CallbackMetric(GaugeMetricFamily, name, help, labels, read))

    def add_counter(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        """Add a counter whose values are read by a callback; ``_total`` is appended to its name."""
        self._callbacks.append(CallbackMetric(CounterMetricFamily, name, help, labels, read))

    def families(self) -> list[Family]:
        """Return all metrics, in a form that JSON can represent."""
        return [
            (each.name, each.type, each.documentation, [(s.name, s.labels, s.value) for s in each.samples])
            for each in self._registry.collect()
        ]

    def text(self, others: Iterable[Sequence[Family]] = ()) -> bytes:
        """Return all metrics in the Prometheus text format.

        :param others: the metrics of other processes, to add to these.
        """
        return as_text([self.families(), *others])

    def collect(self) -> Iterator[Metric]:
        """Yield the metric families, for prometheus_client."""
        yield InfoMetricFamily("chapps_build", "Version of the service.", {"version": self._version})
        labels = ("listener", "policy", "action", "reason", "mode")
        decisions = CounterMetricFamily("chapps_decisions", "Decisions of the policies.", labels=labels)
        for key, count in self._decisions.items():
            decisions.add_metric(key, count)
        yield decisions
        events = CounterMetricFamily(
            "chapps_limit_events", "Limits that are almost reached, or reached.", labels=("kind",)
        )
        for kind, count in self.limit_events.items():
            events.add_metric((kind,), count)
        yield events
        yield _histograms("chapps_answer_seconds", "Time from a request to its answer.", ("listener",), self._answers)
        yield _histograms(
            "chapps_call_seconds",
            "Duration of calls to the state store, the database and DNS. Calls to SQLite share a commit.",
            ("part", "operation"),
            self._calls,
        )
        for metric in self._callbacks:
            family = metric.family(metric.name, metric.help, labels=metric.labels)
            for values, value in metric.read():
                family.add_metric(values, value)
            yield family


def _histograms(
    name: str, help: str, labels: tuple[str, ...], histograms: Mapping[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, histogram in histograms.items():
        family.add_metric(values, histogram.buckets(), histogram.total)
    return family
