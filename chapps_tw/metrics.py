"""Every counter and histogram of the service, in one place.

Counting costs a dictionary access; the families of prometheus_client are made when somebody reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from chapps_tw.decision import Decision

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)

_BOUNDS = [*map(str, BUCKETS), "+Inf"]


class Histogram:
    """Seconds, counted by :data:`BUCKETS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * len(_BOUNDS)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds with how many durations were within each, as Prometheus wants them: cumulated."""
        found: list[tuple[str, float]] = []
        cumulated = 0
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            cumulated += count
            found.append((bound, cumulated))
        return found


class Gauge:
    """Something that is read when it is asked for.

    :param read: gives the labelled values; the labels are those of :attr:`labels`.
    """

    def __init__(
        self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Iterable[tuple[tuple[str, ...], float]]]
    ) -> None:
        self.name = name
        self.help = help
        self.labels = labels
        self.read = read


class Metrics(Collector):
    """What is counted. One of these in a process.

    :param version: of the program.
    """

    def __init__(self, version: str) -> None:
        self._version = version
        self._decisions: defaultdict[tuple[str, str, str, str, str], int] = defaultdict(int)
        self._answers: defaultdict[str, Histogram] = defaultdict(Histogram)
        self._calls: defaultdict[tuple[str, str], Histogram] = defaultdict(Histogram)
        self._cache: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._gauges: list[Gauge] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def answered(self, listener: str, decisions: Iterable[Decision], seconds: float) -> None:
        """Count what the policies of a listener decided, and how long the answer took."""
        counts = self._decisions
        for decision in decisions:
            shadow = "shadow" if decision.shadow else "enforce"
            counts[listener, decision.policy, decision.action.partition(" ")[0], decision.reason, shadow] += 1
        self._answers[listener].observe(seconds)

    def called(self, part: str, operation: str, seconds: float) -> None:
        """Count a call to the state store, the book or DNS, and how long it took."""
        self._calls[part, operation].observe(seconds)

    def looked_up(self, cache: str, hit: bool) -> None:
        """Count a look into a cache."""
        self._cache[cache, "hit" if hit else "miss"] += 1

    def add_gauge(self, gauge: Gauge) -> None:
        """Show one more value that is read when it is asked for."""
        self._gauges.append(gauge)

    def text(self) -> bytes:
        """Everything, in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """The metric families (for prometheus_client)."""
        yield InfoMetricFamily("chapps_build", "Version of the service.", {"version": self._version})
        labels = ("listener", "policy", "action", "reason", "mode")
        decisions = CounterMetricFamily("chapps_decisions", "What the policies decided.", labels=labels)
        for key, count in self._decisions.items():
            decisions.add_metric(key, count)
        yield decisions
        answers = HistogramMetricFamily(
            "chapps_answer_seconds", "Time from a request to its answer.", labels=("listener",)
        )
        for listener, histogram in self._answers.items():
            answers.add_metric((listener,), histogram.buckets(), histogram.total)
        yield answers
        calls = HistogramMetricFamily(
            "chapps_call_seconds", "Time of calls to state, book and DNS.", labels=("part", "operation")
        )
        for pair, histogram in self._calls.items():
            calls.add_metric(pair, histogram.buckets(), histogram.total)
        yield calls
        cache = CounterMetricFamily("chapps_cache_lookups", "Looks into caches.", labels=("cache", "result"))
        for pair, count in self._cache.items():
            cache.add_metric(pair, count)
        yield cache
        for gauge in self._gauges:
            family = GaugeMetricFamily(gauge.name, gauge.help, labels=gauge.labels)
            for values, value in gauge.read():
                family.add_metric(values, value)
            yield family
