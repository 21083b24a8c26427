"""Outbound quota: may this user send more?"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import Charge, LiveState, Outcome, Outdated, Spent
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR
from chapps_tw.policies.charging import STAGES, message_of
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.policies.limits import ActiveLimit
from chapps_tw.policies.plans import Found, Plans
from chapps_tw.policies.quota_answers import Answers
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec


class OutboundQuotaPolicy:
    """Limits what a user, and the users of a domain together, may send in rolling windows.

    All limits that a request is judged by are charged in one operation of the state: all of them, or none.

    :param reservations: of this listener alone.
    """

    name = "OutboundQuotaPolicy"

    def __init__(
        self, settings: Settings, state: LiveState, plans: Plans, reservations: Reservations, events: Events
    ) -> None:
        self._settings = settings.oqp
        self._no_user = settings.chapps.no_user_key_response
        self._now = plans.now
        self._state = state
        self._plans = plans
        self._reservations = reservations
        self._events = events
        self._answers = Answers(settings.oqp, self.name)

    @property
    def looks(self) -> int:
        """Lookups of limits."""
        return self._plans.looks

    @property
    def misses(self) -> int:
        """Lookups for which the book was read."""
        return self._plans.misses

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Count a request against all limits of its user.

        :raises StateUnavailable, BookUnavailable: if the live state or the book is unavailable.
        :raises Outdated: if an assumption of the request is wrong.
        """
        return self._judge(request, keep=True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, keep=False)

    async def _judge(self, request: OutboundPPR, keep: bool) -> Decision:
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
            found = await self._plans.read(user, domain, keep)
        limits = found.limits
        active, charges = found.recent.charges(limits, request, stage)
        if not charges or limits.suspended or not limits.limited:
            return self._without_charge(request, found, user)
        if not keep:
            spent = await self._state.peek(message_of(request, stage), charges)
        else:
            message = message_of(request, stage, self._reservations.of(request, stage))
            assumed = request.assumptions
            spent = await self._state.spend(message, charges, (*assumed, *found.assumptions))
            if spent.outcome is Outcome.OUTDATED:
                raise Outdated
            if assumed:
                request.clear_assumptions()
            self._warn(spent, active, charges)
        if spent.decisive < 0:
            return self._answers.counted(spent, active, user, sender, found.source)
        return self._answers.refused(spent, active, user, sender, found.source)

    def _nobody(self, sender: str) -> Decision:
        if not sender and self._settings.null_sender_ok:
            return self._answers.accepted(Reason.NULL_SENDER_ACCEPTED, "-", "-")
        return Decision(self._no_user, Reason.NO_USER, self.name)

    def _without_charge(self, request: OutboundPPR, found: Found, user: str) -> Decision:
        """Decide what nothing is counted for. The pipeline has the assumptions confirmed."""
        for assumption in found.assumptions:
            request.assume(assumption)
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

    def _warn(self, spent: Spent, active: Sequence[ActiveLimit], charges: Sequence[Charge]) -> None:
        """Note which limits are reached, or almost."""
        for place, used in enumerate(spent.used):
            limit = active[place]
            if used >= limit.warn:
                kind = EventKind.AT_LIMIT if used >= limit.amount else EventKind.NEAR_LIMIT
                self._note(kind, limit, charges[place], used)
        if spent.outcome is Outcome.EXCEEDED and spent.wait and self._settings.warn_at:
            self._note(EventKind.AT_LIMIT, active[spent.decisive], charges[spent.decisive], spent.used[spent.decisive])

    def _note(self, kind: EventKind, limit: ActiveLimit, charge: Charge, used: int) -> None:
        name = limit.name or limit.quota
        self._events.note(kind, charge.account, name, limit.level, used, limit.amount, limit.window)


def _make(use: Dependencies) -> OutboundQuotaPolicy:
    plans = Plans(use.settings, use.state, use.book, use.now, use.due)
    reservations = Reservations(use.settings.oqp.reservation_ttl, use.monotonic)
    return OutboundQuotaPolicy(use.settings, use.state, plans, reservations, use.events)


SPEC = PolicySpec(section=Section, direction=Direction.OUTBOUND, make=_make, cache="limits")
