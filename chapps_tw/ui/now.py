"""The start of the page: what happens now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.interfaces import IReactorTime

from chapps_tw.interfaces.history import HistoryUnavailable
from chapps_tw.interfaces.state import StateUnavailable
from chapps_tw.observe.decision_rates import DecisionRates
from chapps_tw.rest.routing import Reply
from chapps_tw.ui.feed import Feed
from chapps_tw.ui.sentences import Teller
from chapps_tw.ui.shared import Shared
from chapps_tw.ui.views import Answer, Html, Raw, View, Visit

# Seconds for which visitors share who is near a limit, and who sends most. Open pages ask again after 30 and 60.
NEAR_SECONDS, TOP_SECONDS = 5.0, 30.0
# Of the chart, in seconds.
BUCKET = 10
# Percent of a limit from which on somebody is near it.
NEAR = 80
SHOWN = 10
PERIODS = {"5m": "5 minutes", "1h": "1 hour", "24h": "24 hours"}


class Now:
    """The views of what happens now.

    :param rates: decisions of the last hour.
    :param node: the name of this node.
    :param now: epoch seconds.
    :param reactor: for durations.
    """

    def __init__(
        self,
        rates: DecisionRates,
        node: str,
        teller: Teller,
        feed: Feed,
        now: Callable[[], float],
        reactor: IReactorTime,
    ) -> None:
        self._near: Shared[Reply] = Shared(NEAR_SECONDS, reactor)
        self._top: Shared[Reply] = Shared(TOP_SECONDS, reactor)
        self._rates = rates
        self._node = node
        self._teller = teller
        self._feed = feed
        self._now = now

    def views(self) -> Iterator[View]:
        yield View("GET", "/ui", self.show)
        yield View("GET", "/ui/now/state", self.state)
        yield View("GET", "/ui/now/near", self.near)
        yield View("GET", "/ui/now/top", self.top)
        yield View("GET", "/ui/now/events", self.events)
        yield View("GET", "/ui/now/rates", self.rates)
        yield View("GET", "/ui/now/feed", self._feed.view)

    async def show(self, visit: Visit) -> Answer:
        return Html("now.html", {**await self._state(visit), "periods": PERIODS, "node": self._node})

    async def state(self, visit: Visit) -> Answer:
        return Html("now-state.html", await self._state(visit))

    async def _state(self, visit: Visit) -> dict[str, object]:
        """Return numbers, dependencies, nodes and listeners."""
        now = self._now()
        buckets = self._rates.buckets(now, BUCKET)
        # The last one is not over.
        last = buckets[-2]
        reasons = self._rates.reasons(now)
        return {
            "decisions": sum(each.decisions for each in buckets),
            "stopped": sum(each.stopped for each in buckets),
            "per_second": last.decisions / BUCKET,
            "stopped_per_second": last.stopped / BUCKET,
            "reasons": [(reason, self._teller.meaning(reason), count) for reason, count in reasons[:SHOWN]],
            "dependencies": (await visit.call("GET", "/ready")).response,
            "nodes": await _nodes(visit),
            "listeners": (await visit.call("GET", "/live/listeners/")).response,
        }

    async def rates(self, _: Visit) -> Answer:
        """Show the points of the chart: times, decisions a second, and those that stopped mail."""
        buckets = self._rates.buckets(self._now(), BUCKET)[:-1]
        columns = (
            [each.start for each in buckets],
            [each.decisions / BUCKET for each in buckets],
            [each.stopped / BUCKET for each in buckets],
        )
        return Raw(json.dumps(columns).encode(), "application/json")

    async def near(self, visit: Visit) -> Answer:
        reply = await self._near.get(None, partial(visit.call, "GET", "/users/", near=NEAR, limit=SHOWN))
        return Html("now-near.html", {"users": reply.response, "remarks": reply.remarks})

    async def top(self, visit: Visit) -> Answer:
        since = visit.query["since"] if visit.query["since"] in PERIODS else "1h"
        values = {"since": since, "senders": [], "problem": ""}
        try:
            count = partial(visit.call, "GET", "/history/counts/", by="user", since=since, limit=SHOWN)
            reply = await self._top.get(since, count)
        except HistoryUnavailable as error:
            return Html("now-top.html", {**values, "problem": str(error)})
        return Html("now-top.html", {**values, "senders": reply.response})

    async def events(self, visit: Visit) -> Answer:
        return Html("now-events.html", {"events": (await visit.call("GET", "/events/", limit=SHOWN)).response})


async def _nodes(visit: Visit) -> Any:
    """Return the nodes that share the state; none while it is unavailable, which is shown anyway."""
    try:
        return (await visit.call("GET", "/nodes/")).response
    except StateUnavailable:
        return []
