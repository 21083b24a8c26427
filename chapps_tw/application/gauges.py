"""Metrics whose values the parts hold themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias, cast

from sqlalchemy import Engine

from chapps_tw.database.pool import BoundedPool
from chapps_tw.dns.resolver import Resolver
from chapps_tw.observe.metrics import Metrics, Values
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.state.sqlite.store import SqliteState

if TYPE_CHECKING:
    # Its library is imported where Redis is used alone.
    from chapps_tw.state.redis.pool import RedisPool


class Dependency(Protocol):
    """:ivar problem: a sentence while it cannot be used, else ``""``."""

    @property
    def problem(self) -> str: ...


class Cached(Protocol):
    """Cache statistics.

    :ivar looks: number of lookups.
    :ivar misses: number of misses.
    """

    looks: int
    misses: int


Lookups: TypeAlias = Mapping[str, tuple[int, int]]
"""Numbers of lookups and of misses, by the label of the cache."""


def add_up(caches: Iterable[tuple[str, Cached]], before: Lookups) -> Lookups:
    """Return the lookups of caches. Those with the same label are summed.

    :param before: those of caches that were replaced.
    """
    found = dict(before)
    for name, cached in caches:
        looks, misses = found.get(name, (0, 0))
        found[name] = looks + cached.looks, misses + cached.misses
    return found


class Written(Protocol):
    """What is written by a thread.

    :ivar written: number of decisions written.
    :ivar lost: number of decisions that could not be written.
    """

    @property
    def written(self) -> int: ...
    @property
    def lost(self) -> int: ...


class Told(Protocol):
    """Numbers of notices by channel and kind."""

    @property
    def sent(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def failed(self) -> Mapping[tuple[str, str], int]: ...
    @property
    def pending(self) -> Mapping[tuple[str, str], int]: ...


def show_dependencies(metrics: Metrics, parts: Mapping[str, Dependency]) -> None:
    """Add the metric for the availability of each dependency."""

    def up() -> Values:
        return [((name,), not part.problem) for name, part in parts.items()]

    metrics.add_gauge("chapps_up", "Whether a dependency answers.", ("part",), up)


def show_listeners(metrics: Metrics, factories: Mapping[str, PolicyFactory]) -> None:
    """Add the metrics of the listeners."""

    def of_each(value: Callable[[PolicyFactory], float]) -> Callable[[], Values]:
        return lambda: [((name,), value(factory)) for name, factory in factories.items()]

    label = ("listener",)
    connections = of_each(lambda factory: len(factory.connections))
    metrics.add_gauge("chapps_connections", "Connections of Postfix.", label, connections)
    in_flight = of_each(lambda factory: factory.in_flight)
    metrics.add_gauge("chapps_in_flight", "Requests that are being processed.", label, in_flight)
    unreadable = of_each(lambda factory: factory.unreadable)
    metrics.add_counter("chapps_unreadable_requests", "Invalid requests.", label, unreadable)


def show_caches(metrics: Metrics, lookups: Callable[[], Lookups]) -> None:
    """Add cache hits and misses."""

    def values() -> Values:
        for name, (looks, misses) in lookups().items():
            yield (name, "hit"), looks - misses
            yield (name, "miss"), misses

    metrics.add_counter("chapps_cache_lookups", "Cache lookups.", ("cache", "result"), values)


def show_redis(metrics: Metrics, pool: RedisPool) -> None:
    """Add the metrics of the connections to Redis."""
    _gauge(metrics, "chapps_redis_pool_size", "Configured connections to Redis.", lambda: pool.size)
    _gauge(metrics, "chapps_redis_connections", "Ready connections to Redis.", lambda: pool.connections)
    _gauge(metrics, "chapps_redis_waiting_commands", "Pending commands to Redis.", lambda: pool.pending)
    _counter(metrics, "chapps_redis_lost_connections", "Lost connections to Redis.", lambda: pool.lost)
    _counter(metrics, "chapps_redis_timeouts", "Commands to Redis that timed out.", lambda: pool.timeouts)


def show_sqlite(metrics: Metrics, state: SqliteState) -> None:
    """Add the metrics of the state in SQLite. The number of transactions is that of the ``commit`` calls."""
    help = "Operations on the live state; those of one turn share a transaction."
    _counter(metrics, "chapps_sqlite_operations", help, lambda: state.operations)


def show_database(metrics: Metrics, engine: Engine, size: int) -> None:
    """Add the metrics of the connections to the database."""
    _gauge(metrics, "chapps_database_pool_size", "Maximum number of database connections.", lambda: size)
    help = "Database connections in use."
    _gauge(metrics, "chapps_database_connections", help, lambda: cast(BoundedPool, engine.pool).checkedout())


def show_dns(metrics: Metrics, current: Callable[[], Resolver]) -> None:
    """Add the metrics of DNS lookups."""
    _gauge(metrics, "chapps_dns_waiting_questions", "Pending DNS lookups.", lambda: current().questions)
    _counter(metrics, "chapps_dns_failures", "DNS lookups that failed.", lambda: current().failures)


def show_http(metrics: Metrics, connections: Callable[[], int], pending_invalidations: Callable[[], int]) -> None:
    """Add the metrics of the HTTP API."""
    _gauge(metrics, "chapps_http_connections", "Connections of HTTP clients.", connections)
    help = "Cache invalidations that wait for the state store; the changes take effect after them."
    _gauge(metrics, "chapps_waiting_drops", help, pending_invalidations)


def show_log(metrics: Metrics, lost: Callable[[], int]) -> None:
    """Add the metrics of the logs."""
    help = "Lost lines of the decision log or of standard output."
    _counter(metrics, "chapps_log_lines_lost", help, lost)


def show_history(metrics: Metrics, history: Written) -> None:
    """Add the metrics of the history."""
    _counter(metrics, "chapps_history_written", "Decisions written to the history.", lambda: history.written)
    help = "Decisions that are missing in the history, because it could not be written."
    _counter(metrics, "chapps_history_lost", help, lambda: history.lost)


def show_notices(metrics: Metrics, current: Callable[[], Told | None]) -> None:
    """Add the metrics of notices.

    :param current: returns the numbers; ``None`` if no notices are sent.
    """

    def of_each(read: Callable[[Told], Mapping[tuple[str, str], int]]) -> Callable[[], Values]:
        def values() -> Values:
            told = current()
            return read(told).items() if told else ()

        return values

    labels = ("channel", "kind")
    metrics.add_counter("chapps_notices_sent", "Notices that were taken.", labels, of_each(lambda told: told.sent))
    help = "Notices that were given up, or had no room in the outbox."
    metrics.add_counter("chapps_notices_failed", help, labels, of_each(lambda told: told.failed))
    help = "Notices of all nodes that wait."
    metrics.add_gauge("chapps_notices_pending", help, labels, of_each(lambda told: told.pending))


def _gauge(metrics: Metrics, name: str, help: str, value: Callable[[], float]) -> None:
    metrics.add_gauge(name, help, (), lambda: [((), value())])


def _counter(metrics: Metrics, name: str, help: str, value: Callable[[], float]) -> None:
    metrics.add_counter(name, help, (), lambda: [((), value())])
