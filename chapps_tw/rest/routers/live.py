"""The live state: use of quotas and limits, and what is cached about senders, greylisting and recipient domains."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.rest.routers.live_inbound import LiveInbound
from chapps_tw.rest.routers.live_limits import LiveLimits
from chapps_tw.rest.routers.live_quota import LiveQuotas
from chapps_tw.rest.routers.live_rate_limits import LiveRateLimits
from chapps_tw.rest.routers.live_senders import LiveSenders
from chapps_tw.rest.routers.live_users import LiveUsers
from chapps_tw.rest.routing import Route
from chapps_tw.rest.slices import Slices


def routes(
    settings: Settings,
    users: LiveUsers,
    state: LiveState,
    book: WritableBook,
    slices: Slices,
    now: Callable[[], float],
) -> Iterator[Route[Any]]:
    """Return all routes of this family.

    :param slices: for requests about many users or senders.
    :param now: epoch seconds.
    """
    yield from LiveQuotas(users, state, book, slices).routes()
    yield from LiveLimits(users, state, now, settings.chapps.fold_case, slices).routes()
    yield from LiveSenders(settings, state, book, slices).routes()
    yield from LiveInbound(settings, state).routes()
    yield from LiveRateLimits(settings, state).routes()
