"""Alternating rounds, and their medians: each case relative to the bare server in the same round."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import NamedTuple, TypeAlias

from bench.pipelines import ACCEPTED, Pipeline
from bench.targets import Measured, Target

Cell: TypeAlias = float | str
Row: TypeAlias = dict[str, Cell]

LEGEND = """
ratio, least, most   requests/s relative to the bare server in the same round: median and range
server us, us ratio  CPU time of the server per request; that of the bare server relative to it: the figure to quote
load CPU, store CPU  CPU utilization of the load generator and of Redis: not the bottleneck while below 1
MiB                  resident memory of the server
rate to, us to       requests/s and CPU time relative to another row in the same round
"""


class Rounds(NamedTuple):
    """How often and how long to measure.

    :ivar seconds: of each measurement.
    """

    number: int
    seconds: float


class Case(NamedTuple):
    """What is measured once in each round.

    :ivar labels: the first cells of its row.
    :ivar mail: shared by the cases that ask the same: no message is asked twice.
    :ivar requests: how many, instead of the time.
    """

    labels: Row
    target: Target
    pipeline: Pipeline
    mail: Iterator[bytes]
    connections: int = 64
    requests: int = 0

    def measure(self, seconds: float) -> Measured:
        """Measure it for a time, or its number of requests."""
        expected = self.target.only or self.pipeline.expected
        length = {"count": self.requests} if self.requests else {"seconds": seconds}
        return self.target.measure(self.pipeline.listener, self.mail, expected, self.connections, **length)

    def warm_up(self, count: int) -> None:
        """Ask beforehand. In addition to what is expected later, mail may be accepted."""
        expected = (ACCEPTED, *self.pipeline.expected)
        self.target.measure(self.pipeline.listener, self.mail, expected, self.connections, count=count)


def measure_all(title: str, cases: Sequence[Case], rounds: Rounds) -> list[list[Measured]]:
    """Measure all cases in each round; return the measurements of each case."""
    seen: list[list[Measured]] = [[] for _ in cases]
    for number in range(rounds.number):
        progress(f"{title}: round {number + 1} of {rounds.number}")
        for case, runs in zip(cases, seen, strict=True):
            runs.append(case.measure(rounds.seconds))
    return seen


def row(labels: Row, runs: Sequence[Measured], bare: Sequence[Measured]) -> Row:
    """Return the figures of a case.

    :param bare: the bare server in the same rounds.
    """
    samples = [run.sample for run in runs]
    pairs = list(zip(samples, (run.sample for run in bare), strict=True))
    ratios = [sample.rate / other.rate for sample, other in pairs]
    return {
        **labels,
        "requests/s": round(median(sample.rate for sample in samples)),
        "ratio": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "p50 ms": _milliseconds(sample.p50 for sample in samples),
        "p50 ratio": round(median(sample.p50 / other.p50 for sample, other in pairs), 2),
        "p99 ms": _milliseconds(sample.p99 for sample in samples),
        "p99 ratio": round(median(sample.p99 / other.p99 for sample, other in pairs), 2),
        "server us": round(median(run.cost for run in runs), 1),
        "us ratio": round(median(other.cost / run.cost for run, other in zip(runs, bare, strict=True)), 3),
        "load CPU": round(median(sample.busy for sample in samples), 2),
        "store CPU": round(median(run.store for run in runs), 2),
        "MiB": round(median(run.memory for run in runs) / 2**20),
    }


def relative(name: str, runs: Sequence[Measured], base: Sequence[Measured]) -> Row:
    """Return cells that compare a case with another one in the same rounds.

    :param name: of the other one.
    """
    pairs = list(zip(runs, base, strict=True))
    return {
        f"rate to {name}": round(median(run.sample.rate / other.sample.rate for run, other in pairs), 2),
        f"us to {name}": round(median(run.cost / other.cost for run, other in pairs), 2),
    }


def _milliseconds(seconds: Iterable[float]) -> float:
    return round(median(seconds) * 1e3, 3)


def progress(text: str) -> None:
    """Tell on standard error what is being measured."""
    print(text, file=sys.stderr, flush=True)
