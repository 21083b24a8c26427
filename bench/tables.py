"""The tables: which cases are compared."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from random import Random
from typing import NamedTuple

from bench.mail import outbound_mail
from bench.pipelines import BY_LIMITS, PIPELINES, Pipeline, outbound
from bench.rounds import Case, Rounds, Row, measure_all, progress, relative, row
from bench.targets import CPUS, STORES, Target, start_bare, start_embedded, start_on_far_redis, start_processes

WARM_UP = 3000

# Transmissions already counted per user, and the users: so many that the requests of the measurement add
# little to the counts.
LEVELS = {10: range(100, 200), 1_000: range(200, 250), 10_000: range(250, 255), 50_000: range(255, 256)}
LEVEL_REQUESTS = 4000

SHARED_USERS = range(400)

LARGE_BOOK = range(1_000_000, 2_000_000)
LARGE_ACTIVE = 200_000

# Milliseconds that the network adds to a round trip to Redis. Without, the same proxy adds nothing.
FAR = (0.0, 1.0)

# [CHAPPS] processes.
PROCESSES = (1, 2, 4)


class Table(NamedTuple):
    title: str
    rows: list[Row]


def pipeline(name: str, targets: Sequence[Target], rounds: Rounds, connections: Sequence[int]) -> Table:
    """Measure a pipeline of every target at every number of connections."""
    each = PIPELINES[name]
    return Table(f"{name}: {each.title}.", compared(each, targets, rounds, connections))


def compared(
    asked: Pipeline, targets: Sequence[Target], rounds: Rounds, connections: Sequence[int], warm_up: int = WARM_UP
) -> list[Row]:
    """Return a row for each number of connections and target, the bare server first.

    :param warm_up: number of requests to each target before.
    """
    mail = asked.mail()
    for target in targets:
        progress(f"{asked.title}: {target.name} warms up")
        Case({}, target, asked, mail).warm_up(warm_up)
    cases = [
        Case({"target": target.name, "connections": number}, target, asked, mail, number)
        for number in connections
        for target in targets
    ]
    seen = measure_all(asked.title, cases, rounds)
    bare = [seen[place - place % len(targets)] for place in range(len(cases))]
    return [row(case.labels, runs, other) for case, runs, other in zip(cases, seen, bare, strict=True)]


def by_limits(targets: Sequence[Target], rounds: Rounds) -> Table:
    """Measure a request by the number of limits that it is charged to."""
    bare, *services = targets
    asked = {number: (each, each.mail()) for number, each in BY_LIMITS.items()}
    for target in services:
        for each, mail in asked.values():
            Case({}, target, each, mail).warm_up(WARM_UP)
    cases = [
        [Case({"target": target.name, "limits": number}, target, *asked[number]) for number in BY_LIMITS]
        for target in services
    ]
    rows = _by_first("one limit", Case({}, bare, *asked[1]), cases, rounds, "by limits")
    return Table(f"limits: 1 is {BY_LIMITS[1].title}; 4 are {BY_LIMITS[4].title}; 64 connections.", rows)


def by_count(targets: Sequence[Target], rounds: Rounds) -> Table:
    """Measure a request by the number of transmissions already counted for its user."""
    bare, *services = targets
    asked = {level: (outbound("counting", users), outbound_mail(users)) for level, users in LEVELS.items()}
    cases = [
        [
            Case({"target": target.name, "counted": level}, target, *asked[level], requests=LEVEL_REQUESTS)
            for level in LEVELS
        ]
        for target in services
    ]
    for group in cases:
        for case, (level, users) in zip(group, LEVELS.items(), strict=True):
            progress(f"{case.target.name}: counting {level:,} for each of {len(users)} users")
            case.warm_up(level * len(users))
    rows = _by_first("few", Case({}, bare, *asked[min(LEVELS)]), cases, rounds, "by count")
    return Table("outbound, by transmissions already counted for the user; 64 connections.", rows)


def _by_first(name: str, bare: Case, groups: Sequence[Sequence[Case]], rounds: Rounds, title: str) -> list[Row]:
    """Return a row for each case, which is also compared with the first one of its group: ``name``."""
    first, *seen = measure_all(title, [bare, *(case for group in groups for case in group)], rounds)
    rows: list[Row] = []
    for group in groups:
        own, seen = seen[: len(group)], seen[len(group) :]
        rows += [
            row(each.labels, runs, first) | relative(name, runs, own[0]) for each, runs in zip(group, own, strict=True)
        ]
    return rows


def far(rounds: Rounds) -> Table:
    """Measure how latency of the network to Redis affects throughput."""
    asked = PIPELINES["outbound"]
    mail = asked.mail()
    with ExitStack() as stack:
        bare = Case({}, start_bare(stack), asked, mail)
        targets = [start_on_far_redis(stack, SHARED_USERS, each) for each in FAR]
        cases = [Case({"target": target.name}, target, asked, mail) for target in targets]
        for case in cases:
            case.warm_up(WARM_UP)
        rows = _by_first("near", bare, [cases], rounds, "far Redis")
    return Table("outbound, Redis behind a proxy that delays; 64 connections.", rows)


def history(rounds: Rounds) -> Table:
    """Measure what it costs to keep all decisions."""
    asked = PIPELINES["outbound"]
    mail = asked.mail()
    with ExitStack() as stack:
        bare = Case({}, start_bare(stack), asked, mail)
        targets = [start_embedded(stack, SHARED_USERS, keep) for keep in (False, True)]
        cases = [Case({"target": target.name}, target, asked, mail) for target in targets]
        for case in cases:
            case.warm_up(WARM_UP)
        rows = _by_first("without", bare, [cases], rounds, "history")
    return Table("outbound, without and with the history of decisions; 64 connections.", rows)


def processes(rounds: Rounds) -> Table:
    """Measure several processes beside one. All of them, the load and Redis share the CPUs."""
    asked = PIPELINES["outbound"]
    mail = asked.mail()
    with ExitStack() as stack:
        bare = Case({}, start_bare(stack), asked, mail)
        targets = {number: start_processes(stack, SHARED_USERS, number) for number in PROCESSES}
        cases = [
            Case({"target": target.name, "number": number}, target, asked, mail) for number, target in targets.items()
        ]
        for case in cases:
            case.warm_up(WARM_UP)
        rows = _by_first("one process", bare, [cases], rounds, "processes")
    where = f"{len(CPUS)} CPUs for all of them, Redis and the load"
    return Table(f"outbound, with several processes and Redis, on {where}; 64 connections.", rows)


def large(stores: Sequence[str], rounds: Rounds, connections: Sequence[int]) -> Table:
    """Measure a book with a million users, of whom a fifth sends, all as often.

    Before the measurement, each of them has sent: its mail is a message with one or several recipients.
    """
    active = Random(3).sample(LARGE_BOOK, LARGE_ACTIVE)
    asked = outbound(f"{len(LARGE_BOOK):,} users in the book, of whom {LARGE_ACTIVE:,} send", active)
    with ExitStack() as stack:
        targets = [start_bare(stack)]
        for name in stores:
            progress(f"{name}: writing {len(LARGE_BOOK):,} users")
            targets.append(STORES[name](stack, LARGE_BOOK))
        rows = compared(asked, targets, rounds, connections, 2 * LARGE_ACTIVE)
    return Table(f"large: {asked.title}.", rows)
