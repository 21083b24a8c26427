"""Latency of policy requests under other load: many clients of the HTTP API, or DNS that does not answer."""

from __future__ import annotations

import multiprocessing
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from http.client import HTTPConnection
from itertools import count
from statistics import median
from typing import Any

from bench.load import Sample, drive
from bench.mail import CHECKED, outbound_mail
from bench.rounds import Rounds, Row
from bench.targets import start_service
from tests.support.policy_client import encode, inbound
from tests.support.servers.dns import NEVER
from tests.support.servers.service import Service

USERS = range(1000)
LISTING = 16
STUCK = 150
# Longer than a measurement takes.
SPF_SECONDS = 5.0
CONNECTIONS = 8

_spawning = multiprocessing.get_context("spawn")
_numbers = count(1)


def list_users(port: int, token: str, over: Any) -> None:
    """One client: lists all users in a loop, over one connection."""
    api = HTTPConnection("127.0.0.1", port, timeout=30)
    while not over.is_set():
        api.request("GET", f"/users/?limit={len(USERS)}", headers={"Authorization": f"Bearer {token}"})
        answer = api.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} {body[:200]!r}")


def list_all(ports: Mapping[str, int], token: str, over: Any) -> None:
    """Run all listing clients (in their own process)."""
    threads = [threading.Thread(target=list_users, args=(ports["api"], token, over)) for _ in range(LISTING)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def listing(service: Service) -> Iterator[None]:
    """Run many clients that list all users in a loop, in another process."""
    over = _spawning.Event()
    process = _spawning.Process(target=list_all, args=(service.ports, service.token, over))
    process.start()
    try:
        yield
    finally:
        over.set()
        process.join()


@contextmanager
def stuck(service: Service) -> Iterator[None]:
    """Keep many messages waiting for DNS; at the end, read all answers."""
    with ExitStack() as stack:
        clients = [stack.enter_context(service.client("inbound")) for _ in range(STUCK)]
        for client in clients:
            client.send(encode(inbound(sender=f"carl@d{next(_numbers)}.silent.example", recipient=f"bob@{CHECKED}")))
        yield
        for client in clients:
            client.answer()


BUSY: dict[str, Callable[[Service], AbstractContextManager[None]]] = {
    "nothing": lambda _: nullcontext(),
    f"{LISTING} clients list {len(USERS)} users": listing,
    f"{STUCK} messages wait for DNS": stuck,
}


def beside(rounds: Rounds) -> list[Row]:
    """Measure the latency of outbound mail under other load, relative to no other load in the same round."""
    seen: defaultdict[str, list[Sample]] = defaultdict(list)
    options = {"SPFEnforcementPolicy": {"spf_query_timeout": SPF_SECONDS}}
    with ExitStack() as stack:
        service = start_service(stack, options, USERS, {".silent.example": NEVER})
        mail = outbound_mail(USERS)
        for _ in range(rounds.number):
            for name, busy in BUSY.items():
                with busy(service):
                    answers = drive(service.ports["outbound"], mail, b"action=DUNNO\n", CONNECTIONS, rounds.seconds)
                seen[name].append(answers)
    return [latencies(name, samples, seen["nothing"]) for name, samples in seen.items()]


def latencies(name: str, samples: list[Sample], idle: list[Sample]) -> Row:
    """Return the latencies beside other work.

    :param idle: without, in the same rounds.
    """
    pairs = list(zip(samples, idle, strict=True))
    return {
        "beside": name,
        "p50 ms": round(median(sample.p50 for sample in samples) * 1e3, 3),
        "p50 ratio": round(median(sample.p50 / other.p50 for sample, other in pairs), 2),
        "p99 ms": round(median(sample.p99 for sample in samples) * 1e3, 3),
        "p99 ratio": round(median(sample.p99 / other.p99 for sample, other in pairs), 2),
    }
