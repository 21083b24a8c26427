"""What the live state takes over from another service, so that nobody starts afresh."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import NamedTuple, Protocol

from chapps_tw.interfaces.greylist import GreylistRules
from chapps_tw.interfaces.state import Account, LiveState


class PastMessage(NamedTuple):
    """A message that was counted elsewhere.

    :ivar instance: identifies it in its account; not empty.
    :ivar at: epoch seconds.
    :ivar amount: at least 1.
    """

    instance: str
    at: float
    amount: int


class PastCounts(NamedTuple):
    """Messages of one account.

    :ivar window: seconds that they count for.
    :ivar messages: in order of time.
    """

    account: Account
    window: float
    messages: Sequence[PastMessage]


class PastTuple(NamedTuple):
    """A greylisted tuple.

    :ivar at: epoch seconds of the attempt that was deferred.
    """

    client: str
    sender: str
    recipient: str
    at: float


class PastTally(NamedTuple):
    """Messages that count in the tally of a client.

    :ivar messages: instances with epoch seconds.
    """

    client: str
    messages: Sequence[tuple[str, float]]


class AdoptingState(LiveState, Protocol):
    """A live state that takes over what was counted elsewhere.

    All of it can be repeated: what is there already is not counted again. Times in the future count as now. What would
    have expired is left out. Each item is one atomic operation.
    """

    def adopt_counts(self, counts: Sequence[PastCounts]) -> Awaitable[int]:
        """Count messages at their own time, whether or not they fit a limit; return how many were new.

        Accounts of distinct recipients cannot be adopted.
        """

    def adopt_tuples(self, tuples: Sequence[PastTuple], rules: GreylistRules) -> Awaitable[int]:
        """Have tuples as if they had been deferred at their time; return how many that changed."""

    def adopt_tallies(self, tallies: Sequence[PastTally], rules: GreylistRules) -> Awaitable[int]:
        """Add messages to the tallies of clients; return how many were new. Of each, the newest are kept."""
