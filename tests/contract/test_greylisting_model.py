"""Greylisting lets through what a model of it does, over both stores."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from tests.support.greylisting_model import Subject, compare_with_model
from tests.support.policy_case import PolicyCase
from tests.support.redis_case import RedisStateTestCase

reactor: Any = installed_reactor


class EmbeddedModelTests(PolicyCase):
    def subject(self) -> Subject:
        self.setUp()
        return Subject(self.state, self.run_now, self.clock.advance)

    def test_random_attempts_agree_with_the_model(self) -> None:
        compare_with_model(self.subject)


class RedisModelTests(RedisStateTestCase):
    def subject(self) -> Subject:
        self.server.command("FLUSHALL")
        return Subject(self.state, self.run_now, self.advance)

    def run_now(self, decision: Coroutine[Any, Any, Any]) -> Any:
        return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(decision))

    async def test_random_attempts_agree_with_the_model(self) -> None:
        await deferToThread(compare_with_model, self.subject)
