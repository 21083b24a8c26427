"""The limits that are at work for a user, resolved from plans, overrides and settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from math import ceil, floor
from typing import Final, NamedTuple

from chapps_tw.config.settings import OutboundQuotaPolicy as Section
from chapps_tw.interfaces.book import DomainPlan, Override, Plan, UserPlan
from chapps_tw.interfaces.state import Account, Unit

UNLIMITED: Final = 2**53
"""The amount of a limit that an override lifts: what is sent meanwhile is still counted."""

_TRANSMISSIONS: Final = (Unit.MESSAGES, Unit.RECIPIENTS)


class Level(StrEnum):
    """Whose limit it is: the user's own, one for each user of the domain, ``default_quota``, or shared by a domain."""

    USER = "user"
    DOMAIN = "domain"
    DEFAULT = "default"
    POOL = "domain pool"


# Kinds of accounts. The first has always been that of users.
_SPACES: Final = {Level.USER: "oqp", Level.DOMAIN: "oqp", Level.DEFAULT: "oqp", Level.POOL: "pool"}


class ActiveLimit(NamedTuple):
    """One limit at work.

    :ivar quota: name of the quota that it belongs to.
    :ivar name: ``""`` for the quota's own number.
    :ivar amount: with what overrides add; :data:`UNLIMITED` if one lifts it.
    :ivar window: seconds.
    :ivar action: ``refuse``, ``defer`` or ``hold``.
    :ivar margin, min_delta: as in :class:`~chapps_tw.interfaces.state.Charge`.
    :ivar warn: used, from which on it is almost reached.
    :ivar space: of its account.
    :ivar label: level, quota, limit and overrides, for the log.
    """

    level: Level
    quota: str
    name: str
    unit: Unit
    amount: int
    window: float
    action: str
    margin: int
    min_delta: float
    warn: int
    space: str
    label: str

    def account(self, user: str, domain: str) -> Account:
        """Return the account that it counts in."""
        return Account(self.space, domain if self.level is Level.POOL else user)


class UserLimits(NamedTuple):
    """All that limits a user.

    :ivar known: whether the book contains the user.
    :ivar limited: whether the user has a plan, of whatever level. Without one, nothing may be sent.
    :ivar active: limits at work, the user's before those of the pool.
    :ivar overrides: of the user, not over when they were read.
    :ivar domain_overrides: of the domain, likewise.
    :ivar suspended: the override that suspends the user.
    """

    known: bool
    limited: bool
    active: tuple[ActiveLimit, ...]
    overrides: tuple[Override, ...] = ()
    domain_overrides: tuple[Override, ...] = ()
    suspended: Override | None = None


class LimitResolver:
    """Resolves limits with the settings of the quota policy."""

    def __init__(self, options: Section) -> None:
        self._options = options
        self._unit = Unit.RECIPIENTS if options.counting_recipients else Unit.MESSAGES

    def space(self, level: Level, unit: Unit) -> str:
        """Return the space of the account in which a level counts a unit. An account counts in one unit only."""
        base = _SPACES[level]
        return base if unit is self._unit else f"{base}.{unit}"

    def accounts(self, level: Level, name: str) -> list[tuple[Account, Unit]]:
        """Return all accounts of a user or a pool, that of the quota's number first."""
        units = sorted(Unit, key=lambda unit: unit is not self._unit)
        return [(Account(self.space(level, unit), name), unit) for unit in units]

    def resolve(
        self, user: UserPlan, domain: DomainPlan, level: Level, plan: Plan | None, pool: Plan | None
    ) -> UserLimits:
        """Return the limits of a user, without overrides.

        :param level, plan: the plan of the user, and where it comes from.
        """
        own = self._active(level, plan) if plan else []
        shared = self._active(Level.POOL, pool) if pool else []
        active = (*self._with_min_delta(own), *shared)
        return UserLimits(user.known, plan is not None, active, user.overrides, domain.overrides)

    def _active(self, level: Level, plan: Plan) -> list[ActiveLimit]:
        found = []
        if plan.quota is not None:
            # A negative number was written to the table by hand.
            amount = max(0, plan.quota)
            found.append(self._limit(level, plan.name, "", self._unit, amount, self._options.interval, "refuse"))
        for name, unit, amount, window, action in plan.limits:
            found.append(self._limit(level, plan.name, name, Unit(unit), amount, window, action))
        return found

    def _limit(
        self, level: Level, quota: str, name: str, unit: Unit, amount: int, window: float, action: str
    ) -> ActiveLimit:
        label = f"{level.name.lower()}:{quota}" + (f"/{name}" if name else "")
        space = self.space(level, unit)
        limit = ActiveLimit(level, quota, name, unit, amount, window, action, 0, 0.0, 0, space, label)
        return self._with_amount(limit, amount, label)

    def _with_amount(self, limit: ActiveLimit, amount: int, label: str) -> ActiveLimit:
        margin, percent = self._options.margin, self._options.warn_at
        # Only the quota's own number has a margin: other limits are exact.
        extent = 0 if limit.name or amount >= UNLIMITED else margin.count + floor(amount * margin.ratio)
        warn = max(1, ceil(amount * percent / 100)) if percent and amount < UNLIMITED else UNLIMITED + 1
        return limit._replace(amount=amount, margin=extent, warn=warn, label=label)

    def _with_min_delta(self, active: list[ActiveLimit]) -> list[ActiveLimit]:
        """Let one limit of a user keep messages apart."""
        apart = next((limit for limit in active if limit.unit in _TRANSMISSIONS), None)
        return [limit._replace(min_delta=self._options.min_delta) if limit is apart else limit for limit in active]

    def at(self, limits: UserLimits, now: float) -> UserLimits:
        """Return the limits with the overrides that are in force.

        :param now: epoch seconds.
        """
        if not limits.overrides and not limits.domain_overrides:
            return limits
        own, shared = in_force(limits.overrides, now), in_force(limits.domain_overrides, now)
        suspended = next((each for each in (*own, *shared) if each.kind == "suspended"), None)
        active = tuple(self._overridden(limit, shared if limit.level is Level.POOL else own) for limit in limits.active)
        unlimited = any(each.kind == "unlimited" and not each.limit for each in own)
        return limits._replace(limited=limits.limited or unlimited, active=active, suspended=suspended)

    def _overridden(self, limit: ActiveLimit, overrides: Sequence[Override]) -> ActiveLimit:
        at_work = [each for each in overrides if _applies(each, limit)]
        if not at_work:
            return limit
        label = "+".join((limit.label, *(f"{each.kind}:{each.id}" for each in at_work)))
        if any(each.kind == "unlimited" for each in at_work):
            return self._with_amount(limit, UNLIMITED, label)
        return self._with_amount(limit, min(UNLIMITED - 1, limit.amount + sum(each.value for each in at_work)), label)


def in_force(overrides: Iterable[Override], now: float) -> list[Override]:
    """Return the overrides that are in force.

    :param now: epoch seconds.
    """
    return [each for each in overrides if each.begin <= now < each.until]


def _applies(override: Override, limit: ActiveLimit) -> bool:
    if override.limit:
        return override.kind != "suspended" and override.limit == limit.name
    return override.kind == "unlimited" or (override.kind == "extra" and limit.unit in _TRANSMISSIONS)
