"""``make bench``: compares the service with a bare Twisted server, in alternating rounds."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import tables
from bench.beside import CONNECTIONS, beside
from bench.pipelines import PIPELINES
from bench.rounds import LEGEND, Cell, Rounds, Row, progress
from bench.steady import BOOK, RATE, beside_pages, steady
from bench.tables import Table
from bench.targets import STORES, installed_stores, start_bare, take_load_cpu

# Tables that are measured on the same services.
SHARED = (*PIPELINES, "limits", "count")
DEFAULT = (*SHARED, "far", "processes", "history", "beside", "steady", "pages")


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are shown (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement (default %(default)s)")
    parser.add_argument("--store", nargs="+", choices=sorted(STORES), help="(default: those installed)")
    parser.add_argument("--table", nargs="+", choices=DEFAULT, default=list(DEFAULT), help="(default: all)")
    parser.add_argument("--large", action="store_true", help="only a book with a million users: takes many minutes")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8, 64], help="(default: 1 8 64)")
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.rounds, chosen.seconds = 3, 0.5
    chosen.store = chosen.store or installed_stores()
    chosen.table = ["large"] if chosen.large else chosen.table
    return chosen


def measured(chosen: argparse.Namespace) -> Iterator[tuple[str, Table]]:
    """Measure the chosen tables, one after the other."""
    rounds = Rounds(chosen.rounds, chosen.seconds)
    shared = [name for name in chosen.table if name in SHARED]
    if shared:
        yield from _on_same_services(shared, rounds, chosen)
    if "far" in chosen.table and "redis" in chosen.store:
        yield "far", tables.far(rounds)
    if "processes" in chosen.table and "redis" in chosen.store:
        yield "processes", tables.processes(rounds)
    if "history" in chosen.table:
        yield "history", tables.history(rounds)
    if "beside" in chosen.table:
        progress("outbound: beside other work")
        title = f"outbound: {CONNECTIONS} connections beside other work of the service; ratios to none."
        yield "beside", Table(title, beside(rounds))
    if "steady" in chosen.table:
        yield "steady", Table(f"outbound: {RATE:,} requests/s; ratios to none kept.", steady(rounds))
    if "pages" in chosen.table:
        title = f"outbound: {RATE:,} requests/s beside browsers, {len(BOOK):,} users; medians of what they ask for."
        yield "pages", Table(title, beside_pages(rounds))
    if "large" in chosen.table:
        yield "large", tables.large(chosen.store, rounds, chosen.connections)


def _on_same_services(names: Sequence[str], rounds: Rounds, chosen: argparse.Namespace) -> Iterator[tuple[str, Table]]:
    with ExitStack() as stack:
        services = [STORES[name](stack, tables.SHARED_USERS) for name in chosen.store]
        targets = [start_bare(stack), *services]
        for name in names:
            if name == "limits":
                yield name, tables.by_limits(targets, rounds)
            elif name == "count":
                yield name, tables.by_count(targets, rounds)
            else:
                yield name, tables.pipeline(name, targets, rounds, chosen.connections)


def formatted(rows: Sequence[Row]) -> str:
    """Format rows as aligned columns."""
    lines = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def _cell(value: Cell) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    chosen = options()
    take_load_cpu()
    figures: dict[str, list[Row]] = {}
    for name, table in measured(chosen):
        figures[name] = table.rows
        print(f"\n{table.title} Medians of {chosen.rounds} rounds.\n\n{formatted(table.rows)}", flush=True)
    print(LEGEND)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
