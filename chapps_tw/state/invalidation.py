"""The values of the policy book that are cached in the live state, and their invalidation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from chapps_tw.interfaces.book import StaleKeys
from chapps_tw.interfaces.state import LiveState


class BookCache:
    """What the book calls when a change makes cached values stale. Works with any state store.

    :param state: where the values are cached.
    :param compare_all: has each cached value be compared with the book before this node uses it again.
    """

    def __init__(self, state: LiveState, compare_all: Callable[[], None]) -> None:
        self._state = state
        self._compare_all = compare_all

    async def ping(self) -> None:
        """Return when keys can be invalidated.

        :raises StateUnavailable: when they cannot be.
        """
        await self._state.ping()

    async def invalidate(self, stale: StaleKeys) -> None:
        """Invalidate some keys.

        :raises StateUnavailable: when one cannot be.
        """
        if stale.unlisted:
            self._compare_all()
        if stale.limits:
            await self._state.drop_limits(sorted(stale.limits))
        if stale.flags:
            await self._state.drop_flags(sorted(stale.flags))
        for domain in sorted(stale.flags):
            await self._state.drop_verdicts("spf", domain, ["check_spf"])
        names: defaultdict[str, list[str]] = defaultdict(list)
        for user, name in sorted(stale.senders):
            names[user].append(name)
        for user, senders in names.items():
            await self._state.drop_verdicts("sda", user, senders)
