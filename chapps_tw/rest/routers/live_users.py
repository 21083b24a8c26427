"""The limits of users with what is used of them, for the routes of the live state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from chapps_tw.config.settings import Settings
from chapps_tw.interfaces import value_keys
from chapps_tw.interfaces.book import Entry
from chapps_tw.interfaces.state import LiveState, Unit, Usage, Window
from chapps_tw.interfaces.writable_book import WritableBook
from chapps_tw.mail.addresses import normal_name
from chapps_tw.mail.decision import CACHE
from chapps_tw.policies.limits import UNLIMITED, ActiveLimit, Level, UserLimits
from chapps_tw.policies.plans import Plans
from chapps_tw.rest.models import live as m
from chapps_tw.rest.moments import with_iso
from chapps_tw.rest.routers.kinds import missing
from chapps_tw.rest.routing import Refusal


class Measured(NamedTuple):
    """Limits with their usage.

    :ivar domain: whose plan applies; ``""`` if none does.
    :ivar usages: each limit with what its window contains.
    """

    domain: str
    limits: UserLimits
    usages: Sequence[tuple[ActiveLimit, Usage]]


class LiveUsers:
    """Finds users, their limits, and what they have used.

    :param now: epoch seconds.
    """

    def __init__(self, settings: Settings, state: LiveState, book: WritableBook, now: Callable[[], float]) -> None:
        self._interval = settings.oqp.interval
        self._fold_case = settings.chapps.fold_case
        self._state = state
        self._book = book
        self._plans = Plans(settings, state, book, now)
        # Compares each cached value with the book, which may have been changed in the database by hand.
        self._compared = Plans(settings, state, book, now, lambda _key: True)

    def space(self, level: Level, unit: Unit) -> str:
        """Return the space of the accounts in which a level counts a unit."""
        return self._plans.resolver.space(level, unit)

    def key(self, user: Entry) -> str:
        """Return the user's name in the state."""
        return normal_name(user.name, self._fold_case)

    async def of(self, user: Entry, compare: bool = False) -> Measured:
        """Return the limits of a user of the book."""
        return await self.named(self.key(user), compare=compare)

    async def named(self, name: str, sender: str = "", compare: bool = False) -> Measured:
        """Return the limits of a login.

        :param name: in normal form.
        :param sender: address or ``@domain``, whose domain counts if the login has none.
        :param compare: whether to compare what is cached with the book first.
        """
        plans = self._compared if compare else self._plans
        domain = plans.domain_of(name, sender)
        limits = (await plans.read(name, domain)).limits
        return await self._measured(limits, name, domain)

    async def several(self, names: Sequence[str]) -> list[Measured]:
        """Return the limits of several logins, with one operation on the state if all are in memory.

        :param names: in normal form.
        """
        domains = [self._plans.domain_of(name, "") for name in names]
        limits = await self._limits_of(list(zip(names, domains, strict=True)))
        accounts = list(zip(names, domains, limits, strict=True))
        windows = [window for name, domain, each in accounts for window in _windows(each, name, domain)]
        usages = iter(await self._state.usage(windows) if windows else [])
        return [
            Measured(domain, each, [(limit, next(usages)) for limit in each.active]) for _, domain, each in accounts
        ]

    async def _limits_of(self, logins: Sequence[tuple[str, str]]) -> list[UserLimits]:
        """Return the limits of logins with their domains."""
        recalled = [self._plans.recall(*login) for login in logins]
        # All of one turn have the same.
        version = next((found.version for found in recalled if found), None)
        if version is not None and not await self._state.confirm(version):
            recalled = [None] * len(logins)
        return [(found or await self._plans.read(*login)).limits for login, found in zip(logins, recalled, strict=True)]

    async def pool(self, domain: str) -> Measured:
        """Return the limits of the pool of a domain."""
        return await self._measured(await self._compared.read_pool(domain), "", domain)

    async def cached_quota(self, user: Entry) -> ActiveLimit | None:
        """Return the quota that policies use now, if they have looked it up; ``None`` if nothing is cached."""
        key = self.key(user)
        [cached] = await self._state.values([value_keys.user_plan(key)])
        if cached.value is None:
            return None
        found = await self._plans.read(key, self._plans.domain_of(key, ""), keep=False)
        return quota_of(found.limits) if found.source is CACHE else None

    async def reset(self, name: str) -> int:
        """Delete all that is counted for a user; return what the interval of the quota contained.

        :param name: in normal form.
        """
        return await self._reset(Level.USER, name)

    async def reset_pool(self, domain: str) -> int:
        """Delete all that is counted for the pool of a domain; return what the interval of the quota contained."""
        return await self._reset(Level.POOL, domain)

    async def find(self, who: m.Who) -> tuple[Entry, list[str]]:
        """Return a user by id or by name, and remarks."""
        if not who.user_id and who.name is None:
            raise Refusal(400, "The id or the name of a user is required.")
        if who.user_id:
            found = await self._book.by_ids("users", [who.user_id])
            if found:
                return found[0], await self._not_used(found[0])
            if who.name is None:
                raise missing("users", who.user_id)
        user = await self._book.by_name("users", who.name or "")
        if user is None:
            by_id = f"id {who.user_id} or " if who.user_id else ""
            raise Refusal(404, f"There is no user with {by_id}name {who.name}.")
        remark = f"There is no user with id {who.user_id}: found by name {who.name}."
        return user, [remark] if who.user_id else []

    async def find_all(self, names: Sequence[str]) -> tuple[list[Entry], list[str]]:
        """Return users by their names, each once, and a remark about names that do not exist."""
        wanted = [normal_name(name, self._fold_case) for name in names]
        found = await self._book.by_names("users", list(dict.fromkeys(wanted)))
        left = [name for name, normal in zip(names, wanted, strict=True) if normal not in found]
        some = ", ".join(left[:10]) + (" and others" if len(left) > 10 else "")
        return list(found.values()), [f"There is no user named {some}."] if left else []

    async def _not_used(self, user: Entry) -> list[str]:
        """Return a remark if policies use another user instead, whose name differs only in spelling."""
        if user.name == self.key(user):
            return []
        used = await self._book.by_name("users", user.name)
        if used is None or used.id == user.id:
            return []
        return [f"User {user.name} is not used: a login by that name is user {used.name}, id {used.id}."]

    async def _measured(self, limits: UserLimits, user: str, domain: str) -> Measured:
        windows = _windows(limits, user, domain)
        usages = await self._state.usage(windows) if windows else []
        return Measured(domain, limits, list(zip(limits.active, usages, strict=True)))

    async def _reset(self, level: Level, name: str) -> int:
        accounts = self._plans.resolver.accounts(level, name)
        dropped = await self._state.reset([Window(account, unit, self._interval) for account, unit in accounts])
        return dropped[0]


def _windows(limits: UserLimits, user: str, domain: str) -> list[Window]:
    return [Window(each.account(user, domain), each.unit, each.window) for each in limits.active]


def limit_row(limit: ActiveLimit, usage: Usage) -> dict[str, Any]:
    """Return a limit and what is used of it as the object that the API shows."""
    unlimited = limit.amount >= UNLIMITED
    full = not unlimited and usage.used >= limit.amount
    row = {
        "level": limit.level,
        "quota": limit.quota,
        "name": limit.name,
        "unit": limit.unit,
        "window": limit.window,
        "action": limit.action,
        "amount": None if unlimited else limit.amount,
        "used": usage.used,
        "left": None if unlimited else max(0, limit.amount - usage.used),
        "room_at": usage.oldest + limit.window if full and usage.oldest else None,
    }
    return with_iso(row, "room_at")


def quota_of(limits: UserLimits) -> ActiveLimit | None:
    """Return what counts as the quota of a user: the quota's own number, else the first of its limits."""
    own = [each for each in limits.active if each.level is not Level.POOL]
    return next((each for each in own if not each.name), own[0] if own else None)


def left_of(measured: Measured) -> int:
    """Return what is left of the quota of a user, 0 if there is none."""
    quota = quota_of(measured.limits)
    return next((max(0, limit.amount - usage.used) for limit, usage in measured.usages if limit is quota), 0)
