"""Values of the book in the live state, as policies cache them."""

from __future__ import annotations

from chapps_tw.interfaces.book import Plan, UserPlan
from chapps_tw.interfaces.state import Fresh, LiveState, ValueKey
from chapps_tw.interfaces.value_keys import plan, sender, senders_of_domain, user_plan
from chapps_tw.policies.plan_texts import plan_text, read_plan, user_text
from chapps_tw.policies.sender_auth import is_allowed

TTL = 1000.0


async def keep(state: LiveState, values: dict[ValueKey, str]) -> None:
    """Cache values, replacing others."""
    keys = list(values)
    cached = await state.values(keys)
    await state.keep_values([Fresh(key, values[key], each.token) for key, each in zip(keys, cached, strict=True)], TTL)


async def keep_verdict(state: LiveState, user: str, name: str, allowed: bool) -> None:
    """Cache a verdict about a domain or an address."""
    version_key = senders_of_domain(name.rpartition("@")[2])
    version = (await state.values([version_key]))[0].value or "version"
    await keep(state, {version_key: version, sender(user, name): f"{int(allowed)}{version}"})


async def verdict_of(state: LiveState, user: str, name: str) -> bool | None:
    """Return a cached verdict, ``None`` if there is none."""
    keys = [sender(user, name), senders_of_domain(name.rpartition("@")[2])]
    verdict, version = await state.values(keys)
    return is_allowed(verdict.value, version.value)


async def keep_quota(state: LiveState, user: str, number: int, id: int = 1) -> None:
    """Cache that a user has a quota with a number."""
    values = {user_plan(user): user_text(UserPlan(True, id)), plan(id): plan_text(Plan(id, "basic", number, ()))}
    await keep(state, values)


async def quota_number(state: LiveState, user: str, id: int = 1) -> int | None:
    """Return the cached number of a user's quota; ``None`` if it is not cached that the user has one."""
    of_user, of_quota = await state.values([user_plan(user), plan(id)])
    if of_user.value != user_text(UserPlan(True, id)) or of_quota.value is None:
        return None
    found = read_plan(of_quota.value)
    return found.quota if found else None
