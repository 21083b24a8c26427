"""Limits on mail of any kind: ``[Limit NAME]``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import ceil
from typing import NamedTuple

from chapps_tw.config.limits import ACTIONS
from chapps_tw.config.settings import RateLimitPolicy as Section
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.book import Exemption
from chapps_tw.interfaces.outcome import Outcome
from chapps_tw.interfaces.state import Charge, Spent, Unit
from chapps_tw.mail.decision import Decision, Reason, fill, in_words
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.charging import STAGES
from chapps_tw.policies.events import EventKind, Events
from chapps_tw.policies.exemptions import NOBODY, Exempt, detail_of, nobody
from chapps_tw.policies.limit_rules import Rule, rules_of
from chapps_tw.policies.pending import Decided, PendingDecision
from chapps_tw.policies.reservations import SERVER, Reservations
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec
from chapps_tw.policies.stages import Need, of_limits

_NOT_JUDGED = Decision("DUNNO", Reason.STAGE_NOT_JUDGED, Section.section)
_NOT_LIMITED = Decision("DUNNO", Reason.NOT_LIMITED, Section.section)


class Applied(NamedTuple):
    """A limit that applies to a request, and what the request costs it."""

    rule: Rule
    charge: Charge


class RateLimitPolicy:
    """Limits what a client, a network, a sender, everybody ... sends in rolling windows.

    A request is charged to all limits that apply to it, or to none. Limits in shadow mode do not stop it.

    :param events: notes events near a limit.
    :param reservations: of this listener alone.
    :param exempt: finds the exemption of a request from a limit.
    """

    name = Section.section

    def __init__(
        self,
        settings: Settings,
        events: Events,
        reservations: Reservations,
        exempt: Exempt = nobody,
    ) -> None:
        self._rules = rules_of(settings)
        self._events = events
        self._reservations = reservations
        self._exempt = exempt
        attributes = [attribute for rule in self._rules for attribute in rule.attributes]
        self.depends_on = ("protocol_state", "recipient_count", *SERVER, *attributes)
        self._sized = any(rule.limit.unit is Unit.BYTES for rule in self._rules)

    def decide(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decided | Awaitable[Decided]:
        """Charge a request to all limits that apply to it.

        :raises StateUnavailable, BookUnavailable: if the exemptions are unavailable.
        """
        return self._judge(request, True)

    def explain(self, request: OutboundPPR, earlier: Sequence[Decision] = ()) -> Decided | Awaitable[Decided]:
        """Return what :meth:`decide` would return, and change nothing. Raises the same."""
        return self._judge(request, False)

    def _judge(self, request: OutboundPPR, keep: bool) -> Decided | Awaitable[Decided]:
        stage = request.get("protocol_state")
        if stage not in STAGES:
            return _NOT_JUDGED
        applied = [Applied(rule, charge) for rule in self._rules if (charge := rule.charge(request, stage)) is not None]
        if not applied:
            return _NOT_LIMITED
        for place, each in enumerate(applied):
            exempted = self._exempt(request, each.rule.scope, keep)
            if exempted is not NOBODY:
                return self._unless_exempt(request, applied, place, exempted, keep)
        if request.version is not None and not (self._sized and stage == "END-OF-MESSAGE"):
            request.rely_on(request.version, alike=True)
        return self._charge(request, applied, keep)

    async def _unless_exempt(
        self,
        request: OutboundPPR,
        applied: Sequence[Applied],
        place: int,
        exempted: Awaitable[Exemption | None],
        keep: bool,
    ) -> Decided:
        """Charge a request that may be exempt from the limit at a place or from later ones."""
        first = await exempted
        found = [first, *[await self._exempt(request, each.rule.scope, keep) for each in applied[place + 1 :]]]
        left = [each for each, exemption in zip(applied[place:], found, strict=True) if exemption is None]
        applied = [*applied[:place], *left]
        if not applied:
            exemption = next(filter(None, found))
            return Decision("DUNNO", Reason.EXEMPTED, self.name, detail=detail_of(exemption))
        return self._charge(request, applied, keep)

    def _charge(self, request: OutboundPPR, applied: Sequence[Applied], keep: bool) -> PendingDecision:
        settled = keep and all(each.rule.settles for each in applied)
        reserve = self._reservations.of(request, request.get("protocol_state")) if settled else 0.0
        binding = [each for each in applied if not each.rule.advisory]
        advisory = [each for each in applied if each.rule.advisory]
        conclude = self._conclusion([*binding, *advisory], keep)
        return PendingDecision([each.charge for each in binding], conclude, reserve, [each.charge for each in advisory])

    def _conclusion(
        self, applied: Sequence[Applied], keep: bool
    ) -> Callable[[OutboundPPR, Sequence[Charge], Spent], Decision]:
        def conclude(request: OutboundPPR, charges: Sequence[Charge], spent: Spent) -> Decision:
            # Without those that did not fit and let the mail pass.
            left = applied if len(charges) == len(applied) else [each for each in applied if each.charge in charges]
            if keep:
                self._note(spent, left)
            return _decision(spent, left)

        return conclude

    def _note(self, spent: Spent, applied: Sequence[Applied]) -> None:
        """Note the limits that are almost reached, or reached."""
        for place, (rule, charge) in enumerate(applied):
            used, limit = spent.used[place], rule.limit
            # A message that is refused for its own size alone says nothing about the limit.
            is_full = used >= limit.amount or (place == spent.decisive and spent.wait > 0)
            if limit.warn_at and (is_full or used >= rule.warn_from):
                kind = EventKind.AT_LIMIT if is_full else EventKind.NEAR_LIMIT
                self._events.note(kind, charge, limit.name, limit.per, used, limit.amount)


def _decision(spent: Spent, applied: Sequence[Applied]) -> Decision:
    place = spent.decisive if spent.decisive >= 0 else _tightest(spent, applied)
    rule, charge = applied[place]
    used, limit = spent.used[place], charge.limit
    figures = {"limit": limit, "used": used, "remaining": max(0, limit - used)}
    detail = f"limit {rule.limit.name}, {rule.limit.per} {rule.what_of(charge)}"
    if spent.decisive < 0:
        reason = Reason.COUNTED_BEFORE if spent.outcome is Outcome.REPEATED else Reason.WITHIN_LIMITS
        return Decision("DUNNO", reason, Section.section, figures, detail)
    wait = ceil(spent.wait)
    action, figures = _refusal(rule, used, wait), figures | {"wait": wait}
    if rule.limit.mode == "shadow":
        return Decision("DUNNO", Reason.RATE_LIMITED, Section.section, figures, detail, shadow=action)
    return Decision(action, Reason.RATE_LIMITED, Section.section, figures, detail)


def _tightest(spent: Spent, applied: Sequence[Applied]) -> int:
    """Return the place of the limit of which the largest share is used; one that is enforced if there is one."""
    if len(applied) == 1:
        return 0

    def share(place: int) -> tuple[bool, float]:
        limit = applied[place].rule.limit
        return limit.mode == "enforce", spent.used[place] / max(1, limit.amount)

    return max(range(len(applied)), key=share)


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
    return RateLimitPolicy(settings, use.events, reservations, use.exempt)


def _needs(settings: Settings) -> Iterable[Need]:
    return of_limits(rule.limit for rule in rules_of(settings))


SPEC = PolicySpec(section=Section, direction=Direction.BOTH, make=_made, needs=_needs)
