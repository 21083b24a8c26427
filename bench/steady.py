"""Latency of mail that comes at a steady rate: beside the history that is written, and beside browsers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from statistics import median

from bench.beside import CONNECTIONS, latencies
from bench.load import Sample, drive
from bench.mail import outbound_mail
from bench.pace import drive_at
from bench.pages import Times, open_pages
from bench.pipelines import ACCEPTED
from bench.rounds import Rounds, Row, progress
from bench.tables import WARM_UP
from bench.targets import Target, start_embedded, start_on_postgresql, start_service, take_all_cpus
from tests.support.servers.service import Service

# Requests per second.
RATE = 2000
USERS = range(400)
# Users of the book beside browsers, and those who send.
BOOK, ACTIVE = range(20_000, 120_000), range(20_000, 120_000, 50)
PAGES = 10
SHOWN = ("open", "list", "search", "suggestions", "history")


def steady(rounds: Rounds) -> list[Row]:
    """Measure mail without and with the history of decisions, in a file and on a server, in the same rounds."""
    rows: list[Row] = []
    for start in (start_embedded, start_on_postgresql):
        with ExitStack() as stack:
            targets = [start(stack, USERS, keep) for keep in (False, True)]
            rows += _measured(targets, rounds)
    return rows


def _measured(targets: list[Target], rounds: Rounds) -> Iterator[Row]:
    mail = outbound_mail(USERS)
    seen: defaultdict[str, list[Sample]] = defaultdict(list)
    for target in targets:
        # By few connections: nothing is cached yet.
        drive(target.ports["outbound"], mail, ACCEPTED, CONNECTIONS, count=WARM_UP)
    for number in range(rounds.number):
        progress(f"steady: round {number + 1} of {rounds.number}")
        for target in targets:
            seen[target.name].append(drive_at(RATE, target.ports["outbound"], mail, ACCEPTED, rounds.seconds))
    for name, samples in seen.items():
        yield latencies(name, samples, seen[targets[0].name])


def beside_pages(rounds: Rounds) -> list[Row]:
    """Measure mail without and with browsers in the same rounds, and what their answers take."""
    mail = outbound_mail(ACTIVE)
    idle, busy, times = [], [], defaultdict[str, list[float]](list)
    with ExitStack() as stack:
        progress(f"pages: writing {len(BOOK):,} users")
        # On all CPUs: searches run in threads, which would take turns with the reactor on one.
        service = start_service(stack, {}, BOOK, history=True, prepare=take_all_cpus)
        drive(service.ports["outbound"], mail, ACCEPTED, CONNECTIONS, count=WARM_UP)
        for number in range(rounds.number):
            progress(f"pages: round {number + 1} of {rounds.number}")
            idle.append(mailed(service, mail, rounds.seconds))
            with open_pages(service, ACTIVE, PAGES) as found:
                busy.append(mailed(service, mail, rounds.seconds))
            for name in found:
                times[name] += found[name]
    return [latencies("no page", idle, idle) | _shown({}), latencies(f"{PAGES} pages", busy, idle) | _shown(times)]


def mailed(service: Service, mail: Iterator[bytes], seconds: float) -> Sample:
    """Send mail at the steady rate for some seconds."""
    return drive_at(RATE, service.ports["outbound"], mail, ACCEPTED, seconds)


def _shown(times: Times) -> Row:
    return {f"{name} ms": round(1e3 * median(times[name])) if times.get(name) else "-" for name in SHOWN}
