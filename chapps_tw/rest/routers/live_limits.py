"""All limits of a user or a pool, with what is used of them, and the events near limits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from chapps_tw.interfaces.book import Override
from chapps_tw.interfaces.state import LiveState
from chapps_tw.mail.addresses import normal_name
from chapps_tw.policies.events import MAX_EVENTS
from chapps_tw.policies.limits import in_force
from chapps_tw.rest import answers as a
from chapps_tw.rest import live_answers as answers
from chapps_tw.rest.models import live as m
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routers.live_users import LiveUsers, Measured, limit_row
from chapps_tw.rest.routing import Reply, Route
from chapps_tw.rest.slices import Slices
from chapps_tw.security.tokens import Scope


class LiveLimits:
    """Routes for limits of any kind.

    :param now: epoch seconds.
    :param fold_case: ``[CHAPPS] fold_case``.
    :param slices: for many events.
    """

    def __init__(
        self, users: LiveUsers, state: LiveState, now: Callable[[], float], fold_case: bool, slices: Slices
    ) -> None:
        self._slices = slices
        self._users = users
        self._fold_case = fold_case
        self._state = state
        self._now = now

    def routes(self) -> Iterator[Route[Any]]:
        user, pool = "/live/limits/{user}", "/live/pools/{domain}"
        yield Route(
            "GET", user, "Show all limits of a user, what is used, and the overrides in force", self.of_user,
            m.LimitsOf, answers.UserLimits, tag="live",
            note="The user need not be in the database. A pool is shared with the other users of the domain.",
        )  # fmt: skip
        yield Route(
            "DELETE", user, "Reset the usage of a user in all units", self.reset_user, m.UserOnly, a.Count,
            scope=Scope.OPERATOR, query=False, tag="live", note="The usage of the domain's pool stays.",
        )  # fmt: skip
        yield Route(
            "GET", pool, "Show the limits that the users of a domain share, and what is used", self.of_pool,
            m.DomainOnly, answers.PoolLimits, query=False, tag="live",
        )  # fmt: skip
        yield Route(
            "DELETE", pool, "Reset the usage of a domain's pool in all units", self.reset_pool, m.DomainOnly, a.Count,
            scope=Scope.OPERATOR, query=False, tag="live",
        )  # fmt: skip
        yield Route(
            "GET", "/live/events/", "Show when limits were almost reached, or reached; newest first", self.events,
            m.EventsWanted, answers.EventList, tag="live",
            note="An event is listed once in a window of its limit, whichever node noticed it.",
        )  # fmt: skip

    async def of_user(self, which: m.LimitsOf) -> Reply:
        user = normal_name(which.user, self._fold_case)
        sender = f"@{which.domain}" if which.domain else which.sender
        measured = await self._users.named(user, sender, compare=True)
        limits = measured.limits
        overrides = [
            *(_override(each, "user") for each in in_force(limits.overrides, self._now())),
            *(_override(each, "domain") for each in in_force(limits.domain_overrides, self._now())),
        ]
        return Reply(
            {
                "user": user,
                "known": limits.known,
                "may_send": limits.limited and not limits.suspended,
                "domain": measured.domain,
                "limits": _rows(measured),
                "overrides": overrides,
            }
        )

    async def of_pool(self, which: m.DomainOnly) -> Reply:
        measured = await self._users.pool(which.domain)
        overrides = in_force(measured.limits.domain_overrides, self._now())
        shown = [_override(each, "domain") for each in overrides]
        return Reply({"domain": which.domain, "limits": _rows(measured), "overrides": shown})

    async def reset_user(self, which: m.UserOnly) -> Reply:
        return Reply(await self._users.reset(normal_name(which.user, self._fold_case)))

    async def reset_pool(self, which: m.DomainOnly) -> Reply:
        return Reply(await self._users.reset_pool(which.domain))

    async def events(self, wanted: m.EventsWanted) -> Reply:
        found = map(json.loads, await self._state.events(MAX_EVENTS))
        fitting = (with_iso(event, "at") if wanted.kind in ("", event["kind"]) else None for event in found)
        return Reply(await self._slices.collect(fitting, wanted.limit))


def _rows(measured: Measured) -> Sequence[Mapping[str, Any]]:
    return [limit_row(limit, usage) for limit, usage in measured.usages]


def _override(override: Override, about: str) -> Mapping[str, Any]:
    return {"about": about, **with_iso(override._asdict(), "begin", "until")}
