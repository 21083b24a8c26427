"""The daily report: what it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from chapps_tw.interfaces.history import Group, GroupBy, History, Wanted
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.writable_book import OverrideEntry, WritableBook
from chapps_tw.notify.facts import Values, clean, moment
from chapps_tw.notify.notice import Notice, account_of
from chapps_tw.policies.events import MAX_EVENTS, EventKind, LimitEvent, event_of

# Lines of each list.
_MOST: Final = 20
_DAY: Final = 86400.0


class Report:
    """Gathers the last 24 hours of all nodes.

    :param node: name of this node.
    """

    def __init__(self, state: LiveState, book: WritableBook, history: History, node: str) -> None:
        self._state = state
        self._book = book
        self._history = history
        self._node = node

    async def of(self, notice: Notice) -> Values:
        """Return what a report says.

        :raises StateUnavailable, BookUnavailable, HistoryUnavailable: if something is unavailable.
        """
        until = notice.created
        wanted = Wanted(since=until - _DAY, until=until)
        senders = await self._history.counts(wanted, GroupBy.USER, _MOST + 1)
        refused = Wanted(since=until - _DAY, until=until, refused=True)
        reasons = await self._history.counts(refused, GroupBy.REASON, _MOST)
        return {
            "node": self._node,
            "since": moment(until - _DAY),
            "until": moment(until),
            "senders": _shown([group for group in senders.groups if group.key][:_MOST]),
            "reasons": _shown(reasons.groups),
            "limits": await self._limits(until),
            "suspended": await self._suspended(until),
        }

    async def _limits(self, until: float) -> Sequence[dict[str, Any]]:
        """Return which limits were reached, the last ones first."""
        events = [event for event in map(event_of, await self._state.events(MAX_EVENTS)) if event]
        reached = [each for each in events if each.kind == EventKind.AT_LIMIT and until - _DAY <= each.at < until]
        return [_limit(event) for event in reached[:_MOST]]

    async def _suspended(self, until: float) -> Sequence[dict[str, Any]]:
        """Return who is suspended."""
        rules = [each for each in await self._book.rules("overrides", after=until) if isinstance(each, OverrideEntry)]
        found = [each for each in rules if each.kind == "suspended" and each.begin <= until][:_MOST]
        names: dict[tuple[str, int | None], str] = {}
        for kind, ids in (("users", {each.user for each in found}), ("domains", {each.domain for each in found})):
            entries = await self._book.by_ids(kind, [id for id in ids if id is not None])
            names |= {(kind, entry.id): entry.name for entry in entries}
        return [
            {
                "name": clean(names.get(("users", each.user)) or names.get(("domains", each.domain)) or "?"),
                "until": moment(each.until),
                "reason": clean(each.reason),
                "author": clean(each.author),
            }
            for each in found
        ]


def _shown(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{**group._asdict(), "key": clean(group.key)} for group in groups]


def _limit(event: LimitEvent) -> dict[str, Any]:
    own = {"account": clean(account_of(event)), "limit": clean(event.limit), "at": moment(event.at)}
    return {**event._asdict(), **own}
