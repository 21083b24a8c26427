"""The part that knows what each listener is asked, and warns about policies that are never asked where they apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.application.part import Part
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.observe.listener_requests import Asked, ListenerRequests
from chapps_tw.policies.registry import Registry
from chapps_tw.policies.stages import OBSERVATION_SECONDS, Need, unmet
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.routers.listeners import ListenerState

# Seconds between looks at what was asked.
LOOK_SECONDS = 60.0


class Heard(NamedTuple):
    """What a listener has heard of Postfix.

    :ivar asked: the requests; ``None`` if there were none.
    :ivar peers: clients, and the epoch seconds at which each last asked.
    :ivar learned: needs of its policies that depend on what they have read from the book.
    """

    asked: Asked | None
    peers: Mapping[str, float]
    learned: Sequence[Need]


class ListenerStates(Part):
    """What each listener was asked since the start.

    :param factories: the listeners, by name.
    :param reactor: for durations.
    :param now: epoch seconds.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        requests: ListenerRequests,
        factories: Mapping[str, PolicyFactory],
        reactor: Any,
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._requests = requests
        self._factories = factories
        self._reactor = reactor
        self._now = now
        self._warned: set[str] = set()
        self._looking = LoopingCall(self.warn)
        self._looking.clock = reactor

    def prepare(self, settings: Settings) -> Callable[[], object]:
        return partial(setattr, self, "_settings", settings)

    def start(self) -> None:
        """Start looking for policies that are never asked where they apply."""
        self._looking.start(LOOK_SECONDS, now=False)

    def stop(self) -> None:
        """Stop looking."""
        if self._looking.running:
            self._looking.stop()

    def states(self) -> Iterator[ListenerState]:
        """Yield the state of each listener, in the order of the configuration."""
        for each in self._settings.listeners:
            heard = self.heard(each.name)
            warnings = self._warnings(each, heard)
            yield ListenerState(each.name, each.listen, each.policies, heard.asked, heard.peers, warnings)

    def heard(self, name: str) -> Heard:
        """Return what a listener has heard."""
        return Heard(self._requests.of(name), self._peers(name), self._learned(name))

    def warn(self) -> None:
        """Log each warning that was not logged before."""
        for state in self.states():
            for sentence in state.warnings:
                text = f"listener {state.listener}: {sentence}"
                if text not in self._warned:
                    self._warned.add(text)
                    self.log.warn("{sentence}", sentence=text)

    def _peers(self, name: str) -> dict[str, float]:
        """Return the clients of a listener, and the epoch seconds at which each last asked."""
        ahead = self._now() - self._reactor.seconds()
        return {peer: round(time + ahead, 3) for peer, time in self._factories[name].peers.items()}

    def _learned(self, name: str) -> list[Need]:
        slots = self._factories[name].pipeline.slots
        return [need for slot in slots for need in self._registry[slot.policy.name].learned(slot.policy)]

    def _warnings(self, listener: Listener, heard: Heard) -> list[str]:
        asked = heard.asked
        if asked is None or asked.at - asked.since < OBSERVATION_SECONDS:
            return []
        needs = [*self._registry.needs(listener.policies, self._settings), *heard.learned]
        return list(unmet(needs, asked.stages))
