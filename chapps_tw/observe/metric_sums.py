"""Metrics of several processes as those of one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from prometheus_client import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

Sample: TypeAlias = tuple[str, Mapping[str, str], float]
"""Name, labels and value."""

Family: TypeAlias = tuple[str, str, str, Sequence[Sample]]
"""Name, type, help, and samples."""

# Gauges that are not added up: what holds for all processes if it holds for each, and what each process sees alike.
_LOWEST: Final = frozenset({"chapps_up", "process_start_time_seconds", "process_max_fds"})
_HIGHEST: Final = frozenset({"chapps_build", "chapps_notices_pending"})
_ADDED_UP: Final = frozenset({"counter", "histogram"})

_Key: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]


def added(processes: Iterable[Sequence[Family]]) -> list[Family]:
    """Return the metrics of several processes as those of one."""
    families: dict[str, tuple[str, str, dict[_Key, float]]] = {}
    for process in processes:
        for name, kind, help, samples in process:
            _, _, values = families.setdefault(name, (kind, help, {}))
            for sample, labels, value in samples:
                key = sample, tuple(labels.items())
                values[key] = _together(name, values[key], value) if key in values else value
    return [
        (name, kind, help, [(sample, dict(labels), value) for (sample, labels), value in values.items()])
        for name, (kind, help, values) in families.items()
    ]


def _together(name: str, one: float, other: float) -> float:
    if name in _LOWEST:
        return min(one, other)
    return max(one, other) if name in _HIGHEST else one + other


def remaining(process: Iterable[Family]) -> list[Family]:
    """Return what stays of the metrics of a process that has ended: counters must never decrease."""
    return [family for family in process if family[1] in _ADDED_UP]


class _Families(Collector):
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for name, kind, help, samples in self._families:
            metric = Metric(name, help, kind)
            for sample, labels, value in samples:
                metric.add_sample(sample, dict(labels), value)
            yield metric


def as_text(processes: Iterable[Sequence[Family]]) -> bytes:
    """Return the metrics of several processes as those of one, in the Prometheus text format."""
    families: Any = _Families(added(processes))
    return generate_latest(families)
