"""The registry of policies: the built-in ones, and those of installed packages.

A package registers a policy by an entry point in the group :data:`GROUP` whose object is a
:class:`~chapps_tw.policies.spec.PolicySpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from chapps_tw.config.settings import SECTIONS, ConfigError, PolicySection, Settings
from chapps_tw.mail.decision import Reason, ReasonCode
from chapps_tw.policies import greylisting, quota, rate_limit, sender_auth, spf
from chapps_tw.policies.spec import Direction, PolicySpec
from chapps_tw.policies.stages import Need
from chapps_tw.policies.validation import SpecError, require_free, require_shape

GROUP = "chapps_tw.policies"


class Registry:
    """Policies by name.

    :param packages: policy name to package name and version, for policies that are not built in.
    """

    def __init__(self, specs: Iterable[PolicySpec], packages: Mapping[str, str] | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.packages: Mapping[str, str] = packages or {}

    def __getitem__(self, name: str) -> PolicySpec:
        return self._specs[name]

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """All declarations."""
        return tuple(self._specs.values())

    @property
    def added(self) -> tuple[type[PolicySection], ...]:
        """The sections without a field in the settings, for :func:`~chapps_tw.config.load.load`."""
        return tuple(spec.section for spec in self.specs if spec.section not in SECTIONS.values())

    @property
    def reasons(self) -> tuple[ReasonCode, ...]:
        """All reasons, the built-in ones first."""
        kinds: dict[type[ReasonCode], None] = {Reason: None}
        kinds |= {spec.reasons: None for spec in self.specs if spec.reasons}
        return tuple(reason for kind in kinds for reason in kind)

    def needs(self, names: Iterable[str], settings: Settings) -> tuple[Need, ...]:
        """Return the stages that policies need.

        :raises KeyError: if there is no such policy.
        """
        return tuple(need for name in names for need in self._specs[name].needs(settings))

    def is_inbound(self, names: Iterable[str]) -> bool:
        """Whether there are inbound policies and no outbound ones among the named.

        :raises KeyError: if there is no such policy.
        """
        directions = {self._specs[name].direction for name in names}
        return Direction.INBOUND in directions and Direction.OUTBOUND not in directions


BUILT_IN = Registry((quota.SPEC, sender_auth.SPEC, greylisting.SPEC, spf.SPEC, rate_limit.SPEC))


def installed() -> Registry:
    """Load the policies of all installed packages.

    :raises ConfigError: with one sentence for each invalid policy, naming its package.
    """
    return registry_of(entry_points(group=GROUP))


def registry_of(points: Iterable[EntryPoint]) -> Registry:
    """Return the built-in policies and those of the entry points.

    :raises ConfigError: as :func:`installed`.
    """
    found, problems = BUILT_IN, []
    for point in sorted(points, key=lambda point: (point.name, point.value)):
        try:
            spec = _load(point)
            require_shape(spec)
            require_free(spec, found.specs, found.packages)
        except SpecError as error:
            problems.append(_sentence(point, error))
        else:
            found = Registry((*found.specs, spec), {**found.packages, spec.name: _package(point)})
    if problems:
        raise ConfigError(problems)
    return found


def _load(point: EntryPoint) -> PolicySpec:
    try:
        found = point.load()
    # A module may raise anything when it is imported.
    except (Exception, SystemExit) as error:
        raise SpecError(f"cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, PolicySpec):
        raise SpecError(f"must name a PolicySpec, not {found!r:.80}")
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def _sentence(point: EntryPoint, error: SpecError) -> str:
    package = f"package {_package(point)}: entry point {point.name} = {point.value} of {GROUP}"
    remedy = f"fix or upgrade the package, or remove it: pip uninstall {point.dist.name if point.dist else ''}"
    return f"{package}: {error}; {remedy.rstrip()}"
