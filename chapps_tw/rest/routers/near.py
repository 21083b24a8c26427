"""The users who have used much of a limit.

The state has no list of all accounts that could be read for each request. It keeps the last events: who has reached
``warn_at`` percent of a limit. Those users are measured again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState, Unit, Usage
from chapps_tw.policies.events import MAX_EVENTS
from chapps_tw.policies.limits import UNLIMITED, ActiveLimit, Level
from chapps_tw.rest.moments import iso
from chapps_tw.rest.routers.live_users import LiveUsers, Measured
from chapps_tw.rest.slices import Slices

# Users per operation on the state.
BATCH: Final = 20
# Pools that a remark names.
_SHOWN: Final = 10


class Near(NamedTuple):
    """A login that has used much of a limit.

    :ivar known: whether the database contains the user.
    :ivar share: the largest share of a limit that is used.
    :ivar limits: those of which that much is used.
    """

    login: str
    known: bool
    share: float
    limits: Sequence[tuple[ActiveLimit, Usage]]


class _Noticed(NamedTuple):
    """The accounts in the events, each once, the last noticed first.

    :ivar logins: users.
    :ivar pools: domains.
    :ivar since: epoch seconds of the oldest event, if there may have been earlier ones; otherwise 0.
    """

    logins: Sequence[str]
    pools: Sequence[str]
    since: float


class NearLimits:
    """Finds users who have used much of a limit.

    :param now: epoch seconds.
    """

    def __init__(
        self, settings: Settings, users: LiveUsers, state: LiveState, slices: Slices, now: Callable[[], float]
    ) -> None:
        self._warn_at = settings.oqp.warn_at
        self._users = users
        self._state = state
        self._slices = slices
        self._now = now

    async def find(self, percent: int, part: str) -> tuple[list[Near], list[str]]:
        """Return the users of the database who have used at least ``percent`` of a limit; and remarks.

        The first has used the largest share.

        :param part: of the name, without case.
        """
        noticed = await self._noticed()
        logins = [login for login in noticed.logins if part.lower() in login.lower()]
        measured = await self._slices.in_parts(logins, BATCH, self._users.several)
        pairs = zip(logins, measured, strict=True)
        found = await self._slices.collect(_near(login, each, percent) for login, each in pairs)
        known = sorted((each for each in found if each.known), key=lambda each: (-each.share, each.login))
        return known, self._about(percent, noticed, len(logins), len(found) - len(known))

    async def _noticed(self) -> _Noticed:
        texts = await self._state.events(MAX_EVENTS)
        events = await self._slices.collect(self._recent(json.loads(text)) for text in texts)
        spaces = {level: {self._users.space(level, unit) for unit in Unit} for level in (Level.USER, Level.POOL)}
        logins, pools = (
            list(dict.fromkeys(event["account"] for event in events if event["space"] in spaces[level]))
            for level in (Level.USER, Level.POOL)
        )
        return _Noticed(logins, pools, events[-1]["at"] if len(events) == MAX_EVENTS else 0.0)

    def _recent(self, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return an event unless it is over: it is noted once in a window, and what it is about leaves that."""
        return event if event["at"] + 2 * event["window"] > self._now() else None

    def _about(self, percent: int, noticed: _Noticed, count: int, unknown: int) -> list[str]:
        """Return remarks on what was looked at, and what was not."""
        if not self._warn_at:
            return ["Nobody is noticed near a limit: [OutboundQuotaPolicy] warn_at is 0."]
        remarks = [f"Looked at: {count} logins that a message has brought to {self._warn_at} % of a limit (warn_at)."]
        if percent < self._warn_at:
            remarks.append(f"Others who have used {percent} % are not listed.")
        if noticed.since:
            remarks.append(f"Only the last {MAX_EVENTS} events were looked at, since {iso(noticed.since)}.")
        if unknown:
            remarks.append(f"{unknown} more are not in the database, or their names are too long: see /live/events/.")
        if noticed.pools:
            names = ", ".join(noticed.pools[:_SHOWN]) + (" and others" if len(noticed.pools) > _SHOWN else "")
            remarks.append(f"Pools of these domains were near a limit, too: {names}. See /live/pools/DOMAIN.")
        return remarks


def _near(login: str, measured: Measured, percent: int) -> Near | None:
    """Return a login with the limits of which it has used at least ``percent``; ``None`` if there are none."""
    near = [
        (limit, usage)
        for limit, usage in measured.usages
        if usage.used and limit.amount < UNLIMITED and 100 * usage.used >= percent * limit.amount
    ]
    if not near:
        return None
    share = max(usage.used / max(1, limit.amount) for limit, usage in near)
    return Near(login, measured.limits.known, share, near)
