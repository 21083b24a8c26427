"""Limits on mail of any kind: ``[Limit NAME]``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from math import ceil
from typing import Any, NamedTuple

from chapps_tw.config.limits import ACTIONS
from chapps_tw.config.settings import RateLimitPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import Charge, LiveState, Message, Outcome, Outdated, Spent
from chapps_tw.mail.decision import Decision, Reason, fill, in_words
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import STAGES, message_of
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.policies.exemptions import Exempt, detail_of, nobody
from chapps_tw.policies.limit_rules import Rule, rules_of
from chapps_tw.policies.reservations import Reservations
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec
from chapps_tw.policies.unasked import Unasked

_REASONS = {
    Outcome.ACCEPTED: Reason.WITHIN_LIMITS,
    Outcome.REPEATED: Reason.COUNTED_BEFORE,
    Outcome.EXCEEDED: Reason.RATE_LIMITED,
}

_NOT_JUDGED = Decision("DUNNO", Reason.STAGE_NOT_JUDGED, Section.section)
_NOT_LIMITED = Decision("DUNNO", Reason.NOT_LIMITED, Section.section)


class Applied(NamedTuple):
    """A limit that applies to a request, and what the request costs it."""

    rule: Rule
    charge: Charge


Ask = Callable[[OutboundPPR, Message, Sequence[Charge]], Awaitable[Spent]]


class RateLimitPolicy:
    """Limits what a client, a network, a sender, everybody ... sends in rolling windows.

    A request is charged to all limits that apply to it, or to none. Limits in shadow mode are charged by themselves.

    :param events: notes events near a limit.
    :param unasked: tells that a limit is never judged.
    """

    name = Section.section

    def __init__(
        self,
        settings: Settings,
        state: LiveState,
        events: Events,
        reservations: Reservations,
        unasked: Unasked,
        exempt: Exempt = nobody,
    ) -> None:
        rules = rules_of(settings)
        self._enforced = [rule for rule in rules if rule.limit.mode == "enforce"]
        self._shadow = [rule for rule in rules if rule.limit.mode == "shadow"]
        self._state = state
        self._events = events
        self._reservations = reservations
        self._exempt = exempt
        self._unasked: Unasked | None = unasked

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Charge a request to all limits that apply to it.

        :raises StateUnavailable, BookUnavailable: if the live state is unavailable, or the book and its exemptions.
        :raises Outdated: if an assumption of the request is wrong.
        """
        return self._judge(request, True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Coroutine[Any, Any, Decision]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, False)

    async def _judge(self, request: OutboundPPR, keep: bool) -> Decision:
        stage = request.get("protocol_state")
        if self._unasked is not None and keep:
            self._unasked.note(request, stage)
            if self._unasked.is_over:
                self._unasked = None
        if stage not in STAGES:
            return _NOT_JUDGED
        decision = await self._charge(self._enforced, request, stage, keep)
        if not self._shadow or decision.reason is Reason.RATE_LIMITED:
            return decision
        shadow = await self._charge(self._shadow, request, stage, keep)
        if shadow.reason is Reason.RATE_LIMITED:
            return shadow._replace(action="DUNNO", shadow=shadow.action)
        return decision if decision.figures else shadow

    async def _charge(self, rules: Sequence[Rule], request: OutboundPPR, stage: str, keep: bool) -> Decision:
        applied = [Applied(rule, charge) for rule in rules if (charge := rule.charge(request, stage)) is not None]
        if not applied:
            return _NOT_LIMITED
        found = [await self._exempt(request, each.rule.scope, keep) for each in applied]
        applied = [each for each, exemption in zip(applied, found, strict=True) if exemption is None]
        if not applied:
            exemption = next(filter(None, found))
            return Decision("DUNNO", Reason.EXEMPTED, self.name, detail=detail_of(exemption))
        charges = [each.charge for each in applied]
        if not keep:
            return _decision(await self._state.peek(message_of(request, stage), charges), applied)
        settles = all(each.rule.settles for each in applied)
        message = message_of(request, stage, self._reservations.of(request, stage) if settles else 0.0)
        spent = await self._state.spend(message, charges, request.assumptions)
        if spent.outcome is Outcome.OUTDATED:
            raise Outdated
        if request.assumptions:
            request.clear_assumptions()
        self._note(spent, applied)
        return _decision(spent, applied)

    def _note(self, spent: Spent, applied: Sequence[Applied]) -> None:
        """Note the limits that are almost reached, or reached."""
        for place, (rule, charge) in enumerate(applied):
            used, limit = spent.used[place], rule.limit
            # A message that is refused for its own size alone says nothing about the limit.
            is_full = used >= limit.amount or (place == spent.decisive and spent.wait > 0)
            if limit.warn_at and (is_full or used >= rule.warn_from):
                kind = EventKind.AT_LIMIT if is_full else EventKind.NEAR_LIMIT
                self._events.note(kind, charge.account, limit.name, limit.per, used, limit.amount, charge.window)


def _decision(spent: Spent, applied: Sequence[Applied]) -> Decision:
    place = spent.decisive if spent.decisive >= 0 else _tightest(spent, applied)
    rule, charge = applied[place]
    used, limit = spent.used[place], charge.limit
    figures = {"limit": limit, "used": used, "remaining": max(0, limit - used)}
    detail = f"limit {rule.limit.name}, {rule.limit.per} {charge.account.name.partition(':')[2]}"
    reason = _REASONS[spent.outcome]
    if spent.decisive < 0:
        return Decision("DUNNO", reason, Section.section, figures, detail)
    wait = ceil(spent.wait)
    action = _refusal(rule, used, wait)
    return Decision(action, reason, Section.section, figures | {"wait": wait}, detail)


def _tightest(spent: Spent, applied: Sequence[Applied]) -> int:
    """Return the place of the limit of which the largest share is used."""
    if len(applied) == 1:
        return 0
    return max(range(len(applied)), key=lambda place: spent.used[place] / max(1, applied[place].charge.limit))


def _refusal(rule: Rule, used: int, wait: int) -> str:
    limit = rule.limit
    verb = ACTIONS.get(limit.action)
    template = limit.action
    if verb is not None:
        # To defer what no wait helps would keep it in the client's queue for days.
        verb = ACTIONS["refuse"] if limit.action == "defer" and not wait else verb
        template = f"{verb} {limit.message if wait else limit.too_large_message}"
    figures = {"limit_name": limit.name, "limit": limit.amount, "used": used, "window": limit.window.words}
    return fill(template, figures | {"retry_after": wait, "retry_in": in_words(wait)})


def _made(use: Dependencies) -> RateLimitPolicy:
    settings = use.settings
    reservations = Reservations(settings.rlp.reservation_ttl, use.monotonic)
    unasked = Unasked([rule.limit for rule in rules_of(settings)], use.monotonic, use.warn)
    return RateLimitPolicy(settings, use.state, use.events, reservations, unasked, use.exempt)


SPEC = PolicySpec(section=Section, direction=Direction.BOTH, make=_made)
