"""The embedded state with a manual clock."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from chapps_tw.state.sqlite.accounts import MAX_BYTES
from chapps_tw.state.sqlite.store import SqliteState
from tests.support.state_machine import START, Subject


def sqlite_subject(max_bytes: int = MAX_BYTES, forgets: bool = False) -> Subject:
    """Return a state in memory whose time and reactor turns are advanced manually. Its upkeep follows its time.

    :param max_bytes: size of the accounts that it keeps in memory, beside its tables.
    :param forgets: whether it reads everything from its tables again for each operation.
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
        if forgets:
            state._clear_caches()
            state._accounts._journal._forget()
        (result,) = results
        return result

    return Subject("sqlite", state, run, clock.advance, lambda: run(state.stop()))


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
