"""The last decisions about somebody, from the history of all nodes and from the ring of this one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chapps_tw.interfaces.history import HistoryUnavailable
from chapps_tw.rest.routing import Refusal
from chapps_tw.ui.sentences import Teller, Told
from chapps_tw.ui.views import Visit

SHOWN = 8

_SAME = ("time", "policy", "reason", "instance", "recipient", "stage")


class Decisions:
    """Finds decisions, and tells them in words."""

    def __init__(self, teller: Teller) -> None:
        self.teller = teller

    async def last(self, visit: Visit, **wanted: str) -> list[Told]:
        """Return the last decisions with the given fields, newest first.

        The ring has what happened a moment ago, the history what other nodes decided, and what was before the start.

        :param wanted: as of ``/history/``; a domain of senders or recipients begins with ``@``.
        """
        ring = {name: value.removeprefix("@") for name, value in wanted.items()}
        found = {_key(each): each for each in await _history(visit, wanted)}
        for each in await _response(visit, "/live/decisions/", ring):
            found.setdefault(_key(each), each)
        newest = sorted(found.values(), key=lambda each: each["time"], reverse=True)
        return [self.teller.tell(each) for each in newest[:SHOWN]]


async def _history(visit: Visit, wanted: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    try:
        return await _response(visit, "/history/", wanted)
    except HistoryUnavailable:
        return []


async def _response(visit: Visit, path: str, wanted: Mapping[str, str]) -> Sequence[Mapping[str, Any]]:
    """Return the decisions that a route finds; none for values that no decision can have."""
    try:
        found: list[Mapping[str, Any]] = (await visit.call("GET", path, **wanted, limit=SHOWN)).response
    except Refusal as refusal:
        if refusal.status != 422:
            raise
        return []
    return found


def _key(record: Mapping[str, Any]) -> tuple[Any, ...]:
    # The history has its texts in lower case.
    return tuple(value.lower() if isinstance(value := record[name], str) else value for name in _SAME)
