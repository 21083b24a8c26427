"""The limits of ``[Limit NAME]``: what they are, and how much of them is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState
from chapps_tw.policies.limit_rules import Rule, rules_of
from chapps_tw.rest import answers as a
from chapps_tw.rest import rate_limit_answers as r
from chapps_tw.rest.models import live as m
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routing import Refusal, Reply, Route, invalid
from chapps_tw.security.tokens import Scope

_NOTE = (
    "`what` is what the limit counts, in any spelling: a user, an address, a domain, a HELO name; any address of a "
    "client network; `everybody` if that is what it counts."
)


class LiveRateLimits:
    """Routes for the limits of the configuration. Their use comes from the state."""

    def __init__(self, settings: Settings, state: LiveState) -> None:
        self._limits = settings.limits
        self._rules = {rule.limit.name: rule for rule in rules_of(settings)}
        self._state = state

    def routes(self) -> Iterator[Route[Any]]:
        path = "/live/rate-limits/{name}/{what}"
        yield Route(
            "GET", "/live/rate-limits/", "List the limits of the configuration", self.all, answer=r.RateLimitList,
            tag="live",
        )  # fmt: skip
        yield Route(
            "GET", path, "Show how much of a limit is used", self.use, m.Counted, r.OneRateLimitUse, query=False,
            errors=(404,), tag="live", note=_NOTE,
        )  # fmt: skip
        yield Route(
            "DELETE", path, "Reset the use of a limit", self.reset, m.Counted, a.Count, query=False, errors=(404,),
            scope=Scope.OPERATOR, tag="live", note=f"Returns what was counted. {_NOTE}",
        )  # fmt: skip

    async def all(self, _: Any) -> Reply:
        return Reply(
            [
                {
                    "name": limit.name,
                    "per": limit.per,
                    "unit": str(limit.unit),
                    "amount": limit.amount,
                    "window": limit.window.seconds,
                    "match": list(map(str, limit.match)),
                    "action": limit.action,
                    "mode": limit.mode,
                    "warn_at": limit.warn_at,
                    "applied": limit.name in self._rules,
                }
                for limit in self._limits
            ]
        )

    async def use(self, which: m.Counted) -> Reply:
        rule, what = self._find(which)
        limit = rule.limit
        [usage] = await self._state.usage([rule.window(what)])
        left = max(0, limit.amount - usage.used)
        found = {"name": limit.name, "what": what, "amount": limit.amount, "used": usage.used, "left": left}
        remarks = [] if usage.used else [f"Nothing was counted for {what} in the last {limit.window.words}."]
        room_at = usage.oldest + limit.window.seconds if usage.oldest and not left else None
        times = with_iso({"room_at": room_at, "last": usage.last}, "room_at", "last")
        return Reply({**found, **times}, remarks=remarks)

    async def reset(self, which: m.Counted) -> Reply:
        rule, what = self._find(which)
        [used] = await self._state.reset([rule.window(what)])
        return Reply(used, remarks=[] if used else [f"Nothing was counted for {what}."])

    def _find(self, which: m.Counted) -> tuple[Rule, str]:
        """Return a limit and the normal form of what it counts."""
        rule = self._rules.get(which.name)
        if rule is None:
            raise Refusal(404, f"There is no limit with name {which.name} that RateLimitPolicy applies.")
        what = rule.what(which.what)
        if not what:
            raise invalid("path", "what", f"must name a {rule.limit.per.replace('_', ' ')}")
        return rule, what
