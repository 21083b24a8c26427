"""What policies share that cache values of the policy book in the live state."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from chapps_tw.interfaces.book import PolicyBook
from chapps_tw.interfaces.state import LiveState
from chapps_tw.policies.refresh import never


class CachingPolicy:
    """A policy that looks a value up in the live state, and in the book if it is not cached there.

    :param due: whether to compare a cached value with the book now: :meth:`~chapps_tw.policies.refresh.Refresh.is_due`.
    :ivar looks: cache lookups.
    :ivar misses: cache misses.
    """

    def __init__(self, state: LiveState, book: PolicyBook, due: Callable[[Hashable], bool] = never) -> None:
        self._state = state
        self._book = book
        self._due = due
        self.looks = self.misses = 0
