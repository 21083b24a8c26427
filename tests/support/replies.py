"""Replies of a store and decisions of policies, for tests that use Deferreds."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred

from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.pending import Asked, Decided, decided
from chapps_tw.policies.slots import Answer
from chapps_tw.postfix.pipeline import Pipeline
from chapps_tw.postfix.run import Run
from chapps_tw.state.reply import StoreReply

T = TypeVar("T")


def deferred(awaitable: Awaitable[T]) -> Deferred[T]:
    """Return a Deferred of what can be awaited."""
    return Deferred.fromCoroutine(_awaited(awaitable))


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


def replied(work: Coroutine[Any, Any, T]) -> StoreReply[T]:
    """Return a store's reply with the result of a coroutine."""
    reply: StoreReply[T] = StoreReply()
    Deferred.fromCoroutine(work).addCallbacks(reply.callback, reply.errback)
    return reply


async def decision_of(found: Decided | Asked | Awaitable[Decided]) -> Decision:
    """Return what a policy decides that charges nothing."""
    decision = await decided(found)
    assert isinstance(decision, Decision)
    return decision


def answer_of(pipeline: Pipeline, request: OutboundPPR) -> Deferred[Answer]:
    """Return the answer of a listener."""
    answered: Deferred[Answer] = Deferred()
    Run(pipeline, request, answered.callback).start()
    return answered
