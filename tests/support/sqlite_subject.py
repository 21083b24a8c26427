"""The embedded state with a manual clock."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from chapps_tw.state.sqlite.accounts import MAX_BYTES
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.state_machine import START, Subject


def sqlite_subject(max_bytes: int = MAX_BYTES) -> Subject:
    """Return a state in memory whose time and reactor turns are advanced manually. Cleaning follows its time.

    :param max_bytes: size of the accounts that it keeps in memory, beside its tables.
    """
    clock = Clock()
    clock.advance(START)
    state = SqliteState(":memory:", clock.seconds, clock, max_bytes=max_bytes)
    state.start()

    def run(awaitable: Awaitable[Any]) -> Any:
        results: list[Any] = []
        waiting = ensureDeferred(_wait(awaitable))
        waiting.addBoth(results.append)
        clock.advance(0)
        (result,) = results
        return result

    return Subject("sqlite", state, run, clock.advance, lambda: run(state.stop()))


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
