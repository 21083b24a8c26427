"""The part that knows what each listener is asked, and warns about policies that are never asked where they apply."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from chapps_tw.application.part import Part
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.observe.listener_requests import Asked, ListenerRequests
from chapps_tw.policies.registry import Registry
from chapps_tw.policies.stages import OBSERVATION_SECONDS, unmet
from chapps_tw.postfix.protocol import PolicyFactory
from chapps_tw.rest.routers.listeners import ListenerState

# Seconds between looks at what was asked.
LOOK_SECONDS = 60.0


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
            asked = self._requests.of(each.name)
            yield ListenerState(
                each.name,
                each.listen,
                each.policies,
                asked,
                self._peers(each.name),
                self._warnings(each, asked),
            )

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

    def _warnings(self, listener: Listener, asked: Asked | None) -> list[str]:
        if asked is None or asked.at - asked.since < OBSERVATION_SECONDS:
            return []
        needs = [*self._registry.needs(listener.policies, self._settings)]
        for slot in self._factories[listener.name].pipeline.slots:
            needs += self._registry[slot.policy.name].learned(slot.policy)
        return list(unmet(needs, asked.stages))
