"""What each listener was asked since the start: when, at which stages, and about which clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from chapps_tw.mail.request import PROTOCOL_STATES, PolicyRequest

OTHER: Final = "other"
"""Stands for all stages that Postfix does not document: they come from outside."""

_SAID: Final = ("protocol_state", "sasl_username")

Key: TypeAlias = tuple[str, bool]
"""Stage, and whether the client had logged in."""


class Asked(NamedTuple):
    """The requests to a listener.

    :ivar since: epoch seconds of the first one.
    :ivar at: epoch seconds of the last one.
    :ivar counts: their number by :data:`Key`.
    """

    since: float
    at: float
    counts: Mapping[Key, int]

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages, in the order of an SMTP session."""
        asked = {stage for stage, _ in self.counts}
        return tuple(stage for stage in (*PROTOCOL_STATES, OTHER) if stage in asked)


def together(processes: Iterable[Asked]) -> Asked | None:
    """Return the requests to a listener of several processes as those of one; ``None`` if there were none."""
    found = list(processes)
    if not found:
        return None
    counts: Counter[Key] = Counter()
    for each in found:
        counts.update(each.counts)
    return Asked(min(each.since for each in found), max(each.at for each in found), counts)


class ListenerRequests:
    """Counts the requests to each listener."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str, bool], int] = {}
        self._since: dict[str, float] = {}
        self._at: dict[str, float] = {}

    def add(self, listener: str, request: PolicyRequest, now: float) -> None:
        """Count a request that was answered.

        :param now: epoch seconds.
        """
        stage, login = request.select(_SAID)
        key = listener, stage, login != ""
        self._at[listener] = now
        if key in self._counts:
            self._counts[key] += 1
        else:
            self._begin(key, now)

    def _begin(self, key: tuple[str, str, bool], now: float) -> None:
        listener, stage, has_login = key
        key = listener, stage if stage in PROTOCOL_STATES else OTHER, has_login
        self._since.setdefault(listener, now)
        self._counts[key] = self._counts.get(key, 0) + 1

    def of(self, listener: str) -> Asked | None:
        """Return the requests to a listener; ``None`` if there were none."""
        if listener not in self._at:
            return None
        counts = {key[1:]: count for key, count in self._counts.items() if key[0] == listener}
        return Asked(self._since[listener], self._at[listener], counts)
