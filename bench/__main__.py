"""``make bench``: compares the service with a bare Twisted server, in alternating rounds."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.beside import beside
from bench.mail import CHECKED, GREYLISTED, inbound_mail, outbound_mail
from bench.targets import OVER_QUOTA, STORES, Measured, Target, installed_stores, start_bare, take_load_cpu

USERS = range(100)
WARM_UP = 3000

# Transmissions already counted per user, and the users: so many that the requests of the measurement add
# little to the counts.
LEVELS = {10: range(100, 200), 1_000: range(200, 250), 10_000: range(250, 255), 50_000: range(255, 256)}
ALL_USERS = range(256)
LEVEL_REQUESTS = 4000

ACCEPTED = b"action=DUNNO\n"

Rows = list[dict[str, float | str]]


class Pipeline(NamedTuple):
    """A listener, the requests for it, and the expected prefixes of its answers."""

    title: str
    listener: str
    mail: Callable[[], Iterator[bytes]]
    expected: bytes | tuple[bytes, ...]


PIPELINES = {
    "outbound": Pipeline("sender authorization, then quota", "outbound", lambda: outbound_mail(USERS), ACCEPTED),
    "refused": Pipeline(
        "a user who is over the quota and goes on",
        "outbound",
        lambda: outbound_mail([OVER_QUOTA]),
        (ACCEPTED, b"action=REJECT Rejected - outbound quota"),
    ),
    "greylisting": Pipeline(
        "greylisting",
        "greylisting",
        lambda: inbound_mail(GREYLISTED),
        (ACCEPTED, b"action=DEFER_IF_PERMIT Service temporarily unavailable - greylisted"),
    ),
    "spf": Pipeline(
        "SPF with cached DNS, then greylisting, which is off",
        "inbound",
        lambda: inbound_mail(CHECKED),
        (ACCEPTED, b"action=PREPEND Received-SPF: "),
    ),
}


LEGEND = """
ratio, least, most   requests/s relative to the bare server in the same round: median and range
server us, us ratio  CPU time of the server per request; that of the bare server relative to it
load CPU, store CPU  CPU utilization of the load generator and of Redis: not the bottleneck while below 1
"""


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are shown (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement (default %(default)s)")
    parser.add_argument("--store", nargs="+", choices=sorted(STORES), help="(default: those installed)")
    parser.add_argument("--pipeline", nargs="+", choices=sorted(PIPELINES), default=list(PIPELINES))
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 3, 0.5
    return chosen


def throughput(targets: Sequence[Target], pipeline: Pipeline, chosen: argparse.Namespace) -> Rows:
    """Measure every target at every number of connections, in each round."""
    mail = pipeline.mail()
    bare, *_ = targets
    seen: defaultdict[tuple[str, int], list[Measured]] = defaultdict(list)

    def measure(target: Target, connections: int, **length: float) -> Measured:
        expected = ACCEPTED if target is bare else pipeline.expected
        return target.measure(pipeline.listener, mail, expected, connections, **length)

    for target in targets:
        measure(target, 8, count=WARM_UP)
    for number in range(chosen.rounds):
        progress(f"{pipeline.title}: round {number + 1} of {chosen.rounds}")
        for connections in chosen.connections:
            for target in targets:
                seen[target.name, connections].append(measure(target, connections, seconds=chosen.seconds))
    pairs = [(target.name, connections) for connections in chosen.connections for target in targets]
    return [_row(*pair, seen[pair], seen[bare.name, pair[1]]) for pair in pairs]


def _row(name: str, connections: int, runs: Sequence[Measured], bare: Sequence[Measured]) -> dict[str, float | str]:
    samples = [run.sample for run in runs]
    pairs = list(zip(samples, (run.sample for run in bare), strict=True))
    ratios = [sample.rate / other.rate for sample, other in pairs]
    return {
        "target": name,
        "connections": connections,
        "requests/s": round(median(sample.rate for sample in samples)),
        "ratio": round(median(ratios), 3),
        "least": round(min(ratios), 3),
        "most": round(max(ratios), 3),
        "p50 ms": round(median(sample.p50 for sample in samples) * 1e3, 3),
        "p50 ratio": round(median(sample.p50 / other.p50 for sample, other in pairs), 2),
        "p99 ms": round(median(sample.p99 for sample in samples) * 1e3, 3),
        "p99 ratio": round(median(sample.p99 / other.p99 for sample, other in pairs), 2),
        "server us": round(median(run.cost for run in runs), 1),
        "us ratio": round(median(other.cost / run.cost for run, other in zip(runs, bare, strict=True)), 3),
        "load CPU": round(median(sample.busy for sample in samples), 2),
        "store CPU": round(median(run.store for run in runs), 2),
    }


def by_count(target: Target, chosen: argparse.Namespace) -> Rows:
    """Measure the cost of a request by the number of transmissions already counted for its user."""
    mail = {level: outbound_mail(users) for level, users in LEVELS.items()}
    for level, users in LEVELS.items():
        progress(f"{target.name}: counting {level:,} for each of {len(users)} users")
        target.measure("outbound", mail[level], ACCEPTED, 64, count=level * len(users))
    seen: defaultdict[int, list[float]] = defaultdict(list)
    for _ in range(chosen.rounds):
        for level in LEVELS:
            measured = target.measure("outbound", mail[level], ACCEPTED, 64, count=LEVEL_REQUESTS)
            seen[level].append(1e6 / measured.sample.rate)
    few = seen[min(LEVELS)]
    return [
        {
            "target": target.name,
            "counted": level,
            "us": round(median(costs), 1),
            "ratio": round(median(cost / least for cost, least in zip(costs, few, strict=True)), 2),
        }
        for level, costs in seen.items()
    ]


def table(rows: Rows) -> str:
    """Format rows as aligned columns."""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: float | str) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    chosen = options()
    take_load_cpu()
    figures: dict[str, Rows] = {}
    with ExitStack() as stack:
        starters = [start_bare, *(STORES[name] for name in chosen.store or installed_stores())]
        targets = [start(stack, ALL_USERS) for start in starters]
        for name in chosen.pipeline:
            pipeline = PIPELINES[name]
            figures[name] = throughput(targets, pipeline, chosen)
            print(f"\n{name}: {pipeline.title}. Medians of {chosen.rounds} rounds; ratios to the bare server.\n")
            print(table(figures[name]), flush=True)
        if "outbound" in chosen.pipeline:
            figures["by count"] = [row for target in targets[1:] for row in by_count(target, chosen)]
            print("\noutbound: one request, by transmissions already counted for its user; 64 connections.\n")
            print(table(figures["by count"]))
    if "outbound" in chosen.pipeline:
        progress("outbound: beside other work")
        figures["beside"] = beside(chosen.rounds, chosen.seconds)
        print("\noutbound: 8 connections beside other work of the service; ratios to none.\n")
        print(table(figures["beside"]))
    print(LEGEND)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
