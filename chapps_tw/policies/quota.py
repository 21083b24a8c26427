"""Outbound quota: may this user send more?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from math import ceil, floor
from typing import Any

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import BookUnavailable, PolicyBook, QuotaGrant
from chapps_tw.interfaces.state import NO_QUOTA, UNKNOWN_USER, Fill, LiveState, Outcome, Outdated, Rules, Spend, Spent
from chapps_tw.mail.decision import CACHE, DATABASE, Decision, Reason, fill, in_words
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies import UNKNOWN_TTL
from chapps_tw.policies.caching import CachingPolicy
from chapps_tw.policies.refresh import never
from chapps_tw.policies.spec import Direction, PolicySpec

# Only at these stages a message has an instance, by which it is counted (SMTPD_POLICY_README).
STAGES = frozenset(("RCPT", "DATA", "END-OF-MESSAGE"))

_REASONS = {
    Outcome.ACCEPTED: Reason.WITHIN_QUOTA,
    Outcome.REPEATED: Reason.COUNTED_BEFORE,
    Outcome.EXCEEDED: Reason.QUOTA_EXCEEDED,
    Outcome.TOO_SOON: Reason.TOO_SOON,
    Outcome.UNKNOWN_USER: Reason.UNKNOWN_USER,
    Outcome.NO_QUOTA: Reason.NO_QUOTA,
}


class OutboundQuotaPolicy(CachingPolicy):
    """Limits the transmissions of a user in a rolling interval."""

    name = "OutboundQuotaPolicy"

    def __init__(
        self, settings: Settings, state: LiveState, book: PolicyBook, due: Callable[[Hashable], bool] = never
    ) -> None:
        super().__init__(state, book, due)
        self._settings = settings.oqp
        self._no_user = settings.chapps.no_user_key_response
        self._rules = rules(settings)

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Count a request against its user's quota.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        :raises Outdated: if an assumption of the request is wrong.
        """
        return self._judge(request, self._spend_now, self._due)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, self._peek_spend, never)

    def _spend_now(self, request: OutboundPPR, spend: Spend, fill: Fill | None = None) -> Awaitable[Spent]:
        return self._state.spend(spend, self._rules, fill, request.assumptions)

    def _peek_spend(self, request: OutboundPPR, spend: Spend, fill: Fill | None = None) -> Awaitable[Spent]:
        return self._state.peek_spend(spend, self._rules, fill)

    async def _judge(
        self, request: OutboundPPR, ask: Callable[..., Awaitable[Spent]], due: Callable[[Hashable], bool]
    ) -> Decision:
        stage = request.get("protocol_state")
        if stage not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        try:
            user = request.user
        except (AuthenticationFailureException, ValueError):
            return self._nobody(request)
        spend = self._spend(request, user, stage)
        if due(user):
            await self._compare(user)
        self.looks += 1
        source = CACHE
        spent = await ask(request, spend)
        if spent.outcome is Outcome.MISSING:
            source = DATABASE
            spent = await ask(request, spend, await self._look_up(user, spent.token))
        if spent.outcome is Outcome.OUTDATED:
            raise Outdated
        if request.assumptions:
            request.clear_assumptions()
        return self._decision(spent, spend, request, source)

    def _nobody(self, request: OutboundPPR) -> Decision:
        if not request.sender and self._settings.null_sender_ok:
            # Without a user there are no figures.
            shown = dict.fromkeys(("limit", "used", "remaining", "user", "sender"), "-")
            action = fill(self._settings.acceptance_message, shown | _wait(0))
            return Decision(action, Reason.NULL_SENDER_ACCEPTED, self.name)
        return Decision(self._no_user, Reason.NO_USER, self.name)

    def _spend(self, request: OutboundPPR, user: str, stage: str) -> Spend:
        instance = request.get("instance")
        if not self._settings.counting_recipients:
            return Spend(user, instance, "", 1)
        if stage == "RCPT":
            return Spend(user, instance, request.get("recipient"), 0)
        return Spend(user, instance, "", request.recipients)

    async def _compare(self, user: str) -> None:
        """Delete a cached limit that differs from the book. If the book is unavailable, the limit stays cached."""
        [usage] = await self._state.usage([user], self._rules.interval)
        if usage.limit is None:
            return
        with suppress(BookUnavailable):
            if usage.limit != copy_of(await self._book.quota_of(user)):
                await self._state.drop_limits([user])

    async def _look_up(self, user: str, token: str) -> Fill:
        self.misses += 1
        grant = await self._book.quota_of(user)
        ttl = self._settings.cache_ttl
        return Fill(token, copy_of(grant), ttl if grant.limit is not None else min(UNKNOWN_TTL, ttl))

    def _decision(self, spent: Spent, spend: Spend, request: OutboundPPR, source: str) -> Decision:
        reason = _REASONS[spent.outcome]
        remaining = max(0, spent.limit - spent.used)
        figures = {"limit": spent.limit, "used": spent.used, "remaining": remaining}
        who = {"user": spend.user, "sender": request.get("sender")}
        if spent.outcome is Outcome.ACCEPTED or spent.outcome is Outcome.REPEATED:
            action = self._settings.acceptance_message
            if "{" in action:
                action = fill(action, figures | who | _wait(0))
            return Decision(action, reason, self.name, figures, source=source)
        wait = ceil(spent.wait)
        text = fill(self._refusal(spent, spend), figures | who | _wait(wait))
        return Decision(text, reason, self.name, figures | {"wait": wait}, source=source)

    def _refusal(self, spent: Spent, spend: Spend) -> str:
        settings = self._settings
        if spent.outcome is Outcome.NO_QUOTA:
            return settings.no_quota_message
        if spent.outcome is Outcome.UNKNOWN_USER:
            return settings.unknown_user_message
        # A short wait is enough here: a permanent refusal would lose mail that no person sends again.
        if spent.outcome is Outcome.TOO_SOON:
            return settings.min_delta_message
        most = spent.limit + self._rules.margin_count + floor(spent.limit * self._rules.margin_ratio)
        return settings.rejection_message if spent.wait and spend.cost <= most else settings.too_large_message


def _wait(seconds: int) -> dict[str, object]:
    return {"retry_after": seconds, "retry_in": in_words(seconds)}


def copy_of(grant: QuotaGrant) -> int:
    """The number that the state keeps: a limit, or that there is none."""
    if grant.limit is not None:
        return grant.limit
    return NO_QUOTA if grant.known else UNKNOWN_USER


def rules(settings: Settings) -> Rules:
    """The counting rules of the settings."""
    margin = settings.oqp.margin
    return Rules(settings.oqp.interval, margin.count, margin.ratio, settings.oqp.min_delta)


SPEC = PolicySpec(
    section=Section,
    direction=Direction.OUTBOUND,
    make=lambda use: OutboundQuotaPolicy(use.settings, use.state, use.book, use.due),
    cache="limits",
)
