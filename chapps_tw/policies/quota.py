"""Outbound quota: may this user send more?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import ceil

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Spent
from chapps_tw.mail.decision import Decision, Reason
from chapps_tw.outbound import AuthenticationFailureException, OutboundPPR, search_path
from chapps_tw.policies.charging import STAGES
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.policies.limits import ActiveLimit
from chapps_tw.policies.pending import Decided, PendingDecision
from chapps_tw.policies.plans import Plans
from chapps_tw.policies.quota_answers import Answers
from chapps_tw.policies.recent_limits import Found
from chapps_tw.policies.reservations import SERVER, Reservations
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec
from chapps_tw.policies.stages import Need, of_message, of_units


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
        self.depends_on = ("protocol_state", "sender", "recipient_count", *SERVER, *search_path(settings))

    @property
    def looks(self) -> int:
        """Lookups of limits."""
        return self._plans.looks

    @property
    def misses(self) -> int:
        """Lookups for which the book was read."""
        return self._plans.misses

    @property
    def needs(self) -> Iterable[Need]:
        """The stages that the limits of those who sent so far need."""
        return of_units("limits of quotas", self._plans.units)

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
        stage = request.get("protocol_state")
        active, charges, advisory = charged = recent.charges(limits, request, stage)
        if version is not None:
            # Otherwise, what it costs depends on its size, or on the time: an override is in force for a while.
            request.rely_on(version, alike=charged is recent.charged)
        if not active or limits.suspended or not limits.limited:
            return self._without_charge(request, found, user)
        every = [*charges, *advisory] if advisory else charges
        note = self._note if keep else _note_nothing
        conclude = _Conclusion(self._answers, note, user, source, active, every)
        reserve = self._reservations.of(request, stage) if keep else 0.0
        return PendingDecision(charges, conclude, reserve, advisory)

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


class _Conclusion:
    """Decides by what the charges of a user have resulted in.

    :param note: notes which limits are reached, or almost.
    """

    def __init__(
        self,
        answers: Answers,
        note: Callable[[Spent, Sequence[ActiveLimit], Sequence[Charge]], None],
        user: str,
        source: str,
        active: Sequence[ActiveLimit],
        charges: Sequence[Charge],
    ) -> None:
        self._answers = answers
        self._note = note
        self._user = user
        self._source = source
        self._active = active
        self._charges = charges
        self._last: tuple[object, Decision] | None = None

    def __call__(self, request: OutboundPPR, left: Sequence[Charge], spent: Spent) -> Decision:
        if spent.decisive >= 0:
            return self._refused(request.get("sender"), left, spent)
        limits = self._limits(left)
        self._note(spent, limits, left)
        return self._answers.counted(spent, limits, self._user, request.get("sender"), self._source)

    def _refused(self, sender: str, left: Sequence[Charge], spent: Spent) -> Decision:
        # A client that goes on is refused in the same words until a second has passed.
        key = (sender, spent.outcome, spent.decisive, spent.used, ceil(spent.wait), left is self._charges)
        if self._last is not None and self._last[0] == key and key[-1]:
            return self._last[1]
        limits = self._limits(left)
        self._note(spent, limits, left)
        decision = self._answers.refused(spent, limits, self._user, sender, self._source)
        self._last = key, decision
        return decision

    def _limits(self, left: Sequence[Charge]) -> Sequence[ActiveLimit]:
        return self._active if left is self._charges else _limits_of(left, self._active, self._charges)


def _note_nothing(_spent: Spent, _active: Sequence[ActiveLimit], _charges: Sequence[Charge]) -> None:
    """Do nothing: an explanation changes nothing."""


def _limits_of(
    left: Sequence[Charge], active: Sequence[ActiveLimit], charges: Sequence[Charge]
) -> Sequence[ActiveLimit]:
    """Return the limits of those charges that are left."""
    return [limit for limit, charge in zip(active, charges, strict=True) if any(charge is each for each in left)]


def _make(use: Dependencies) -> OutboundQuotaPolicy:
    plans = Plans(use.settings, use.state, use.book, use.now, use.due)
    reservations = Reservations(use.settings.oqp.reservation_ttl, use.monotonic)
    return OutboundQuotaPolicy(use.settings, plans, reservations, use.events)


SPEC = PolicySpec(
    section=Section,
    direction=Direction.OUTBOUND,
    make=_make,
    needs=lambda _: [of_message(Section.section)],
    learned=lambda policy: policy.needs,
    cache="limits",
)
