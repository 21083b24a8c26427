"""Actions on several entries of the book at once."""

from __future__ import annotations

from collections.abc import Sequence

from chapps_tw.ui.action import Action, Done, Field, Question, ids_of, whole
from chapps_tw.ui.views import Fields, Visit, url

_FLAGS = (("", "leave as it is"), ("1", "on"), ("0", "off"))


async def _ask_plan(visit: Visit, about: Fields) -> Question:
    plans = (await visit.call("GET", "/quotas/", limit=1000)).response
    options = [(str(each["id"]), each["name"]) for each in plans]
    says = f"{len(ids_of(about))} users get this plan instead of their own. What was counted stays counted."
    return Question([says], [Field("plan", "Plan", "choice", "", options)])


async def _plan(visit: Visit, form: Fields) -> Done:
    ids, plan = ids_of(form), whole(form, "plan", "Plan")
    for id in ids:
        await visit.call("PUT", "/users/{id}/quota/{quota_id}/", id=id, quota_id=plan)
    return Done([f"{len(ids)} users have the plan."], url("users"))


async def _ask_flags(visit: Visit, about: Fields) -> Question:
    fields = [
        Field("greylist", "Greylist mail to them", "choice", "", _FLAGS),
        Field("check_spf", "Enforce SPF for mail to them", "choice", "", _FLAGS),
    ]
    return Question([f"For {len(ids_of(about))} domains, on every node from the next request."], fields)


async def _flags(visit: Visit, form: Fields) -> Done:
    flags = {name: form[name] == "1" for name in ("greylist", "check_spf") if form[name]}
    ids: Sequence[int] = ids_of(form) if flags else ()
    for id in ids:
        await visit.call("PUT", "/domains/", id=id, **flags)
    return Done([f"{len(ids)} domains were changed."], url("domains"))


ACTIONS = (
    Action("plan-users", "Give a plan", ("PUT", "/users/{id}/quota/{quota_id}/"), ("id",), _ask_plan, _plan),
    Action("flag-domains", "Set flags", ("PUT", "/domains/"), ("id",), _ask_flags, _flags),
)
