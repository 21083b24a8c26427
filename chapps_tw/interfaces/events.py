"""Events: what happened to limits, accounts, dependencies and nodes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

LIMIT_EVENTS: Final = ("near_limit", "at_limit")
"""Those of :class:`~chapps_tw.policies.events.EventKind`. ``name`` is who or what is counted."""

RULE_EVENTS: Final = ("suspended", "released", "raised", "exempted", "ended")
"""Overrides and exemptions that were created, changed or deleted: ``released`` is the end of a suspension, ``ended``
that of another override or an exemption before its time. ``name`` is the user, the domain, or what is exempted."""

AWAY: Final = "dependency_away"
BACK: Final = "dependency_back"
"""``name`` is that of the dependency, as in ``/ready``."""

GIVEN_UP: Final = "notices_given_up"
"""``name`` is that of the channel."""

SERVICE_EVENTS: Final = (AWAY, BACK, "node_started", "node_stopped", "configuration_loaded", GIVEN_UP)
"""Of nodes and configurations, ``name`` is the name of the node."""

KINDS: Final = (*LIMIT_EVENTS, *RULE_EVENTS, *SERVICE_EVENTS)


class Event(NamedTuple):
    """An event to keep.

    :ivar kind: of :data:`LIMIT_EVENTS` or :data:`SERVICE_EVENTS`.
    :ivar at: epoch seconds.
    :ivar name: what it is about.
    :ivar detail: in words.
    :ivar figures: of limits: the fields of :class:`~chapps_tw.policies.events.LimitEvent`.
    """

    kind: str
    at: float
    name: str
    detail: str = ""
    figures: Mapping[str, Any] = {}


class KeptEvent(NamedTuple):
    """An event that was kept.

    :ivar id: greater than those of events that were kept before.
    :ivar kind: one of :data:`KINDS`.
    :ivar node: name of the node that noticed it first, ``""`` if somebody has done it.
    :ivar author: name of the token with which somebody has done it, else ``""``.

    The others are as in :class:`Event`.
    """

    id: int
    at: float
    kind: str
    node: str
    author: str
    name: str
    detail: str
    figures: Mapping[str, Any]


class EventsWanted(NamedTuple):
    """Which events. Empty and zero fields filter nothing.

    :ivar kinds: of :data:`KINDS`.
    :ivar name: exactly as in the event.
    :ivar since, until: epoch seconds: from ``since`` until before ``until``.
    :ivar before, after: only those with a smaller or greater id.
    """

    kinds: tuple[str, ...] = ()
    name: str = ""
    node: str = ""
    since: float = 0.0
    until: float = 0.0
    before: int = 0
    after: int = 0
    limit: int = 100
