"""Base class for tests of policies: the embedded store with its own clock, and a fake policy book."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chapps_tw.interfaces.book import BookUnavailable, DomainFlags, Exemption, QuotaGrant, SenderGrant
from chapps_tw.state.sqlite.store import SqliteState

T = TypeVar("T")


class DictBook:
    """A policy book in dictionaries that counts lookups.

    :ivar quotas: user to limit, ``None`` for a user without quota.
    :ivar senders: user to the domains and addresses that are linked to it.
    :ivar flags: domain to ``(greylist, check_spf)``.
    :ivar exempt: all exemptions.
    :ivar away: whether every lookup fails.
    """

    def __init__(self) -> None:
        self.quotas: dict[str, int | None] = {}
        self.senders: dict[str, set[str]] = {}
        self.flags: dict[str, tuple[bool, bool]] = {}
        self.exempt: list[Exemption] = []
        self.away = False
        self.asked = 0

    def quota_of(self, user: str) -> Deferred[QuotaGrant]:
        return self._answer(QuotaGrant(user in self.quotas, self.quotas.get(user)))

    def senders_of(self, user: str, domain: str, email: str, base: str = "") -> Deferred[SenderGrant]:
        linked = self.senders.get(user, set())
        return self._answer(SenderGrant(user in self.senders, domain in linked, email in linked, base in linked))

    def flags_of(self, domain: str) -> Deferred[DomainFlags]:
        greylist, check_spf = self.flags.get(domain, (False, False))
        return self._answer(DomainFlags(domain in self.flags, greylist, check_spf))

    def exemptions(self) -> Deferred[tuple[Exemption, ...]]:
        return self._answer(tuple(self.exempt))

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

    def run_now(self, coroutine: Coroutine[Any, Any, T]) -> T:
        running = Deferred.fromCoroutine(coroutine)
        # Each operation of the store is committed in a turn of the reactor.
        for _ in range(6):
            self.clock.advance(0)
        return self.successResultOf(running)
