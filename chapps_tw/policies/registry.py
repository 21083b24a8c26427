"""All policies that there are: those of this package, and those that other packages add.

A package adds one with an entry point of the group :data:`GROUP` that names a
:class:`~chapps_tw.policies.spec.PolicySpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points

from chapps_tw.config.settings import SECTIONS, ConfigError, PolicySection
from chapps_tw.mail.decision import Reason, ReasonCode
from chapps_tw.policies import greylisting, quota, sender_auth, spf
from chapps_tw.policies.declared import SpecError, require_free, require_shape
from chapps_tw.policies.spec import Direction, PolicySpec

GROUP = "chapps_tw.policies"


class Registry:
    """The policies by their names.

    :param packages: by the policy's name, name and version of the package that it is of, where that is another one.
    """

    def __init__(self, specs: Iterable[PolicySpec], packages: Mapping[str, str] | None = None) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self.packages: Mapping[str, str] = packages or {}

    def __getitem__(self, name: str) -> PolicySpec:
        return self._specs[name]

    @property
    def specs(self) -> tuple[PolicySpec, ...]:
        """All of them."""
        return tuple(self._specs.values())

    @property
    def added(self) -> tuple[type[PolicySection], ...]:
        """The sections that are no fields of the settings, as :func:`~chapps_tw.config.load.load` wants them."""
        return tuple(spec.section for spec in self.specs if spec.section not in SECTIONS.values())

    @property
    def reasons(self) -> tuple[ReasonCode, ...]:
        """Every reason that a decision may have."""
        kinds: dict[type[ReasonCode], None] = {Reason: None}
        kinds |= {spec.reasons: None for spec in self.specs if spec.reasons}
        return tuple(reason for kind in kinds for reason in kind)

    def is_inbound(self, names: Iterable[str]) -> bool:
        """Whether all of some policies judge mail from the world."""
        return all(self._specs[name].direction is Direction.INBOUND for name in names)


BUILT_IN = Registry((quota.SPEC, sender_auth.SPEC, greylisting.SPEC, spf.SPEC))


def installed() -> Registry:
    """The policies of this package and of all others that are installed beside it.

    :raises ConfigError: with a sentence for each policy that cannot be used, naming its package.
    """
    return registry_of(entry_points(group=GROUP))


def registry_of(points: Iterable[EntryPoint]) -> Registry:
    """The policies of this package, and those that entry points name.

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
    # What another author's module does when it is imported is not known.
    except (Exception, SystemExit) as error:
        raise SpecError(f"cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(found, PolicySpec):
        raise SpecError(f"must name a PolicySpec, which {found!r:.80} is not")
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def _sentence(point: EntryPoint, error: SpecError) -> str:
    package = f"package {_package(point)}: entry point {point.name} = {point.value} of {GROUP}"
    remedy = f"install one that works here, or remove it: pip uninstall {point.dist.name if point.dist else ''}"
    return f"{package}: {error}; {remedy.rstrip()}"
