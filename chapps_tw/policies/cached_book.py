"""Values of the policy book that are cached in the live state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeAlias

from chapps_tw.interfaces.book import BookUnavailable
from chapps_tw.interfaces.state import CachedValue, Fresh, LiveState, ValueKey
from chapps_tw.mail.decision import CACHE, DATABASE
from chapps_tw.policies import UNKNOWN_TTL
from chapps_tw.policies.refresh import never


class Stored(NamedTuple):
    """A value of the book, as it is cached.

    :ivar known: whether the book contains what it is about. If not, it is cached for ``UNKNOWN_TTL`` at most.
    """

    text: str
    known: bool = True


class Texts(NamedTuple):
    """Values, in the order of their keys.

    :ivar source: ``DATABASE`` if one of them was read from the book, else ``CACHE``.
    """

    texts: Sequence[str]
    source: str


Cached: TypeAlias = Mapping[ValueKey, str]

Query: TypeAlias = Callable[[Sequence[ValueKey], Cached], Awaitable[Sequence[Stored]]]
"""Reads the values of keys from the book, in order. It also gets what is cached of all keys of the call.

The same text must mean the same value: texts are compared."""

Usable: TypeAlias = Callable[[Cached], Cached]
"""Returns those cached values that can be used, and not those that cannot be decoded or are outdated."""

Needed: TypeAlias = Callable[[Cached], Sequence[ValueKey]]
"""Returns those keys whose values are needed, given the cached values that can be used."""


def _all(cached: Cached) -> Cached:
    return cached


class CachedBook:
    """Looks values up in the live state, reads those that are missing from the book, and caches them.

    :param ttl: seconds that a value is cached.
    :param due: whether to compare a cached value with the book now: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: lookups.
    :ivar misses: lookups for which the book was read.
    """

    def __init__(self, state: LiveState, ttl: float, due: Callable[[Hashable], bool] = never) -> None:
        self._state = state
        self._ttls = {True: ttl, False: min(UNKNOWN_TTL, ttl)}
        self._due = due
        self.looks = self.misses = 0

    def recall(self, keys: Sequence[ValueKey]) -> list[str] | None:
        """Return the values in the memory of this process; ``None`` if one is missing: see :meth:`LiveState.recall`."""
        found = []
        for key in keys:
            text = self._state.recall(key)
            if text is None:
                return None
            found.append(text)
        self.looks += 1
        return found

    async def is_unchanged(self, keys: Sequence[ValueKey], texts: Sequence[str], query: Query) -> bool:
        """Return whether the values are cached as these texts: the shortest way for those of the last request.

        What is due is compared with the book, as :meth:`read` does. Raises ``StateUnavailable``.
        """
        values = await self._state.values(keys)
        if [value for value, _ in values] != texts:
            return False
        due = [key for key in keys if self._due(key)]
        if due:
            cached = dict(zip(keys, texts, strict=True))
            if stale := await self._stale(keys, due, cached, cached, query):
                await self._state.drop_values(stale)
                return False
        self.looks += 1
        return True

    async def read(
        self,
        keys: Sequence[ValueKey],
        query: Query,
        keep: bool = True,
        usable: Usable = _all,
        needed: Needed | None = None,
    ) -> Texts:
        """Return values, read from the book if they are not cached.

        :param keep: whether to cache what was read, and to compare what is cached with the book when that is due. If
            the book is unavailable then, cached values stay.
        :param needed: by default, all values are needed. The result has only those that are.
        :raises StateUnavailable: if the live state is unavailable.
        :raises BookUnavailable: if a value is not cached, and the book is unavailable.
        """
        self.looks += 1
        values = await self._state.values(keys)
        present = _present(keys, values)
        cached = usable(present)
        wanted = needed(cached) if needed else keys
        due = [key for key in wanted if key in cached and self._due(key)] if keep else ()
        # Tested here, since nearly always there is nothing to do.
        suspect = keep and (due or len(cached) < len(present))
        if suspect and (stale := await self._stale(wanted, due, present, cached, query)):
            await self._state.drop_values(stale)
            values = await self._state.values(keys)
            cached = usable(_present(keys, values))
            wanted = needed(cached) if needed else keys
        missing = [key for key in wanted if key not in cached]
        if not missing:
            return Texts([cached[key] for key in wanted], CACHE)
        self.misses += 1
        stored = dict(zip(missing, await query(missing, cached), strict=True))
        if keep:
            await self._keep(stored, {key: value.token for key, value in zip(keys, values, strict=True)})
        return Texts([cached[key] if key in cached else stored[key].text for key in wanted], DATABASE)

    async def _stale(
        self, keys: Sequence[ValueKey], due: Sequence[ValueKey], present: Cached, cached: Cached, query: Query
    ) -> list[ValueKey]:
        """Return the keys of cached values that cannot be used, or differ from the book.

        :param due: those to compare with the book.
        :param present: what is cached, whether it can be used or not.
        """
        stale = [key for key in keys if key in present and key not in cached]
        if due:
            with suppress(BookUnavailable):
                current = await query(due, cached)
                stale += [key for key, stored in zip(due, current, strict=True) if stored.text != cached[key]]
        return stale

    async def _keep(self, stored: Mapping[ValueKey, Stored], tokens: Mapping[ValueKey, str]) -> None:
        for known, ttl in self._ttls.items():
            fresh = [Fresh(key, text, tokens[key]) for key, (text, is_known) in stored.items() if is_known is known]
            if fresh:
                await self._state.keep_values(fresh, ttl)
        for key in stored:
            # What was just read need not be compared for a while.
            self._due(key)


def _present(keys: Sequence[ValueKey], values: Sequence[CachedValue]) -> dict[ValueKey, str]:
    return {key: value for key, (value, _) in zip(keys, values, strict=True) if value is not None}
