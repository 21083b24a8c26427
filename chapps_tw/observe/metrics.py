"""Every counter and histogram of the service, in one place.

Counting costs a dictionary access; the families of prometheus_client are made when somebody reads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple, TypeVar

from prometheus_client import ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from chapps_tw.mail.decision import Decision

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0)

_BOUNDS = [*map(str, BUCKETS), "+Inf"]

T = TypeVar("T")

Values = Iterable[tuple[tuple[str, ...], float]]


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


class Reading(NamedTuple):
    """Something that its owner counts, and that is read when it is asked for.

    :ivar name: without the ``_total`` of a counter.
    :ivar read: gives the values, each with those of the labels.
    """

    family: type[CounterMetricFamily | GaugeMetricFamily]
    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[], Values]


class Metrics(Collector):
    """What is counted. One of these in a process.

    :param version: of the program, the number alone.
    :param seconds: a clock that is never set.
    """

    def __init__(self, version: str, seconds: Callable[[], float]) -> None:
        self._version = version
        self._seconds = seconds
        self._decisions: defaultdict[tuple[str, str, str, str, str], int] = defaultdict(int)
        self._answers: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        self._calls: defaultdict[tuple[str, ...], Histogram] = defaultdict(Histogram)
        self._readings: list[Reading] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def answered(self, listener: str, decisions: Iterable[Decision], seconds: float) -> None:
        """Count what the policies of a listener decided, and how long the answer took."""
        counts = self._decisions
        for decision in decisions:
            shadow = "shadow" if decision.shadow else "enforce"
            counts[listener, decision.policy, decision.action.partition(" ")[0], decision.reason, shadow] += 1
        self._answers[listener,].observe(seconds)

    def calls(self, part: str, operation: str) -> Histogram:
        """Where the durations of one kind of call are counted."""
        return self._calls[part, operation]

    def watch(self, part: str, operation: str) -> Callable[[T], T]:
        """Begin to time a call. What this returns ends that, and hands on whatever it is given."""
        observe, seconds = self._calls[part, operation].observe, self._seconds
        began = seconds()

        def end(outcome: T) -> T:
            observe(seconds() - began)
            return outcome

        return end

    def add_gauge(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        """Show something that goes up and down."""
        self._readings.append(Reading(GaugeMetricFamily, name, help, labels, read))

    def add_counter(self, name: str, help: str, labels: tuple[str, ...], read: Callable[[], Values]) -> None:
        """Show something that only grows; ``_total`` is added to its name."""
        self._readings.append(Reading(CounterMetricFamily, name, help, labels, read))

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
        yield _histograms("chapps_answer_seconds", "Time from a request to its answer.", ("listener",), self._answers)
        yield _histograms(
            "chapps_call_seconds",
            "Time of calls to the state store, the database and DNS. Calls to SQLite share a commit.",
            ("part", "operation"),
            self._calls,
        )
        for reading in self._readings:
            family = reading.family(reading.name, reading.help, labels=reading.labels)
            for values, value in reading.read():
                family.add_metric(values, value)
            yield family


def _histograms(
    name: str, help: str, labels: tuple[str, ...], histograms: Mapping[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, histogram in histograms.items():
        family.add_metric(values, histogram.buckets(), histogram.total)
    return family
