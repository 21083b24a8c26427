"""A process that spends as fast as it can, and tells what became of it.

    python -m tests.support.state_spender STORE NAME LIMIT COUNT ASKERS

STORE is an SQLite file, or ``redis:`` and the socket of a server. COUNT messages are offered, ASKERS at a time, each
to its user in an hour and in a day, to his domain, and to everybody, who may send LIMIT together. One of three users
asks twice. Prints a line for each answer: the instance, in which the user is, and the outcome.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from chapps_tw.config.settings import Redis
from chapps_tw.interfaces.state import Charge, LiveState, StateUnavailable
from chapps_tw.state.redis.pool import pool_from
from chapps_tw.state.redis.store import RedisState
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.charges import charge, whole

HOUR, DAY = 3600.0, 86400.0
USERS = ("ann@a.example", "bob@a.example", "eve@b.example")

reactor: Any = installed_reactor


def charges_of(user: str, limit: int) -> list[Charge]:
    """Return the four charges of a message: of the user twice, of the domain, and of everybody."""
    return [
        charge(user, limit=limit // 5 if user == USERS[0] else limit, window=HOUR),
        charge(user, limit=limit, window=DAY),
        charge(user.partition("@")[2], limit=limit * 3 // 5, window=DAY, space="pool"),
        charge("", limit=limit, window=DAY, space="everybody"),
    ]


async def spend_each(state: LiveState, instances: Iterator[str], limit: int) -> None:
    for instance in instances:
        user = instance.partition(":")[2]
        # One of three users repeats each request.
        for _ in range(2 if user == USERS[1] else 1):
            await spend(state, instance, charges_of(user, limit))


async def spend(state: LiveState, instance: str, charges: list[Charge]) -> None:
    while True:
        try:
            spent = await state.spend(whole(instance), charges)
        except StateUnavailable:
            # Another process had the file for too long; asked again, as Postfix would. What is refused is refused
            # at once: without a wait this would not let the reactor go on.
            await deferLater(reactor, 0.01)
            continue
        sys.stdout.write(f"{instance} {spent.outcome.name}\n")
        sys.stdout.flush()
        return


def opened(store: str) -> tuple[LiveState, Any]:
    """Return the state, and what is to be started and stopped."""
    kind, _, socket = store.partition(":")
    if kind == "redis":
        pool = pool_from(replace(Redis(), unix_socket=socket), "", reactor, 10.0)
        return RedisState(pool, "chapps"), pool
    state = SqliteState(store, time.time, reactor)
    return state, state


def main(store: str, name: str, limit: str, count: str, askers: str) -> None:
    state, service = opened(store)
    instances = (f"{name}{number}:{USERS[number % 3]}" for number in range(int(count)))
    service.start()

    async def work() -> None:
        each = [Deferred.fromCoroutine(spend_each(state, instances, int(limit))) for _ in range(int(askers))]
        await gatherResults(each)
        await service.stop()
        reactor.stop()

    def report(failure: Failure) -> None:
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(work()).addErrback(report))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
