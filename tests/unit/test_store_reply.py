"""Replies of a store."""

from __future__ import annotations

from typing import cast

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from chapps_tw.state.reply import StoreReply
from tests.support.replies import deferred


class Caller:
    """What a reply calls."""

    def __init__(self) -> None:
        self.seen: list[object] = []

    def then(self, reply: StoreReply[int]) -> None:
        reply.then(self.seen.append, lambda error: self.seen.append(type(error)))


@pytest.mark.parametrize("first", ["then", "result"])
@pytest.mark.parametrize("outcome", [7, None, KeyError("k")])
def test_the_result_comes_before_or_after_the_callbacks(first: str, outcome: int | Exception | None) -> None:
    reply: StoreReply[int] = StoreReply()
    caller = Caller()
    for step in sorted(("then", "result"), key=lambda name: name != first):
        if step == "then":
            caller.then(reply)
        elif isinstance(outcome, Exception):
            reply.errback(outcome)
        else:
            reply.callback(outcome)  # type: ignore[arg-type]
    assert caller.seen == [KeyError if isinstance(outcome, Exception) else outcome]
    assert reply.called


def test_a_coroutine_can_wait_for_it() -> None:
    reply: StoreReply[int] = StoreReply()
    seen: list[int] = []
    deferred(reply).addCallback(seen.append)
    assert seen == []
    reply.callback(3)
    assert seen == [3]


def test_a_cancelled_one_fails_once_and_ignores_what_comes_later() -> None:
    reply: StoreReply[int] = StoreReply()
    caller = Caller()
    caller.then(reply)
    reply.cancel()
    reply.cancel()
    reply.callback(1)
    assert caller.seen == [CancelledError]


def test_a_coroutine_that_waits_for_it_can_be_cancelled() -> None:
    reply: StoreReply[int] = StoreReply()
    failures: list[type[BaseException] | None] = []
    waiting: Deferred[object] = deferred(reply)
    waiting.addErrback(lambda failure: failures.append(failure.type))
    waiting.cancel()
    reply.callback(1)
    assert failures == [CancelledError]


@pytest.mark.parametrize("fails", [False, True])
def test_an_error_of_a_callback_is_logged_and_does_not_reach_the_store(fails: bool) -> None:
    reply: StoreReply[int] = StoreReply()

    def broken(_outcome: object) -> None:
        raise ZeroDivisionError

    logged: list[LogEvent] = []
    observer = cast(ILogObserver, logged.append)
    globalLogPublisher.addObserver(observer)
    try:
        reply.then(broken, broken)
        if fails:
            reply.errback(KeyError())
        else:
            reply.callback(1)
    finally:
        globalLogPublisher.removeObserver(observer)
    assert ["log_failure" in event for event in logged] == [True]
