"""The live state part, in Redis or in an SQLite file."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Protocol

from chapps_tw.application import gauges
from chapps_tw.application.part import Part
from chapps_tw.application.start_errors import StartError, place
from chapps_tw.config.settings import Settings
from chapps_tw.interfaces.state import LiveState, StateUnavailable
from chapps_tw.observe.metrics import Metrics
from chapps_tw.sockets.turn import Turn
from chapps_tw.state.sqlite.store import SqliteState


class Store(Protocol):
    """The lifecycle of a state store.

    :ivar problem: while it is unavailable, why, in a sentence; else ``""``.
    """

    @property
    def problem(self) -> str: ...
    def start(self) -> None: ...
    def stop(self) -> Awaitable[None]: ...


class State(Part):
    """The live state.

    :ivar live: for policies and the HTTP API.
    :ivar checks: checks of ``/ready`` that replace a ping.
    :param timeout: seconds that a policy waits for it.
    :param turn: of the reactor, at the end of which changes are written together.
    """

    def __init__(
        self, settings: Settings, reactor: Any, metrics: Metrics, timeout: float, turn: Turn | None = None
    ) -> None:
        self._settings = settings
        self.checks: dict[str, Callable[[], Awaitable[object]]] = {}
        self.live: LiveState
        self.store: Store
        if settings.uses_redis:
            self._make_redis(reactor, metrics, timeout, turn)
        else:
            self._make_sqlite(reactor, metrics, turn)

    def _make_redis(self, reactor: Any, metrics: Metrics, timeout: float, turn: Turn | None) -> None:
        from chapps_tw.state.redis.pool import pool_from
        from chapps_tw.state.redis.store import RedisState

        settings, observe = self._settings, metrics.calls("state", "command").observe
        self.store = pool = pool_from(
            settings.redis, settings.redis_password, reactor, timeout, observe, settings.sentinel_password, turn
        )
        self.live = RedisState(pool, settings.redis.key_prefix, local=time.time)
        gauges.show_redis(metrics, pool)

    def _make_sqlite(self, reactor: Any, metrics: Metrics, turn: Turn | None) -> None:
        timer = partial(metrics.timer, "state")
        self.store = self.live = state = SqliteState(self._settings.state_path, time.time, reactor, timer, turn)
        gauges.show_sqlite(metrics, state)
        self.checks["state"] = state.ready

    def open(self) -> None:
        """Open the file, or start to connect."""
        try:
            self.store.start()
        except StateUnavailable as error:
            raise StartError(f"{place(self._settings, 'State', 'path')}: {error}") from None

    def stop(self) -> Awaitable[None]:
        """Close it. No answered request is lost."""
        return self.store.stop()
