"""Policies of two nodes with Redis: one operation for a request, and changes in force for the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Exemption
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.value_keys import EXEMPTIONS, check_spf, sender, senders_of_domain
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.mail.received_spf import SpfResult
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.events import Events
from chapps_tw.policies.exemptions import Exemptions
from chapps_tw.policies.greylisting import GreylistingPolicy
from chapps_tw.policies.plans import Plans
from chapps_tw.policies.quota import OutboundQuotaPolicy
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.sender_auth import SenderDomainAuthPolicy
from chapps_tw.policies.slots import Policy, PolicySlot
from chapps_tw.policies.spf import SPFEnforcementPolicy
from chapps_tw.postfix.pipeline import Pipeline
from chapps_tw.state.redis.store import RedisState
from tests.support.policy_case import DictBook
from tests.support.redis_case import RedisStateTestCase
from tests.support.replies import answer_of

ROUND_TRIPS = ("spend", "check_greylist", "confirm", "values", "keep_values", "drop_values", "first_time")


class Node:
    """The policies of one process.

    :ivar operations: names of the operations of the state that it has used.
    """

    def __init__(self, state: LiveState, book: DictBook, patch: Callable[..., object]) -> None:
        self.operations: list[str] = []
        for name in ROUND_TRIPS:
            patch(state, name, self._counted(name, getattr(state, name)))
        settings, exempt = Settings(), Exemptions(state, book, time.time).of
        events = Events(state, time.time, time.monotonic, Deferred.fromCoroutine, lambda _: None)
        plans = Plans(settings, state, book, time.time)
        self._outbound = self._pipeline(
            state,
            SenderDomainAuthPolicy(settings, state, book, exempt=exempt),
            OutboundQuotaPolicy(settings, plans, Reservations(0.0, time.monotonic), events),
        )
        self._inbound = self._pipeline(
            state,
            SPFEnforcementPolicy(settings, state, book, self._check_spf, exempt=exempt),
            GreylistingPolicy(settings, state, book, exempt=exempt),
        )
        self._asked = 0

    def _counted(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.operations.append(name)
            return operation(*arguments, **named)

        return call

    def _pipeline(self, state: LiveState, *policies: Policy) -> Pipeline:
        async def settle(request: OutboundPPR, decision: Decision) -> Decision:
            return decision

        slots = [PolicySlot(policy) for policy in policies]
        return Pipeline("", slots, lambda _: None, self._failed, CancelledError, settle, state)

    def _failed(self, policy: str, error: Exception) -> None:
        raise AssertionError(policy) from error

    def _check_spf(self, *_identities: str) -> Deferred[SpfResult]:
        return succeed(SpfResult("fail", "mailfrom", "example.com"))

    async def send(self, user: str = "ann", sender: str = "ann@example.com") -> Decision:
        """Return the decision about outbound mail."""
        return await self._ask(self._outbound, sasl_username=user, sender=sender)

    async def receive(self) -> Decision:
        """Return the decision about inbound mail."""
        return await self._ask(self._inbound, client_address="192.0.2.9", recipient="bob@example.net")

    async def _ask(self, pipeline: Pipeline, **attributes: str) -> Decision:
        self._asked += 1
        self.operations.clear()
        instance = f"{id(self)} {self._asked}"
        request = {"protocol_state": "RCPT", "sender": "x@y.example", "recipient": "b@c.example", "instance": instance}
        return (await answer_of(pipeline, OutboundPPR(request | attributes))).decision


class TwoNodeTests(RedisStateTestCase):
    clock = False

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.book = DictBook()
        self.book.quotas = {"ann": 1000, "bob": 1000}
        self.book.senders = {"ann": {"example.com", "sales@example.org"}, "bob": {"example.com"}}
        self.book.flags = {"example.net": (True, False)}
        self.nodes = [
            Node(RedisState(self.pool, self.prefix), self.book, self.patch),
            Node(RedisState(self.pool, self.prefix), self.book, self.patch),
        ]

    async def test_a_request_takes_one_operation_if_the_values_are_in_memory(self) -> None:
        for node in self.nodes:
            for name in ("ann@example.com", "sales@example.org"):
                for _ in range(2):
                    await node.send(sender=name)
                self.assertEqual((await node.send(sender=name)).reason, Reason.WITHIN_QUOTA)
                self.assertEqual(node.operations, ["spend"])
            for _ in range(3):
                await node.receive()
            self.assertEqual(node.operations, ["check_greylist"])

    async def test_a_refusal_from_memory_is_confirmed(self) -> None:
        node = self.nodes[0]
        for _ in range(3):
            self.assertEqual((await node.send(sender="ann@evil.example")).reason, Reason.SENDER_NOT_AUTHORIZED)
        self.assertEqual(node.operations, ["confirm"])

    async def both(self, reason: Reason, *arguments: str) -> None:
        for node in self.nodes:
            self.assertEqual((await node.send(*arguments)).reason, reason)

    async def test_the_version_of_a_domain_outdates_its_verdicts_in_every_memory(self) -> None:
        for _ in range(2):
            for user in ("ann", "bob"):
                await self.both(Reason.WITHIN_QUOTA, user)
        self.book.senders = {"ann": {"sales@example.org"}, "bob": set()}
        await self.state.drop_values([senders_of_domain("example.com")])
        for user in ("ann", "bob"):
            await self.both(Reason.SENDER_NOT_AUTHORIZED, user)
        await self.both(Reason.WITHIN_QUOTA, "ann", "sales@example.org")
        self.book.senders = {"ann": {"example.com"}, "bob": set()}
        await self.state.drop_values([senders_of_domain("example.com")])
        await self.both(Reason.WITHIN_QUOTA, "ann")
        await self.both(Reason.SENDER_NOT_AUTHORIZED, "bob")

    async def test_a_verdict_in_memory_is_outdated_by_its_own_key(self) -> None:
        for _ in range(2):
            await self.both(Reason.WITHIN_QUOTA)
        self.book.senders["ann"] = set()
        await self.state.drop_values([sender("ann", "example.com")])
        await self.both(Reason.SENDER_NOT_AUTHORIZED)

    async def test_an_exemption_is_in_force_for_the_next_request(self) -> None:
        until = time.time() + 3600
        for _ in range(2):
            await self.both(Reason.SENDER_NOT_AUTHORIZED, "ann", "ann@evil.example")
            self.assertEqual([(await node.receive()).reason for node in self.nodes][1], Reason.GREYLIST_EARLY)
        for scope, kind, value in (
            ("sender_authorization", "sender", "ann@evil.example"),
            ("spf", "client", "192.0.2.9"),
            ("greylisting", "client", "192.0.2.0/24"),
        ):
            self.book.exempt.append(Exemption(1, kind, value, scope, until, "", ""))
        await self.state.drop_values([EXEMPTIONS])
        for _ in range(2):
            await self.both(Reason.WITHIN_QUOTA, "ann", "ann@evil.example")
            self.assertEqual([(await node.receive()).reason for node in self.nodes], [Reason.EXEMPTED] * 2)
        self.book.exempt.clear()
        await self.state.drop_values([EXEMPTIONS])
        await self.both(Reason.SENDER_NOT_AUTHORIZED, "ann", "ann@evil.example")
        self.assertEqual([(await node.receive()).reason for node in self.nodes], [Reason.GREYLIST_EARLY] * 2)

    async def test_a_flag_in_memory_is_outdated_by_a_change(self) -> None:
        for _ in range(2):
            self.assertTrue([await node.receive() for node in self.nodes])
        self.book.flags["example.net"] = (True, True)
        await self.state.drop_values([check_spf("example.net")])
        self.assertEqual([(await node.receive()).reason for node in self.nodes], [Reason.SPF_FAIL] * 2)
