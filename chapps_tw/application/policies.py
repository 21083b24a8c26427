"""Creates the policies of the listeners from their declarations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from chapps_tw.application.gauges import Cached
from chapps_tw.config.settings import ConfigError
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.registry import Registry
from chapps_tw.policies.slots import Policy, PolicySlot
from chapps_tw.policies.spec import Dependencies, Direction, PolicySpec


class Policies:
    """Creates policies by name.

    :param use: their dependencies; each policy gets its own ``due``.
    :param seconds: a monotonic clock.
    :ivar caches: metrics label and policy, for each policy that counts cache lookups.
    """

    def __init__(self, registry: Registry, use: Dependencies, seconds: Callable[[], float]) -> None:
        self._registry = registry
        self._use = use
        self._seconds = seconds
        self._refreshes: list[Refresh] = []
        self.caches: list[tuple[str, Cached]] = []

    def slot(self, name: str) -> PolicySlot:
        """Create a policy, with the mode and the failure action of its section.

        :raises ConfigError: if it cannot be created.
        """
        spec = self._registry[name]
        policy = self._made(spec)
        if spec.cache:
            self.caches.append((spec.cache, cast(Cached, policy)))
        options = self._use.settings.section(spec.section)
        inbound, both = spec.direction is Direction.INBOUND, spec.direction is Direction.BOTH
        return PolicySlot(policy, options.mode == "shadow", options.on_failure == "accept", inbound, both)

    def time_limit(self, names: Iterable[str]) -> float:
        """Return the seconds that a listener with these policies may take for a request.

        :raises ConfigError: if ``extra_time`` of a policy fails.
        """
        return self._use.settings.chapps.request_timeout + sum(self._extra_time(self._registry[name]) for name in names)

    def compare(self) -> None:
        """Compare every cached value with the policy book when it is next used."""
        for refresh in self._refreshes:
            refresh.forget()

    def _made(self, spec: PolicySpec) -> Policy:
        refresh = Refresh(self._use.settings.adapter.refresh, self._seconds)
        self._refreshes.append(refresh)
        try:
            policy = spec.make(replace(self._use, due=refresh.is_due))
        except ConfigError:
            raise
        except Exception as error:
            raise self._unusable(spec, f"it cannot be made: {type(error).__name__}: {error}") from error
        wanted = ("decide", "explain", *(("looks", "misses") if spec.cache else ()))
        if missing := [each for each in wanted if not hasattr(policy, each)]:
            raise self._unusable(spec, f"what its make returned has no {' and no '.join(missing)}")
        if getattr(policy, "name", None) != spec.name:
            raise self._unusable(spec, f"what its make returned must have the name {spec.name}")
        return policy

    def _extra_time(self, spec: PolicySpec) -> float:
        try:
            return max(0.0, float(spec.extra_time(self._use.settings)))
        except Exception as error:
            raise self._unusable(spec, f"its extra_time fails: {type(error).__name__}: {error}") from error

    def _unusable(self, spec: PolicySpec, why: str) -> ConfigError:
        package = self._registry.packages.get(spec.name, "chapps-tw")
        remedy = "fix or upgrade the package, or remove the policy from every [Listener NAME]"
        return ConfigError([f"package {package}: policy {spec.name}: {why}; {remedy}"])
