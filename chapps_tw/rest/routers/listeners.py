"""What each listener is asked by Postfix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from chapps_tw.observe.listener_requests import Asked
from chapps_tw.rest.listener_answers import ListenerList
from chapps_tw.rest.models.base import Nothing
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routing import Reply, Route

_NOTE = (
    "About this node, since its start. `stages` has the protocol states of the requests, and whether the client had "
    "logged in (`sasl_username`). `warnings` name policies that need a stage at which Postfix has not asked in five "
    "minutes of traffic. `chapps-cli postfix-check` compares this with the configuration of Postfix."
)


class ListenerState(NamedTuple):
    """What a listener was asked.

    :ivar listen: its Twisted endpoint.
    :ivar asked: ``None`` if it was not.
    :ivar peers: clients, such as the hosts of Postfix, and the epoch seconds at which each last asked.
    :ivar warnings: sentences about policies that are never asked where they apply.
    """

    listener: str
    listen: str
    policies: Sequence[str]
    asked: Asked | None
    peers: Mapping[str, float]
    warnings: Sequence[str]


States = Callable[[], Iterable[ListenerState]]


def routes(states: States) -> Iterator[Route[Any]]:
    """Return all routes of this family."""

    async def listed(_: Nothing) -> Reply:
        return Reply([_shown(state) for state in states()])

    yield Route(
        "GET", "/live/listeners/", "List the listeners, and when, where and by whom each was asked", listed,
        answer=ListenerList, tag="insight", note=_NOTE,
    )  # fmt: skip


def _shown(state: ListenerState) -> dict[str, Any]:
    asked = state.asked
    fields = {
        "listener": state.listener,
        "listen": state.listen,
        "policies": list(state.policies),
        "requests": sum(asked.counts.values()) if asked else 0,
        "since": asked.since if asked else None,
        "at": asked.at if asked else None,
        "stages": _stages(asked) if asked else [],
        "peers": [with_iso({"peer": peer, "at": at}, "at") for peer, at in state.peers.items()],
        "warnings": list(state.warnings),
    }
    return with_iso(fields, "since", "at")


def _stages(asked: Asked) -> list[dict[str, Any]]:
    count = asked.counts.get
    return [
        {"stage": stage, "with_login": count((stage, True), 0), "without_login": count((stage, False), 0)}
        for stage in asked.stages
    ]
