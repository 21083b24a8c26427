"""Outbound quota: may this user send more?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Spent
from chapps_tw.mail.decision import CACHE, Decision, Reason
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies.charging import STAGES
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.policies.limits import ActiveLimit
from chapps_tw.policies.pending import Decided, PendingDecision
from chapps_tw.policies.plans import Plans
from chapps_tw.policies.quota_answers import Answers
from chapps_tw.policies.recent_limits import Found
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec


class OutboundQuotaPolicy:
    """Limits what a user, and the users of a domain together, may send in rolling windows.

    Its decision is pending until all limits that the request is judged by are charged: all of them, or none.

    :param reservations: of this listener alone.
    """

    name = "OutboundQuotaPolicy"

    def __init__(self, settings: Settings, plans: Plans, reservations: Reservations, events: Events) -> None:
        self._settings = settings.oqp
        self._no_user = settings.chapps.no_user_key_response
        self._now = plans.now
        self._plans = plans
        self._reservations = reservations
        self._note = Notes(events, settings.oqp.warn_at).note
        self._answers = Answers(settings.oqp, self.name)

    @property
    def looks(self) -> int:
        """Lookups of limits."""
        return self._plans.looks

    @property
    def misses(self) -> int:
        """Lookups for which the book was read."""
        return self._plans.misses

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decided | Awaitable[Decided]:
        """Find what a request costs, and what is decided then.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        """
        return self._judge(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decided | Awaitable[Decided]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, keep=False)

    def _judge(self, request: OutboundPPR, keep: bool) -> Decided | Awaitable[Decided]:
        stage = request.get("protocol_state")
        if stage not in STAGES:
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name)
        sender = request.get("sender")
        try:
            user = request.user
        except (AuthenticationFailureException, ValueError):
            return self._nobody(sender)
        domain = self._plans.domain_of(user, sender)
        found = self._plans.recall(user, domain) if keep else None
        if found is None:
            return self._read(request, user, domain, keep)
        return self._decide(request, user, found, keep)

    async def _read(self, request: OutboundPPR, user: str, domain: str, keep: bool) -> Decided:
        return self._decide(request, user, await self._plans.read(user, domain, keep), keep)

    def _decide(self, request: OutboundPPR, user: str, found: Found, keep: bool) -> Decided:
        limits, version, source, recent = found
        if version is not None:
            request.rely_on(version)
        stage = request.get("protocol_state")
        active, charges, advisory = charged = recent.charges(limits, request, stage)
        if not active or limits.suspended or not limits.limited:
            return self._without_charge(request, found, user)
        pending = recent.pending if source is CACHE else None
        if pending is None or pending.charges is not charges or not keep:
            every = [*charges, *advisory] if advisory else charges
            conclude = self._conclusion(user, source, active, every, keep)
            pending = PendingDecision(charges, conclude, 0.0, advisory)
            if keep and source is CACHE and charged is recent.charged:
                recent.pending = pending
        reserve = self._reservations.of(request, stage) if keep else 0.0
        return pending._replace(reserve=reserve) if reserve else pending

    def _conclusion(
        self, user: str, source: str, active: Sequence[ActiveLimit], charges: Sequence[Charge], keep: bool
    ) -> Callable[[OutboundPPR, Sequence[Charge], Spent], Decision]:
        # Is remembered with the limits of the user: a reference to the policy, which has them, would be a cycle.
        answers, note = self._answers, self._note

        def conclude(request: OutboundPPR, left: Sequence[Charge], spent: Spent) -> Decision:
            limits = active if left is charges else _limits_of(left, active, charges)
            if keep:
                note(spent, limits, left)
            make = answers.counted if spent.decisive < 0 else answers.refused
            return make(spent, limits, user, request.get("sender"), source)

        return conclude

    def _nobody(self, sender: str) -> Decision:
        if not sender and self._settings.null_sender_ok:
            return self._answers.accepted(Reason.NULL_SENDER_ACCEPTED, "-", "-")
        return Decision(self._no_user, Reason.NO_USER, self.name)

    def _without_charge(self, request: OutboundPPR, found: Found, user: str) -> Decision:
        """Decide what nothing is counted for."""
        limits, sender = found.limits, request.get("sender")
        if limits.suspended:
            return self._answers.suspended(limits.suspended, user, sender, self._now(), found.source)
        if not limits.limited:
            return self._answers.without_plan(limits.known, user, sender, self._plans.missing_default, found.source)
        if limits.active:
            # Of the units that these limits count, this request tells none.
            detail = ", ".join(limit.label for limit in limits.active)
            return Decision("DUNNO", Reason.STAGE_NOT_JUDGED, self.name, detail=detail, source=found.source)
        return self._answers.accepted(Reason.WITHIN_QUOTA, user, sender, found.source)


class Notes:
    """Notes which limits are reached, or almost.

    :param warn_at: ``[OutboundQuotaPolicy] warn_at``.
    """

    def __init__(self, events: Events, warn_at: int) -> None:
        self._events = events
        self._warn_at = warn_at

    def note(self, spent: Spent, active: Sequence[ActiveLimit], charges: Sequence[Charge]) -> None:
        """Note what a message has used of the limits that it was charged to."""
        # A message that is refused for its own size alone says nothing about the limit.
        exceeded = spent.outcome is Outcome.EXCEEDED and spent.wait > 0 and self._warn_at > 0
        full = spent.decisive if exceeded else -1
        for place, used in enumerate(spent.used):
            limit = active[place]
            if used >= limit.warn or place == full:
                is_full = used >= limit.amount or place == full
                kind = EventKind.AT_LIMIT if is_full else EventKind.NEAR_LIMIT
                self._events.note(kind, charges[place], limit.name or limit.quota, limit.level, used, limit.amount)


def _limits_of(
    left: Sequence[Charge], active: Sequence[ActiveLimit], charges: Sequence[Charge]
) -> Sequence[ActiveLimit]:
    """Return the limits of those charges that are left."""
    return [limit for limit, charge in zip(active, charges, strict=True) if any(charge is each for each in left)]


def _make(use: Dependencies) -> OutboundQuotaPolicy:
    plans = Plans(use.settings, use.state, use.book, use.now, use.due)
    reservations = Reservations(use.settings.oqp.reservation_ttl, use.monotonic)
    return OutboundQuotaPolicy(use.settings, plans, reservations, use.events)


SPEC = PolicySpec(section=Section, direction=Direction.OUTBOUND, make=_make, cache="limits")
