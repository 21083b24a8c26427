"""Base class for tests of policies: the embedded store with its own clock, and a fake policy book."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import (
    BookUnavailable,
    DomainFlags,
    DomainPlan,
    Exemption,
    Plan,
    SenderGrant,
    UserPlan,
)
from chapps_tw.interfaces.state import Message, Spent
from chapps_tw.mail.decision import Decision
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import message_of
from chapps_tw.policies.events import Events, LimitEvent
from chapps_tw.policies.pending import PendingDecision, charge, decided
from chapps_tw.policies.plans import Plans
from chapps_tw.policies.quota import OutboundQuotaPolicy
from chapps_tw.policies.refresh import never
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.slots import Policy
from chapps_tw.state.sqlite.store import SqliteState

T = TypeVar("T")

# Ids from here on are those of quotas that only have a number.
_PLAIN = 1000


class DictBook:
    """A policy book in dictionaries that counts lookups.

    :ivar quotas: user to the number of a quota of that name, ``None`` for a user without quota.
    :ivar plans: further quotas, by id.
    :ivar users: plans of users, which take precedence over ``quotas``.
    :ivar domains: domain to its plan.
    :ivar senders: user to the domains and addresses that are linked to it.
    :ivar flags: domain to ``(greylist, check_spf)``.
    :ivar exempt: all exemptions.
    :ivar away: whether every lookup fails.
    """

    def __init__(self) -> None:
        self.quotas: dict[str, int | None] = {}
        self.plans: dict[int, Plan] = {}
        self.users: dict[str, UserPlan] = {}
        self.domains: dict[str, DomainPlan] = {}
        self.senders: dict[str, set[str]] = {}
        self.flags: dict[str, tuple[bool, bool]] = {}
        self.exempt: list[Exemption] = []
        self.away = False
        self.asked = 0

    def user_plan(self, user: str) -> Deferred[UserPlan]:
        number = self.quotas.get(user)
        plain = UserPlan(user in self.quotas, None if number is None else _PLAIN + number)
        return self._answer(self.users.get(user, plain))

    def domain_plan(self, domain: str) -> Deferred[DomainPlan]:
        return self._answer(self.domains.get(domain, DomainPlan(None, None)))

    def plan(self, quota: int) -> Deferred[Plan | None]:
        plain = Plan(quota, f"{quota - _PLAIN} a day", quota - _PLAIN, ()) if quota >= _PLAIN else None
        return self._answer(self.plans.get(quota, plain))

    def plan_named(self, name: str) -> Deferred[Plan | None]:
        return self._answer(next((plan for plan in self.plans.values() if plan.name == name), None))

    def exemptions(self) -> Deferred[tuple[Exemption, ...]]:
        return self._answer(tuple(self.exempt))

    def senders_of(self, user: str, domain: str, email: str, base: str = "") -> Deferred[SenderGrant]:
        linked = self.senders.get(user, set())
        return self._answer(SenderGrant(user in self.senders, domain in linked, email in linked, base in linked))

    def flags_of(self, domain: str) -> Deferred[DomainFlags]:
        greylist, check_spf = self.flags.get(domain, (False, False))
        return self._answer(DomainFlags(domain in self.flags, greylist, check_spf))

    def ping(self) -> Deferred[None]:
        return self._answer(None)

    def _answer(self, answer: T) -> Deferred[T]:
        self.asked += 1
        return fail(BookUnavailable("away")) if self.away else succeed(answer)


class PolicyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.state = SqliteState(":memory:", self.clock.seconds, self.clock)
        self.state.start()
        self.addCleanup(self.state.stop)
        self.book = DictBook()

    def run_now(self, awaitable: Awaitable[T]) -> T:
        running = Deferred.fromCoroutine(awaited(awaitable))
        # Each operation of the store is committed in a turn of the reactor.
        for _ in range(6):
            self.clock.advance(0)
        return self.successResultOf(running)

    async def decision(self, policy: Policy, request: OutboundPPR) -> Decision:
        """Return the decision of a policy, and charge what the request costs. Raises what the policy raises."""
        found = await decided(policy.decide(request, ()))
        if isinstance(found, Decision):
            return found
        message = message_of(request, request.get("protocol_state"), found.reserve)
        return await self._charged(request, found, message, self.state.spend)

    async def explanation(self, policy: Policy, request: OutboundPPR) -> Decision:
        """Return what :meth:`decision` would return; change nothing. Raises what the policy raises."""
        found = await decided(policy.explain(request, ()))
        if isinstance(found, Decision):
            return found
        message = message_of(request, request.get("protocol_state"))
        return await self._charged(request, found, message, self.state.peek)

    async def _charged(
        self, request: OutboundPPR, found: PendingDecision, message: Message, spend: Callable[..., Awaitable[Spent]]
    ) -> Decision:
        peek = partial(self.state.peek, message)
        (decision,) = await charge(request, partial(spend, message), peek, [found], [True])
        assert decision is not None
        return decision


async def awaited(awaitable: Awaitable[T]) -> T:
    """Turn anything that can be awaited into a coroutine."""
    return await awaitable


def quota_policy(
    case: PolicyCase,
    settings: Settings,
    due: Callable[[Hashable], bool] = never,
    events: list[LimitEvent] | None = None,
) -> OutboundQuotaPolicy:
    """Return a quota policy on the store and the book of a test.

    :param events: gets the events that it notes.
    """
    clock, report = case.clock.seconds, (lambda event: None) if events is None else events.append
    plans = Plans(settings, case.state, case.book, clock, due)
    reservations = Reservations(settings.oqp.reservation_ttl, clock)
    noted = Events(case.state, clock, clock, Deferred.fromCoroutine, report)
    return OutboundQuotaPolicy(settings, plans, reservations, noted)
