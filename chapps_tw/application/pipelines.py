"""The pipelines of the listeners, made anew for each configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from twisted.internet.defer import CancelledError

from chapps_tw.application.dns import receiver_of
from chapps_tw.application.gauges import Lookups, add_up
from chapps_tw.application.policies import Policies
from chapps_tw.config.settings import Listener, Settings
from chapps_tw.mail.request import PolicyRequest
from chapps_tw.outbound import OutboundPPR
from chapps_tw.policies.exemption import Exemption
from chapps_tw.policies.exemptions import Exempt, Exemptions
from chapps_tw.policies.one_header import one_header
from chapps_tw.policies.refresh import Refresh
from chapps_tw.policies.registry import Registry
from chapps_tw.policies.spec import Dependencies
from chapps_tw.postfix.pipeline import Pipeline


class Made(NamedTuple):
    """What is made for a configuration.

    :ivar pipelines: by the name of the listener.
    """

    settings: Settings
    policies: Policies
    pipelines: Mapping[str, Pipeline]


class Pipelines:
    """The pipelines of the listeners.

    :ivar current: those that answer requests from now on.
    :param use: the dependencies of policies; ``receiver`` and ``exempt``, which depend on the settings, are replaced.
    :param whitelisted: whether the client of a request is on the HELO whitelist.
    :param failed: called with the name of a policy and an unexpected exception.
    :raises ConfigError: if a policy cannot be made.
    """

    def __init__(
        self,
        registry: Registry,
        use: Dependencies,
        whitelisted: Callable[[PolicyRequest], bool],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self._registry = registry
        self._use = use
        self._whitelisted = whitelisted
        self._failed = failed
        # Which listeners there are does not change while the service runs.
        self._listeners: Sequence[Listener] = use.settings.listeners
        self._lookups_before: Lookups = {}
        self.current = self.make(use.settings)

    def make(self, settings: Settings) -> Made:
        """Make policies and pipelines for other settings. They remember nothing.

        :raises ConfigError: if a policy cannot be made.
        """
        use = replace(self._use, settings=settings, receiver=receiver_of(settings.spf), exempt=self._exempt(settings))
        policies = Policies(self._registry, use, use.monotonic)
        wanted = {each.name: each.policies for each in settings.listeners}
        pipelines = {
            each.name: self._pipeline(policies, each.name, wanted.get(each.name, each.policies), settings)
            for each in self._listeners
        }
        return Made(settings, policies, pipelines)

    def put_in_force(self, made: Made) -> None:
        """Replace the current ones."""
        self._lookups_before = self.lookups()
        self.current = made

    def compare(self) -> None:
        """Compare every cached value with the policy book when it is next used."""
        self.current.policies.compare()

    def lookups(self) -> Lookups:
        """Return the numbers of cache lookups since the start."""
        said = [("said", pipeline.asked_before) for pipeline in self.current.pipelines.values()]
        return add_up([*said, *self.current.policies.caches], self._lookups_before)

    def fitting(self, request: OutboundPPR) -> Pipeline:
        """Return the pipeline for a request: outbound for authenticated clients, else inbound."""
        pipelines = list(self.current.pipelines.values())
        inbound = not request.sasl_username
        fitting = [pipeline for pipeline in pipelines if inbound == pipeline.inbound]
        return (fitting or pipelines)[-1 if inbound else 0]

    def _exempt(self, settings: Settings) -> Exempt:
        """Return what finds exemptions, for all policies."""
        use = self._use
        due = Refresh(settings.adapter.refresh, use.monotonic).is_due
        return Exemptions(use.state, use.book, use.now, settings.chapps.fold_case, due).of

    def _pipeline(self, policies: Policies, listener: str, names: Sequence[str], settings: Settings) -> Pipeline:
        slots = [policies.slot(name) for name in names]
        exempted, state = Exemption(settings, self._whitelisted).of, self._use.state
        settle, limit = partial(one_header, state), policies.time_limit(names)
        return Pipeline(listener, slots, exempted, self._failed, CancelledError, settle, state, limit)
