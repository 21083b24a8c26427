"""The live state in SQLite answers as the model does, whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import Clock

from chapps_tw.state.sqlite import SqliteState
from tests.state_machine import START, Subject, compare


def sqlite_subject() -> Subject:
    """A state in memory whose time and turns go on by hand. Its cleaning goes on with its time."""
    clock = Clock()
    clock.advance(START)
    state = SqliteState(":memory:", clock.seconds, clock)
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


def test_sqlite_answers_as_the_model() -> None:
    compare(sqlite_subject, examples=120, steps=50)
