"""A policy book in a few dictionaries, for tests of what asks it."""

from __future__ import annotations

from typing import TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from chapps_tw.interfaces import BookUnavailable, DomainFlags, QuotaGrant, SenderGrant

T = TypeVar("T")


class DictBook:
    """Answers from dictionaries, and counts how often it is asked.

    :ivar quotas: user to limit, ``None`` for a user without quota.
    :ivar senders: user to the domains and addresses that are linked to it.
    :ivar flags: domain to ``(greylist, check_spf)``.
    :ivar away: whether every question fails.
    """

    def __init__(self) -> None:
        self.quotas: dict[str, int | None] = {}
        self.senders: dict[str, set[str]] = {}
        self.flags: dict[str, tuple[bool, bool]] = {}
        self.away = False
        self.asked = 0

    def quota_of(self, user: str) -> Deferred[QuotaGrant]:
        return self._answer(QuotaGrant(user in self.quotas, self.quotas.get(user)))

    def senders_of(self, user: str, domain: str, email: str) -> Deferred[SenderGrant]:
        linked = self.senders.get(user, set())
        return self._answer(SenderGrant(user in self.senders, domain in linked, email in linked))

    def flags_of(self, domain: str) -> Deferred[DomainFlags]:
        greylist, check_spf = self.flags.get(domain, (False, False))
        return self._answer(DomainFlags(domain in self.flags, greylist, check_spf))

    def ping(self) -> Deferred[None]:
        return self._answer(None)

    def _answer(self, answer: T) -> Deferred[T]:
        self.asked += 1
        return fail(BookUnavailable("away")) if self.away else succeed(answer)
