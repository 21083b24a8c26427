"""The values of the policy book that are cached in the live state, and their invalidation."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import StaleKeys
from chapps_tw.interfaces.state import LiveState, ValueKey


class BookCache:
    """What the book calls when a change makes cached values stale. Works with any state store.

    :param state: where the values are cached.
    :param compare_all: has each cached value be compared with the book before this node uses it again.
    """

    def __init__(self, state: LiveState, compare_all: Callable[[], Awaitable[None]]) -> None:
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
            await self._compare_all()
        if stale.flags:
            await self._state.drop_flags(sorted(stale.flags))
        keys = list(_value_keys(stale))
        if keys:
            await self._state.drop_values(keys)


def _value_keys(stale: StaleKeys) -> Iterator[ValueKey]:
    yield from map(value_keys.plan, stale.quotas)
    yield from map(value_keys.plan_named, stale.quota_names)
    yield from map(value_keys.domain_plan, stale.domains)
    yield from map(value_keys.senders_of_domain, stale.sender_domains)
    yield from map(value_keys.user_plan, stale.users)
    yield from map(value_keys.check_spf, stale.flags)
    for user, name in stale.senders:
        yield value_keys.sender(user, name)
    if stale.exemptions:
        yield value_keys.EXEMPTIONS
