"""A process that spends as fast as it can, and tells what became of it.

    python -m tests.support.state_spender FILE NAME LIMIT

Prints a line for each answer: the instance and the outcome. Runs until it is killed, or is told that
there is no more room.
"""

from __future__ import annotations

import sys
import time

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from chapps_tw.interfaces.state import Fill, Outcome, Rules, Spend, StateUnavailable
from chapps_tw.state.sqlite.store import SqliteState

RULES = Rules(interval=86400.0, margin_count=0, margin_ratio=0.0, min_delta=0.0)


async def spend_all(state: SqliteState, name: str, limit: int) -> None:
    number = 0
    outcome = Outcome.ACCEPTED
    while outcome != Outcome.EXCEEDED:
        number += 1
        spend = Spend("bob", f"{name}.{number}", "r@example.net", 0)
        try:
            spent = await state.spend(spend, RULES)
            if spent.outcome == Outcome.MISSING:
                spent = await state.spend(spend, RULES, Fill(spent.token, limit, 86400.0))
        except StateUnavailable:
            # Another process had the file for too long; asked again, as Postfix would. What is refused is refused
            # at once: without a wait this would not let the reactor go on.
            number -= 1
            await deferLater(reactor, 0.01)
            continue
        outcome = spent.outcome
        sys.stdout.write(f"{spend.instance} {outcome.name}\n")
        sys.stdout.flush()


def main(path: str, name: str, limit: str) -> None:
    state = SqliteState(path, time.time, reactor)
    state.start()

    async def work() -> None:
        await spend_all(state, name, int(limit))
        await state.stop()
        reactor.stop()

    def begin() -> None:
        Deferred.fromCoroutine(work()).addErrback(report)

    def report(failure: Failure) -> None:
        failure.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(begin)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
